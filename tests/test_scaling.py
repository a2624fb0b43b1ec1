"""Units: of variables, and of the features within one."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiers
import twins
from scipy.special import digamma

import optax_mi
from optax_mi._estimators import _scaling

N = 300
UNITS = np.array([1.0, 3e4, 1e-6], np.float32)


def columns(seed=0, n=N):
    """Three columns that share something with classes and with a number."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 3)) + 2.0 * np.eye(3)[0] * labels[:, None]
    y = x[:, :1] + rng.normal(size=(n, 1))
    return x.astype(np.float32), labels, y.astype(np.float32)


def conditional(x, y, **options):
    _, _, known = columns(seed=1)
    return optax_mi.ksg_conditional(x, y, known, **options)


def of_classes(x, labels, **options):
    return optax_mi.ksg_conditional(x, x[:, :1], labels, **options)


def interval(x, labels, **options):
    key = jax.random.key(0)
    return optax_mi.mi_with_error(key, x, labels, permutations=0, **options).mi


CONTINUOUS = {
    "ksg": optax_mi.ksg,
    "algorithm 2": partial(optax_mi.ksg, algorithm=2),
    "euclidean": partial(optax_mi.ksg, metric="euclidean"),
    "manhattan": partial(optax_mi.ksg, metric="manhattan"),
    "ksg_mixed": optax_mi.ksg_mixed,
    "conditional_ksg": conditional,
}
DISCRETE = {
    "ksg_discrete": optax_mi.ksg_discrete,
    "max-norm": partial(optax_mi.ksg_discrete, metric="chebyshev"),
    "conditional_ksg of classes": of_classes,
    "interval": interval,
}
ESTIMATORS = {**CONTINUOUS, **DISCRETE}


def estimate(name, x, **options):
    _, labels, y = columns()
    return ESTIMATORS[name](x, labels if name in DISCRETE else y, **options)


@pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, "ksg", "ksg_discrete"))
def test_the_units_of_the_columns_do_not_matter(name):
    x, *_ = columns()
    found = [estimate(name, x), estimate(name, x * UNITS)]
    # The factors are rounded, and one neighbour in ten thousand may be another one.
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    lost = estimate(name, x * UNITS, scaling="variable")
    assert abs(lost - found[0]) > 0.05


@pytest.mark.parametrize("name", tiers.quick(CONTINUOUS, "ksg"))
def test_the_units_of_whole_variables_do_not_matter_where_each_is_divided(name):
    x, *_ = columns()
    found = [estimate(name, x, scaling="variable") for x in (x, 1000 * x)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)


@pytest.mark.parametrize(
    ("scaling", "metric"),
    [
        *[(scaling, "chebyshev") for scaling in _scaling.SCALINGS],
        ("feature", "euclidean"),
        pytest.param("none", "manhattan", marks=pytest.mark.slow),
    ],
)
def test_it_equals_the_twin(scaling, metric):
    x, labels, y = columns()
    x, y, options = x * 3, y / 5, {"scaling": scaling, "metric": metric}
    for name in ("ksg", "ksg_mixed"):
        found = getattr(optax_mi, name)(x, y, **options)
        twin = getattr(twins, name)(x, y, **options)
        np.testing.assert_allclose(found, twin, atol=1e-5)
    found = optax_mi.ksg_conditional(y, x[:, :2], x, **options)
    twin = twins.ksg_conditional(y, x[:, :2], x, **options)
    np.testing.assert_allclose(found, twin, atol=1e-5)
    found = optax_mi.ksg_discrete(x, labels, **options)
    twin = twins.ksg_discrete(x, labels, **options)
    np.testing.assert_allclose(found, twin, atol=1e-5)


def textbook_second(x, y, k):
    """Equation (9) with every column divided by its standard deviation."""
    x, y = (v / v.std(axis=0) for v in (x, y))
    dx, dy = (np.abs(v[:, None] - v).max(axis=2) for v in (x, y))
    joint = np.maximum(dx, dy) + np.diag([np.inf] * len(x))
    nearest = np.argsort(joint, axis=1)[:, :k]
    edges = [np.take_along_axis(d, nearest, 1).max(1) for d in (dx, dy)]
    within = [
        (d <= edge[:, None]).sum(1) - 1 for d, edge in zip((dx, dy), edges, strict=True)
    ]
    means = sum(digamma(count).mean() for count in within)
    return digamma(k) - 1 / k - means + digamma(len(x))


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("dependence", [0.0, 1.0])
def test_float64_is_the_textbook_s_algorithm_2(x64, dependence, split):
    """Also compared by hand with the authors' own program, see docs/accuracy.md."""
    rng = np.random.default_rng(0)
    data = rng.random((500, 4))
    data[:, 2:] += dependence * data[:, :2]
    x, y = np.split(data * [1.0, 365.0, 1e-3, 7.0], [split], axis=1)
    for k in (1, 4, 15):
        found = optax_mi.ksg(x, y, k=k, algorithm=2)
        np.testing.assert_allclose(found, textbook_second(x, y, k), atol=1e-9)


