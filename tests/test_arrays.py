"""NumPy arrays that are wider than the devices' floats, or of another kind."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi
from optax_mi import _arrays

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
Z = RNG.normal(size=600)
Y = 0.9 * Z + 0.19**0.5 * RNG.normal(size=600)
W = RNG.normal(size=600)
C = (Z > 0).astype(int)

DOORS: dict[str, Any] = {
    "ksg x": lambda x: optax_mi.ksg(x, Y),
    "ksg y": lambda x: optax_mi.ksg(Y, x),
    "ksg_discrete": lambda x: optax_mi.ksg_discrete(x, C),
    "ksg_mixed": lambda x: optax_mi.ksg_mixed(x, Y),
    "conditional_ksg x": lambda x: optax_mi.ksg_conditional(x, Y, C[:, None] + 0.0),
    "conditional_ksg z": lambda x: optax_mi.ksg_conditional(W, Y, x),
    "kl_entropy": lambda x: optax_mi.knn_entropy(x),
    "pairwise": lambda x: optax_mi.pairwise_distance_bounds(x, C, noise=0.5).lower,
    "estimate_mi layer": lambda x: optax_mi.estimate_mi({"a": x}, C)["a"],
    "estimate_mi outcomes": lambda x: optax_mi.estimate_mi({"a": Z}, x)["a"],
    "interval": lambda x: optax_mi.mi_with_error(KEY, x, C, permutations=0).mi,
    "curve": lambda x: optax_mi.sample_size_curve(KEY, x, C, [300], 2).mean[0],
}


def of_probe(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        probe = optax_mi.sample_probe(KEY, Z, x, 500)
    return optax_mi.estimate_mi({"a": probe.inputs}, probe.outcomes)["a"]


DOORS["sample_probe outcomes"] = of_probe

MOVED = {
    "Unix seconds": 1.7e9 + Z,
    "Julian dates": 2_460_000.5 + Z,
    "long double": np.longdouble(1.7e9) + Z,
    "big-endian": (1.7e9 + Z).astype(">f8"),
    "a list": [1.7e9 + z for z in Z.tolist()],
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
def test_no_door_loses_what_float32_cannot_hold(door, moved):
    assert float(door(moved)) == pytest.approx(float(door(Z)), abs=2e-3)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_large_integers_are_numbers_as_features(dtype):
    seconds = np.round(1000 * Z).astype(int)
    large = (seconds + 1_800_000_000).astype(dtype)
    right = float(optax_mi.ksg_discrete(seconds.astype(float), C))
    assert float(optax_mi.ksg_discrete(large, C)) == pytest.approx(right, abs=1e-5)
    if dtype != np.int32:
        huge = large.astype(dtype) * dtype(10**9) + dtype(7 * 10**17)
        assert float(optax_mi.ksg_discrete(huge, C)) == pytest.approx(right, abs=1e-3)


def test_dates_as_whole_numbers_keep_their_order():
    days = 20260101 + np.arange(600) % 28
    right = float(optax_mi.ksg_discrete(np.arange(600) % 28 + 0.0, days))
    assert float(optax_mi.ksg_discrete(days, days)) == pytest.approx(right)


@pytest.mark.parametrize("offset", [0.0, 2.0**20, -3e9])
def test_equal_distances_stay_equal(offset):
    grid = RNG.integers(0, 5, (600, 2)).astype(float)
    moved, same = (
        np.asarray(_arrays.on_device("x", grid + o, units=True)) for o in (offset, 0.0)
    )
    np.testing.assert_array_equal(np.ptp(moved - same, axis=0), 0)
    near = RNG.normal(size=(600, 3))
    kept = _arrays.on_device("x", near, units=True)
    np.testing.assert_array_equal(kept, near.astype(np.float32))


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_numbers_beyond_float32_are_scaled_where_the_unit_does_not_count(scale):
    right = float(optax_mi.ksg_discrete(Z, C))
    assert float(optax_mi.ksg_discrete(scale * Z, C)) == pytest.approx(right, abs=1e-3)
    assert float(optax_mi.ksg(scale * Z, Y)) == pytest.approx(
        float(optax_mi.ksg(Z, Y)), abs=1e-3
    )


def test_an_entropy_keeps_its_unit():
    right = float(optax_mi.knn_entropy(Z))
    found = float(optax_mi.knn_entropy(10_000 + 100 * Z))
    assert found == pytest.approx(right + np.log(100), abs=1e-3)


def test_values_that_merge_are_told_of_once():
    x = np.r_[500 + 1e-9 * Z[:-2], 0.0, 1000.0]
    with pytest.warns(
        UserWarning, match="`x` has different values that float32"
    ) as told:
        optax_mi.ksg_discrete(x, C)
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optax_mi.ksg_discrete(np.round(x), C)  # equal before
        optax_mi.ksg_discrete(RNG.normal(size=(3000, 1)), np.arange(3000) % 2)


def test_outcomes_of_a_probe_are_moved_where_they_have_to_be_and_that_is_said():
    probe = optax_mi.sample_probe(KEY, Z, 100 + Y, 500)
    index = optax_mi.sample_probe(KEY, np.arange(600), C, 500).inputs
    np.testing.assert_array_equal(probe.outcomes, (100 + Y).astype(np.float32)[index])
    with pytest.warns(UserWarning, match="`y` has differences .* subtracted") as told:
        moved = optax_mi.sample_probe(KEY, Z, 1e9 + Y, 500)
    assert told[0].filename == __file__
    np.testing.assert_allclose(np.ptp(moved.outcomes - Y[index]), 0, atol=1e-6)
    with pytest.warns(UserWarning, match="`outcomes` has differences") as told:
        optax_mi.sample_positions(KEY, 1e9 + Y.reshape(60, 10), 500)
    assert told[0].filename == __file__


@pytest.mark.parametrize("value", [0.3, np.nan, np.inf])
def test_outcomes_without_a_spread_are_not_said_to_be_moved(value):
    y = np.c_[Y, np.full(600, 0.3)]
    y[0] = value
    probe = optax_mi.sample_probe(KEY, Z, y, 600)
    index = optax_mi.sample_probe(KEY, np.arange(600), C, 600).inputs
    np.testing.assert_array_equal(probe.outcomes, y.astype(np.float32)[index])


@pytest.mark.parametrize("wider", [False, True])
def test_with_wider_floats_less_is_moved(wider, request):
    if wider:
        request.getfixturevalue("x64")
    assert _arrays.is_wide(Z) != wider
    assert _arrays.is_wide(Z.astype(np.longdouble))
    assert _arrays.is_wide(C)
    assert not _arrays.is_wide(Z.astype(np.float32))
    assert not _arrays.is_wide(jnp.asarray(Z))
    found = float(optax_mi.ksg_discrete(1.7e9 + Z, C))
    assert found == pytest.approx(float(optax_mi.ksg_discrete(Z, C)), abs=1e-3)


def test_missing_values_stay_missing():
    x = np.c_[1e9 + Z, Z]
    for missing in (np.nan, np.inf):
        x[3, 0] = missing
        assert np.isnan(float(optax_mi.ksg_discrete(x, C)))


def test_inputs_of_a_probe_keep_their_values():
    x = (1000 + Z).astype(np.longdouble)
    probe = optax_mi.sample_probe(KEY, {"a": x, "b": C.astype(">i4")}, C, 600)
    index = optax_mi.sample_probe(KEY, np.arange(600), C, 600).inputs
    np.testing.assert_array_equal(probe.inputs["a"], x.astype(np.float32)[index])
    np.testing.assert_array_equal(probe.inputs["b"], C[index])


def test_names_are_refused_with_what_to_write():
    names = np.array(["cat", "dog"])[C]
    for call in (
        lambda: optax_mi.ksg_discrete(Z, names),
        lambda: optax_mi.sample_probe(KEY, Z, names, 10),
        lambda: optax_mi.estimate_mi({"a": Z}, names.astype(object)),
    ):
        with pytest.raises(ValueError, match=r"numpy.unique\(names, return_inverse"):
            call()


def test_integers_of_which_most_are_alone_are_told_of():
    prices = np.round(1e5 * Y).astype(int)
    with pytest.warns(UserWarning, match=r"`outcomes` holds integers.*astype\(float\)"):
        optax_mi.estimate_mi({"a": Z}, prices)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optax_mi.estimate_mi({"a": Z}, np.round(10 * Y).astype(int))
