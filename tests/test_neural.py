import jax
import numpy as np
import pytest

import optax_mi

ESTIMATORS = [optax_mi.mine, optax_mi.info_nce]


def gaussians(rho, n=3000, seed=0):
    x, noise = np.random.default_rng(seed).normal(size=(2, n))
    return x, rho * x + np.sqrt(1 - rho**2) * noise


@pytest.mark.parametrize(
    "estimator",
    [optax_mi.mine, pytest.param(optax_mi.info_nce, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "rho", [0.6, *(pytest.param(rho, marks=pytest.mark.slow) for rho in (0.0, 0.9))]
)
def test_it_finds_the_information_of_gaussians(estimator, rho):
    estimate = estimator(jax.random.key(0), *gaussians(rho))
    truth = -0.5 * np.log(1 - rho**2)
    assert estimate.mi == pytest.approx(truth, abs=0.1)
    assert estimate.mi < truth + 0.06  # a lower bound, up to the sample's spread
    assert np.mean(estimate.curve[-100:]) >= np.mean(estimate.curve[:20]) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_seed_decides_and_the_scale_does_not(estimator):
    x, y = gaussians(0.8, n=600)
    options = dict(steps=50, batch_size=64)
    first = estimator(jax.random.key(1), x, y, **options)
    again = estimator(jax.random.key(1), 2.0**20 * x, y, **options)
    other = estimator(jax.random.key(2), x, y, **options)
    np.testing.assert_allclose(first.mi, again.mi, rtol=1e-4)
    assert first.mi != other.mi
    assert first.curve.shape == (50,)


@pytest.mark.slow
def test_what_the_critic_knows_by_heart_does_not_count():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 300, 20))  # independent, and few
    options = dict(steps=1500, batch_size=100, hidden=128)
    for estimator in ESTIMATORS:
        estimate = estimator(jax.random.key(0), x, y, **options)
        assert np.mean(estimate.curve[-50:]) > 1  # it learns the training half
        assert estimate.mi < 0.05


@pytest.mark.slow
def test_info_nce_never_exceeds_the_logarithm_of_the_batch():
    x, _ = gaussians(0.0)
    estimate = optax_mi.info_nce(jax.random.key(0), x, x, batch_size=16)
    assert 0.7 * np.log(16) < estimate.mi < np.log(16)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bad_input_is_refused_with_its_name(estimator):
    key, (x, y) = jax.random.key(0), gaussians(0.5, n=100)
    with pytest.raises(ValueError, match="`batch_size` must be between 2 and half"):
        estimator(key, x, y, batch_size=51)
    with pytest.raises(ValueError, match="`steps` must be an integer >= 1"):
        estimator(key, x, y, batch_size=10, steps=0)
    with pytest.raises(ValueError, match="`learning_rate` must be finite and > 0"):
        estimator(key, x, y, batch_size=10, learning_rate=-1.0)