def test_grades_keep_their_tied_distances():
    rng = np.random.default_rng(0)
    grades = rng.integers(1, 200, (N, 3)).astype(np.float32)
    scaled = np.asarray(_scaling.by_feature(jnp.asarray(grades)))
    np.testing.assert_allclose(scaled.std(axis=0), 1, 1e-4)
    for before, after in zip(grades.T, scaled.T, strict=True):
        distances = [np.abs(v[:, None] - v) for v in (before, after)]
        different = [len(np.unique(d)) for d in distances]
        assert different[0] == different[1]


@pytest.mark.parametrize(
    "column",
    [
        np.full(N, 0.1),
        np.full(N, 1e30),
        np.zeros(N),
        np.full(N, 1e-39),
    ],
    ids=["0.1", "1e30", "0", "subnormal"],
)
def test_a_column_that_does_not_vary_changes_nothing(column):
    x, labels, y = columns()
    wider = np.c_[x, column].astype(np.float32)
    for metric in ("chebyshev", "euclidean"):
        found = [optax_mi.ksg(v, y, metric=metric) for v in (x, wider)]
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    found = [optax_mi.ksg_discrete(v, labels) for v in (x, wider)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_columns_of_any_size_are_scaled_alike():
    x, labels, y = columns()
    extreme = x * np.array([1e-30, 1.0, 1e30], np.float32)
    found = [optax_mi.ksg_discrete(jnp.asarray(v), labels) for v in (x, extreme)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    # NumPy's floats hold more, each column of which is made to fit.
    for factors in ([1e-20, 1.0, 1e20], [1e-45, 1.0, 1.0], [1e-300, 1e300, 1.0]):
        wide = x.astype(np.float64) * factors
        again = optax_mi.ksg_discrete(wide, labels)
        np.testing.assert_allclose(again, found[0], atol=1e-3)
        layer = optax_mi.estimate_mi({"": wide}, labels, scaling="feature")[""]
        np.testing.assert_allclose(layer, found[0], atol=1e-3)
        of_y = [optax_mi.ksg(x, y), optax_mi.ksg(wide, y * np.float64(factors[0]))]
        np.testing.assert_allclose(of_y[1], of_y[0], atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1e5, 16e6])
def test_years_on_a_device_are_those_of_numpy(offset):
    _, labels, _ = columns()
    rng = np.random.default_rng(0)
    table = np.c_[rng.integers(1900, 2025, N) + 9 * labels, rng.integers(0, 2, N)]
    found = optax_mi.ksg_discrete(jnp.asarray(table + offset, jnp.float32), labels)
    assert found == optax_mi.ksg_discrete(table, labels)


def test_layers_are_scaled_as_a_whole_and_tables_by_column():
    x, labels, _ = columns()
    table = x * UNITS
    whole = optax_mi.estimate_mi({"": table}, labels)[""]
    by_column = optax_mi.estimate_mi({"": table}, labels, scaling="feature")[""]
    assert whole == optax_mi.ksg_discrete(table, labels, scaling="variable")
    alone = float(optax_mi.ksg_discrete(table, labels))
    assert float(by_column) == pytest.approx(alone, abs=1e-6)
    assert by_column > whole + 0.1
    probe = optax_mi.Probe(jnp.asarray(table), jnp.asarray(labels))
    assert optax_mi.reference_mi(probe, "input") == whole
    reference = optax_mi.reference_mi(probe, "input", scaling="feature")
    assert reference == by_column


def test_an_enormous_value_is_for_gaussian_margins():
    x, _, y = columns()
    outlier = x.copy()
    outlier[0] = 1e6
    assert abs(optax_mi.ksg(outlier, y)) < 0.01
    found, right = (optax_mi.ksg(v, y, margins="gaussian") for v in (outlier, x))
    np.testing.assert_allclose(found, right, atol=0.02)


def test_local_is_true_or_false():
    x, labels, _ = columns()
    local: Any = "no"
    for name in CONTINUOUS | {"ksg_discrete": None}:
        with pytest.raises(ValueError, match="`local` must be True or False"):
            estimate(name, x, local=local)
    with pytest.raises(ValueError, match="`local` must be True or False"):
        optax_mi.estimate_mi({"": x}, labels, local=local)


@pytest.mark.parametrize("k", ["3", "", np.array(3), [3.0]])
def test_k_is_one_integer_or_several(k):
    x, labels, _ = columns()
    probe = optax_mi.Probe(jnp.asarray(x), jnp.asarray(labels))
    for refused in (
        lambda: optax_mi.ksg(x, x, k=k),
        lambda: optax_mi.ksg_discrete(x, labels, k=k),
        lambda: optax_mi.reference_mi(probe, "tiled", k=k),
    ):
        with pytest.raises(ValueError, match="`k` must be a Python integer, or a seq"):
            refused()


def test_an_unknown_scaling_is_named():
    x, labels, _ = columns()
    unknown: Any = "columns"
    for name in ESTIMATORS:
        with pytest.raises(ValueError, match="`scaling` must be one of 'feature'"):
            estimate(name, x, scaling=unknown)
    with pytest.raises(ValueError, match="`scaling` must be one of"):
        optax_mi.estimate_mi({"": x}, labels, scaling=unknown)
    own = optax_mi.ksg_discrete
    with pytest.raises(ValueError, match="`scaling` must be left out"):
        optax_mi.estimate_mi({"": x}, labels, estimator=own, scaling="none")
    with pytest.raises(ValueError, match="`scaling` must be left out"):
        interval(x, labels, estimator=own, scaling="none")
