import numpy as np
import pytest
import twins
from scipy.special import logsumexp

import optax_mi


def layer(n=200, d=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) + 2 * labels[:, None]
    return x.astype(np.float32), labels


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("d", [1, 40])
def test_they_equal_the_twin(d, noise):
    x, labels = layer(d=d)
    np.testing.assert_allclose(
        optax_mi.pairwise_distance_bounds(x, labels, noise=noise),
        twins.pairwise_distance_bounds(x, labels, noise),
        atol=1e-5,
    )


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_information_of_the_mixture_lies_between_them(noise):
    x, labels = layer()
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(x), 20_000)
    noisy = x[drawn] + noise * rng.normal(size=(len(drawn), x.shape[1]))
    log_density = np.stack(
        [-((noisy - centre) ** 2).sum(axis=1) / (2 * noise**2) for centre in x], axis=1
    )
    same = labels[drawn][:, None] == labels
    given = logsumexp(log_density, axis=1, b=same) - np.log(same.sum(axis=1))
    truth = np.mean(given - logsumexp(log_density, axis=1) + np.log(len(x)))
    lower, upper = optax_mi.pairwise_distance_bounds(x, labels, noise=noise)
    assert lower < truth < upper


def test_they_meet_at_the_label_entropy_where_classes_are_points_far_apart():
    labels = np.arange(300) % 3
    bounds = optax_mi.pairwise_distance_bounds(100.0 * labels, labels, noise=1.0)
    np.testing.assert_allclose(bounds, np.log(3), rtol=1e-5)


def test_the_noise_must_be_positive():
    with pytest.raises(ValueError, match="`noise` must be finite and > 0, got 0"):
        optax_mi.pairwise_distance_bounds(*layer(), noise=0)
