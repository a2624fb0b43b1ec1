"""Counts equal to the twins', and estimates that do not depend on what they must not.

Points are of random ties, scales and class sizes; shapes are few where cases are many,
since each compiles a program.
"""

from functools import partial
from typing import Any

import compiled
import numpy as np
import pytest
import tiers
import twins
from generated import SOAK, class_labels, generated, points
from hypothesis import strategies as st

import optax_mi

METRICS = st.sampled_from(["euclidean", "chebyshev", "manhattan"])
FEATURES = st.one_of(st.integers(1, 5), st.integers(15, 40))
SHAPES = [
    (n, d, k, metric)
    for n, d, k in [(9, 2, 3), (40, 1, 2), (40, 3, 3), (64, 17, 5)]
    for metric in ("euclidean", "chebyshev", "manhattan")
]
# Those of algorithm 2 compile for three times as long.
ALGORITHMS = st.sampled_from([1, 2]) if SOAK else st.just(1)
FEW_SHAPES = st.sampled_from(SHAPES if SOAK else SHAPES[::5])


def assert_discrete_counts(x, labels, k, metric):
    counts = compiled.discrete_counts(x, labels, k=k, metric=metric)
    expected = twins.discrete_counts(x, labels, k, metric)
    for name, have, want in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(have, want, err_msg=name)


def assert_joint_counts(x, y, k, metric, algorithm):
    counts = compiled.joint_counts(x, y, k=k, metric=metric, edges=algorithm == 2)
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)), k, metric)
    np.testing.assert_array_equal(counts.radius == 0, coincident)
    np.testing.assert_array_equal(counts.balls, expected)


@pytest.mark.slow
@generated(10, 64, data=st.data(), n=st.integers(6, 90), d=FEATURES, metric=METRICS)
def test_discrete_counts_of_any_shape(data, n, d, metric):
    x, labels = data.draw(points(n, d)), data.draw(class_labels(n))
    assert_discrete_counts(x, labels, data.draw(st.integers(1, 5)), metric)


@pytest.mark.slow
@generated(6, 32, data=st.data(), n=st.integers(7, 90), d=FEATURES, metric=METRICS)
def test_joint_counts_of_any_shape(data, n, d, metric):
    x, y = data.draw(points(n, d)), data.draw(points(n, data.draw(FEATURES)))
    k, algorithm = data.draw(st.integers(1, 5)), data.draw(ALGORITHMS)
    assert_joint_counts(x, y, k, metric, algorithm)


@generated(60, 2500, data=st.data(), shape=FEW_SHAPES)
def test_discrete_counts(data, shape):
    n, d, k, metric = shape
    x, labels = data.draw(points(n, d)), data.draw(class_labels(n))
    assert_discrete_counts(x, labels, k, metric)


@pytest.mark.slow
@generated(30, 1500, data=st.data(), shape=FEW_SHAPES)
def test_joint_counts(data, shape):
    n, d, k, metric = shape
    x, y = data.draw(points(n, d)), data.draw(points(n, 1))
    assert_joint_counts(x, y, k, metric, 1)


N, D = 48, 3
SEEDS = st.integers(0, 2**32 - 1)


def on_a_grid(rng):
    """Points whose sums with whole numbers are exact, ties among them, and classes."""
    x = np.round(rng.normal(size=(N, D)) * 64) / 64
    x[rng.integers(0, N, 8)] = x[0]
    return x.astype(np.float32), rng.integers(0, 4, N)


ESTIMATORS = {
    "ksg_discrete": optax_mi.ksg_discrete,
    "ksg": lambda x, labels: optax_mi.ksg(x, labels + x[:, 0], metric="euclidean"),
}
estimators = pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, "ksg_discrete"))


@estimators
@generated(10, 400, seed=SEEDS)
def test_the_order_of_points_does_not_matter(name, seed):
    rng = np.random.default_rng(seed)
    x, labels = on_a_grid(rng)
    order = rng.permutation(N)
    estimator = ESTIMATORS[name]
    assert estimator(x[order], labels[order]) == pytest.approx(
        float(estimator(x, labels)), abs=1e-5
    )


@generated(10, 400, seed=SEEDS, exponent=st.integers(-90, 90))
def test_scale_and_place_do_not_matter_to_classes(seed, exponent):
    rng = np.random.default_rng(seed)
    x, labels = on_a_grid(rng)
    moved = (x + rng.integers(-99, 99, D)).astype(np.float32)
    scaled = np.ldexp(moved, exponent).astype(np.float32)
    # The same comparisons, and so the same to the last bit.
    assert optax_mi.ksg_discrete(scaled, labels) == optax_mi.ksg_discrete(x, labels)


@estimators
@generated(10, 400, seed=SEEDS)
def test_a_rotation_does_not_matter_to_the_euclidean_norm(name, seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(N, D)).astype(np.float32), rng.integers(0, 4, N)
    y = labels if name == "ksg_discrete" else labels + rng.normal(size=N)
    rotation, _ = np.linalg.qr(rng.normal(size=(D, D)))
    whole: dict[str, Any] = {"scaling": "variable"}  # features change in a rotation
    estimator = {
        "ksg_discrete": partial(optax_mi.ksg_discrete, **whole),
        "ksg": partial(optax_mi.ksg, metric="euclidean", **whole),
    }[name]
    turned = estimator((x @ rotation).astype(np.float32), y)
    # Rounding may exchange two points at almost one distance.
    assert turned == pytest.approx(float(estimator(x, y)), abs=0.02)


@generated(10, 400, seed=SEEDS)
def test_the_names_of_classes_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, labels = on_a_grid(rng)
    names = rng.choice(2**31 - 1, 4, replace=False) - 2**30
    renamed = names[labels].astype(np.int32)
    assert optax_mi.ksg_discrete(x, renamed) == optax_mi.ksg_discrete(x, labels)
    assert optax_mi.label_entropy(renamed) == optax_mi.label_entropy(labels)
    assert optax_mi.plug_in_mi(renamed, labels) == pytest.approx(
        float(optax_mi.label_entropy(labels)), abs=1e-6
    )
