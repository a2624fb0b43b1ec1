"""Standard errors against the spread of many samples, and p-values against chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

import optax_mi
from optax_mi import _interval

KEY = jax.random.key(0)


def classes(seed, n=500, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return rng.normal(size=n).astype(np.float32) + np.float32(shift) * labels, labels


def gaussians(seed, n=500, rho=0.8):
    x, noise = np.random.default_rng(seed).normal(size=(2, n)).astype(np.float32)
    return x, np.float32(rho) * x + np.float32(np.sqrt(1 - rho**2)) * noise


def mean_of_x(x, y):
    return jnp.mean(x)


@pytest.mark.parametrize("n", [1000, 1007])
def test_the_error_of_a_mean_is_the_standard_error_of_the_mean(n):
    x, y = gaussians(0, n)
    errors = [
        optax_mi.mi_with_error(
            key, x, y, estimator=mean_of_x, permutations=0
        ).standard_error
        for key in jax.random.split(KEY, 20)
    ]
    # The mean of 20 is known to 3 %.
    assert np.mean(errors) == pytest.approx(x.std(ddof=1) / np.sqrt(n), rel=0.1)
    assert np.std(errors) / np.mean(errors) == pytest.approx(0.13, abs=0.05)


@pytest.mark.slow
def test_it_is_what_halves_say():
    x, labels = classes(0, n=201)
    found = optax_mi.mi_with_error(KEY, x, labels, permutations=0)
    variances = []
    for key in jax.random.split(jax.random.split(KEY)[0], 30):
        order = np.argsort(jax.random.permutation(key, 201))
        one, other = (
            twins.ksg_discrete(x[i], labels[i]) for i in (order[:100], order[100:200])
        )
        variances.append((one - other) ** 2 / 2)
    expected = np.sqrt(np.mean(variances) / 2)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-3)


def separated(seed):
    _, labels = classes(seed)
    return labels.astype(np.float32), labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "ratio"), [(classes, 1.0), (gaussians, 1.0), (separated, 1.5)]
)
def test_it_is_the_spread_over_samples(sample, ratio):
    found = [
        optax_mi.mi_with_error(KEY, *sample(seed), permutations=0) for seed in range(60)
    ]
    spread = np.std([each.mi for each in found], ddof=1)
    error = np.sqrt(np.mean([each.standard_error**2 for each in found]))
    assert error == pytest.approx(ratio * spread, rel=0.25)
    assert all(np.isnan(each.p_value) for each in found)
    x, y = sample(0)
    np.testing.assert_allclose(found[0].mi, optax_mi.estimate_mi({"x": x}, y)["x"])


def test_p_values_are_uniform_for_what_is_independent_and_least_for_what_is_not():
    def p_value(seed, shift):
        x, labels = classes(seed, n=200, shift=shift)
        return optax_mi.mi_with_error(
            jax.random.key(seed), x, labels, permutations=49
        ).p_value

    independent = np.sort([p_value(seed, 0) for seed in range(40)])
    uniform = (np.arange(40) + 0.5) / 40
    assert np.abs(independent - uniform).max() < 0.25  # Kolmogorov: 1 in 100 above
    assert p_value(0, 1.0) == pytest.approx(1 / 50)


def test_equal_pairings_count_as_reaching_the_estimate():
    x, y = np.arange(60) % 2, np.arange(60) // 2 % 2  # 15 of each pair: no information
    found = optax_mi.mi_with_error(KEY, x, y, estimator=plug_in, permutations=99)
    assert found.p_value == 1


def plug_in(x, y):
    return optax_mi.plug_in_mi(x[:, 0].astype(int), y)


def test_a_second_call_compiles_nothing():
    x, labels = classes(0, n=200)
    for key in jax.random.split(KEY):
        optax_mi.mi_with_error(key, x, labels, permutations=49)
    before = _interval._interval._cache_size()
    optax_mi.mi_with_error(KEY, x, labels, permutations=49)
    assert _interval._interval._cache_size() == before


def test_it_is_nan_where_the_estimate_is():
    x, labels = classes(0, n=200)
    x[7] = np.inf
    found = optax_mi.mi_with_error(KEY, x, labels, permutations=49)
    assert np.isnan(found).all()


CLASSES = np.zeros(60, int)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros(60), CLASSES[:59], {}, "`y` must be as long as `x`, 60 .* got 59"),
        (np.zeros(49), CLASSES[:49], {}, "`x` must be of at least 50 samples, got 49"),
        (3.0, CLASSES, {}, "`x` must be an array of samples"),
        (np.zeros((60, 0)), CLASSES, {}, "`x` must be non-empty"),
        (np.zeros(60), CLASSES[:, None], {}, r"`y` must be of shape \[n\]"),
        (np.zeros(60), CLASSES + 2**40, {}, "`y` must be within the int32 range"),
        (np.zeros(60), np.eye(60), {}, "`y` must be integer class labels"),
        (np.zeros(60), CLASSES, {"permutations": -1}, "`permutations` must be"),
        (np.zeros(60), CLASSES, {"permutations": 2.5}, "`permutations` must be"),
        (np.zeros(60), CLASSES, {"permutations": None}, "`permutations` must be"),
    ],
)
def test_bad_input_is_named(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.mi_with_error(KEY, x, y, **options)


def series(rng, n=500, memory=0.95):
    x = np.zeros(n)
    for i in range(1, n):
        x[i] = memory * x[i - 1] + rng.normal()
    return x


@pytest.mark.slow
def test_blocks_make_the_p_value_right_for_series_that_remember():
    rng, rejected = np.random.default_rng(0), {1: 0, 50: 0}
    for _ in range(40):
        x, y = series(rng), series(rng)
        for blocks in rejected:
            found = optax_mi.mi_with_error(KEY, x, y, permutations=39, blocks=blocks)
            rejected[blocks] += bool(found.p_value <= 0.1)
    assert rejected[1] > 24  # of 40, where a test of 10 % should reject four
    assert rejected[50] <= 10


def test_rows_of_a_block_stay_together():
    order = np.asarray(_interval._in_blocks(KEY, 23, 5))
    assert sorted(order.tolist()) == list(range(23))
    starts = np.flatnonzero(np.diff(order, prepend=-9) != 1)
    assert set(order[starts].tolist()) <= {0, 5, 10, 15, 20}
    assert len(starts) > 2
    with pytest.raises(ValueError, match="`blocks` must be at most a quarter"):
        optax_mi.mi_with_error(KEY, np.zeros(60), np.zeros(60), blocks=16)
