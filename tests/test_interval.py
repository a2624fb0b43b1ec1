"""Standard errors against the spread of many samples, and p-values against chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

KEY = jax.random.key(0)


def classes(seed, n=500, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return rng.normal(size=n).astype(np.float32) + np.float32(shift) * labels, labels


def gaussians(seed, n=500, rho=0.8):
    x, noise = np.random.default_rng(seed).normal(size=(2, n)).astype(np.float32)
    return x, np.float32(rho) * x + np.float32(np.sqrt(1 - rho**2)) * noise


@pytest.mark.parametrize("n", [1000, 1007])
def test_the_error_of_a_mean_is_the_standard_error_of_the_mean(n):
    x, y = gaussians(0, n)
    errors = [
        optax_mi.mutual_information_interval(
            key, x, y, estimator=lambda h, y: jnp.mean(h), permutations=0
        ).standard_error
        for key in jax.random.split(KEY, 20)
    ]
    # Each is known to 12 %; the estimate of the whole is within three of it.
    assert np.mean(errors) == pytest.approx(x.std(ddof=1) / np.sqrt(n), rel=0.1)
    assert np.std(errors) / np.mean(errors) == pytest.approx(0.12, abs=0.06)


@pytest.mark.parametrize("sample", [classes, gaussians])
def test_it_is_the_spread_over_samples(sample):
    found = [
        optax_mi.mutual_information_interval(KEY, *sample(seed), permutations=0)
        for seed in range(60)
    ]
    spread = np.std([each.mi for each in found], ddof=1)
    error = np.sqrt(np.mean([each.standard_error**2 for each in found]))
    assert error == pytest.approx(spread, rel=0.3)
    assert all(np.isnan(each.p_value) for each in found)
    x, y = sample(0)
    assert found[0].mi == optax_mi.estimate_mi({"x": x}, y)["x"]


def test_p_values_are_uniform_for_what_is_independent_and_least_for_what_is_not():
    def p_value(seed, shift):
        x, labels = classes(seed, n=200, shift=shift)
        return optax_mi.mutual_information_interval(
            jax.random.key(seed), x, labels, permutations=49
        ).p_value

    independent = np.sort([p_value(seed, 0) for seed in range(40)])
    uniform = (np.arange(40) + 0.5) / 40
    assert np.abs(independent - uniform).max() < 0.25  # Kolmogorov: 1 in 100 above
    assert p_value(0, 1.0) == pytest.approx(1 / 50)


def test_it_is_nan_where_the_estimate_is():
    x, labels = classes(0)
    x[7] = np.inf
    found = optax_mi.mutual_information_interval(KEY, x, labels, permutations=5)
    assert np.isnan(found).all()


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros(60), np.zeros(59, int), {}, "`y` must .* 60 .* got 59"),
        (np.zeros(49), np.zeros(49, int), {}, "`x` must be at least 50 samples"),
        (np.zeros(60), np.zeros(60, int), {"permutations": -1}, "`permutations`"),
        (np.zeros(60), np.zeros(60, int), {"permutations": 2.5}, "`permutations`"),
    ],
)
def test_bad_input_is_named(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.mutual_information_interval(KEY, x, y, **options)
