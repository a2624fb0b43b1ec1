"""Counts equal to the twins' on random shapes, scales, ties and class sizes."""

import compiled
import numpy as np
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

METRICS = st.sampled_from(["euclidean", "chebyshev", "manhattan"])
FEATURES = st.one_of(st.integers(1, 5), st.integers(15, 40))


@st.composite
def points(draw, n, d):
    """Points as float32: Gaussian or on a grid, some repeated, at any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(n, d))
    if draw(st.booleans()):
        x = np.round(x * draw(st.sampled_from([1, 3])))
    if draw(st.booleans()):
        x[rng.integers(0, n, n // 3)] = x[rng.integers(0, n)]
    # Powers of two, so that the grid's ties stay ties in float64 as well.
    return (x * 2.0 ** draw(st.integers(-30, 30))).astype(np.float32)


@settings(max_examples=28, deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(6, 90), d=FEATURES, metric=METRICS)
def test_discrete_counts(data, n, d, metric):
    k = data.draw(st.integers(1, 5))
    x = data.draw(points(n, d))
    sizes = data.draw(st.lists(st.integers(1, n), min_size=1, max_size=4))
    labels = np.repeat(np.arange(len(sizes)), sizes)[:n] * 7 - 3
    labels = np.concatenate([labels, np.full(n - len(labels), 100)])
    counts = compiled.discrete_counts(x, labels, k=k, metric=metric)
    expected = twins.discrete_counts(x, labels, k, metric)
    for name, have, want in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(have, want, err_msg=name)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(7, 90), d=FEATURES, metric=METRICS)
def test_joint_counts(data, n, d, metric):
    k = data.draw(st.integers(1, 5))
    algorithm = data.draw(st.sampled_from([1, 2]))
    x, y = data.draw(points(n, d)), data.draw(points(n, data.draw(FEATURES)))
    counts = compiled.joint_counts(x, y, k=k, metric=metric, edges=algorithm == 2)
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)), k, metric)
    np.testing.assert_array_equal(counts.coincident, coincident)
    np.testing.assert_array_equal([counts.joint, *counts.near], expected)
