"""Distances, the integers they are held as, and the scale they are taken at."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from optax_mi._estimators._neighbours import distances
from optax_mi._estimators._neighbours.distances import ALIGNMENT, FEW_FEATURES, METRICS

# Zero, subnormal, the smallest and the largest normal number, infinity.
LADDER = [0.0, 1e-45, 1.2e-38, 1.0, 1.0000001, 2.0, 3.4e38, np.inf]


def integers(n, d, dtype: Any = np.float32):
    """Points whose distances float32 holds exactly."""
    return np.random.default_rng(d).integers(-9, 10, (n, d)).astype(dtype)


@pytest.mark.parametrize("d", [1, 3, FEW_FEATURES, FEW_FEATURES + 1, 50])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_equal_the_twins(metric, d):
    x = integers(40, d)
    expected = twins.distances(x, metric)
    if metric == "euclidean":
        expected = np.rint(expected**2)  # they stay squared
    columns = distances.as_columns(jnp.asarray(x))
    assert columns.shape == (d, ALIGNMENT)
    found = distances.distances(jnp.asarray(x[:7]), columns, metric)
    np.testing.assert_array_equal(found[:, :40], expected[:7])
    assert np.all(np.isposinf(found[:, 40:]))
    codes = distances.codes_from(jnp.asarray(x[:7]), columns, metric, unit=0.5)
    np.testing.assert_array_equal(distances.decode(codes)[:, :40], expected[:7] / 2)
    plain = distances.codes_from(jnp.asarray(x[:7]), columns, metric)
    np.testing.assert_array_equal(plain, distances.code(found))


@pytest.mark.parametrize("metric", METRICS)
def test_distances_in_double_precision(metric, x64):
    x = integers(9, 3, np.float64) / 2**30  # too small a part of 1 for float32
    x[0] = 1
    found = distances.distances(
        jnp.asarray(x), distances.as_columns(jnp.asarray(x)), metric
    )
    expected = twins.distances(x, metric) ** (2 if metric == "euclidean" else 1)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found[:, :9], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("d", "looped"), [(1, False), (FEW_FEATURES, False), (FEW_FEATURES + 1, True)]
)
def test_few_features_are_written_out_and_lie_side_by_side(d, looped):
    """A loop over them, or columns that are rows, would take several times as long."""

    def used(fn, *arrays):
        return {e.primitive.name for e in jax.make_jaxpr(fn)(*arrays).eqns}

    points, columns = jnp.ones((30, d)), jnp.ones((d, 30))
    measured = partial(distances.distances, metric="euclidean")
    assert ("scan" in used(measured, points, columns)) == looped
    assert ("gather" in used(distances.as_columns, points)) != looped


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_have_the_order_of_distances_and_go_back_to_them(dtype, request):
    if dtype is np.float64:
        request.getfixturevalue("x64")
    ladder = jnp.asarray(np.array(LADDER, dtype))
    codes = distances.code(ladder)
    assert codes.dtype == {4: jnp.int32, 8: jnp.int64}[ladder.dtype.itemsize]
    assert np.all(np.diff(np.asarray(codes).astype(object)) > 0)
    np.testing.assert_array_equal(distances.decode(codes), ladder)
    assert distances.decode(codes).dtype == dtype
    assert all(distances.farthest(codes) > np.asarray(codes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_change_no_digit(dtype, request):
    if dtype is np.float64:
        request.getfixturevalue("x64")
    # From the smallest normal number to the largest, and back beyond one power's range.
    info = np.finfo(dtype)
    exponents = np.arange(info.minexp, info.maxexp)
    x = np.full(len(exponents), 1 + 3 * info.eps, dtype)
    found = distances.times_power_of_two(jnp.asarray(x), jnp.asarray(exponents))
    np.testing.assert_array_equal(found, np.ldexp(x, exponents))
    back = distances.times_power_of_two(found, -jnp.asarray(exponents))
    np.testing.assert_array_equal(back, x)
    whole = info.maxexp - info.minexp - 1
    tiny = jnp.full(1, info.tiny, dtype)
    found = distances.times_power_of_two(tiny, jnp.full(1, whole))
    np.testing.assert_array_equal(found, [dtype(2.0) ** (info.maxexp - 1)])


def test_codes_of_other_labels_are_beyond_those_of_the_same():
    codes = distances.code(jnp.asarray([[0.0, 1.0, 2.0, np.inf]] * 2))
    labels = jnp.array([5, 6]), jnp.array([5, 5, 6, 7])
    found = distances.among_label(codes, *labels)
    same = np.array([[True, True, False, False], [False, False, True, False]])
    np.testing.assert_array_equal(np.asarray(found)[same], np.asarray(codes)[same])
    assert np.asarray(found)[~same].min() > np.asarray(codes).max()


@pytest.mark.parametrize("n", [1, 1023, 1024, 1025])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_points_are_padded_to_whole_tiles(n, shape):
    values = np.ones((n, *shape), np.float32)
    padded = np.asarray(distances.pad_points(jnp.asarray(values), 7))
    assert padded.shape == (1024 if n <= 1024 else 2048, *shape)
    np.testing.assert_array_equal(padded[:n], values)
    np.testing.assert_array_equal(padded[n:], 7)


@pytest.mark.parametrize("scale", [1e-36, 1e-30, 1e-3, 1.0, 7.0, 1e30, 3e38])
def test_any_scale_is_brought_to_one_whose_squares_have_room(scale):
    x = np.float32(scale) * (integers(50, 3) / 9)
    scaled = np.asarray(distances.rescale(jnp.asarray(x)), np.float64)
    # A power of two: the mantissas are those of before.
    np.testing.assert_array_equal(np.frexp(scaled)[0], np.frexp(x)[0])
    largest = np.abs(scaled).max()
    # Twice that in 2^20 features, squared, for 2^20 samples.
    assert 4 * largest**2 * 2.0**40 < np.finfo(np.float32).max
    # And a difference of 2e-31 of it has a square.
    assert (2e-31 * largest) ** 2 > np.finfo(np.float32).tiny
    exponent = distances.scale_exponent(jnp.asarray(x))
    np.testing.assert_array_equal(np.ldexp(x.astype(np.float64), exponent), scaled)


def test_options_are_checked():
    distances.check_options("manhattan", None)
    distances.check_options("euclidean", 1)
    with pytest.raises(ValueError, match="`metric` must be one of 'euclidean'"):
        distances.check_options("cosine", None)  # pyright: ignore
    with pytest.raises(ValueError, match="`block_size` must be an integer >= 1"):
        distances.check_options("euclidean", 0)
