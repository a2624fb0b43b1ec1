"""Euclidean distances by a matrix product: their error, and what is done about it."""

import compiled
import jax.numpy as jnp
import numpy as np
import pytest
import twins

import optax_mi
from optax_mi._estimators._neighbours import matmul

N = 150


def data(kind, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, d))
    if kind == "rectified":
        x = np.maximum(x, 0)
    if kind == "far from the origin":
        x = x + 300
    if kind == "of two directions":
        x = rng.normal(size=(N, 2)) @ rng.normal(size=(2, d))
    if kind == "quantised":
        x = rng.integers(0, 4, (N, d)) / 3
    if kind == "repeated rows, far away":
        x[N // 2 :] = x[: N - N // 2]
        x = x + 50
    if kind == "one outlier":
        x[0] *= 1e4
    return x.astype(np.float32)


KINDS = [
    "plain",
    "rectified",
    "far from the origin",
    "of two directions",
    "quantised",
    "repeated rows, far away",
    "one outlier",
]


@pytest.mark.parametrize("d", [17, 784, 3072])
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_stays_well_within_its_bound(kind, d):
    x = data(kind, d)
    rows, columns = matmul.prepare(jnp.asarray(x))
    got = np.asarray(matmul.squared_distances(rows, columns))[:, :N]
    truth = twins.distances(x, "euclidean") ** 2
    bound = np.stack(
        [matmul.error(rows, jnp.asarray(truth[:, j], jnp.float32)) for j in range(N)],
        axis=1,
    )
    assert np.max(np.abs(got - truth) / bound) < 0.5


@pytest.mark.parametrize(
    ("kind", "d"), [(kind, 300) for kind in KINDS] + [("plain", 17), (KINDS[5], 17)]
)
def test_counts_equal_the_float64_twins(kind, d):
    x, labels = data(kind, d), np.random.default_rng(1).integers(0, 4, N)
    labels[:3] = [7, 8, 8]
    if kind == "quantised":
        # Thirds are no float32 numbers: distances that tie on paper do not in float64.
        x = np.round(3 * x)
    counts = compiled.discrete_counts(x, labels, k=3, metric="euclidean")
    expected = twins.discrete_counts(x, labels, 3, "euclidean")
    for name, have, want in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(have, want, err_msg=name)


@pytest.mark.parametrize(
    ("kind", "d_y"),
    [
        *[(kind, 1) for kind in KINDS[:4] + KINDS[5:]],
        *[pytest.param(kind, 40, marks=pytest.mark.slow) for kind in KINDS[::5]],
    ],
)
def test_joint_counts_equal_the_float64_twins(kind, d_y):
    x, y = data(kind, 60), data("plain", d_y, seed=1)
    y[:, 0] += x[:, 0]
    counts = compiled.joint_counts(x, y, k=3, metric="euclidean")
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)), 3, "euclidean")
    np.testing.assert_array_equal(counts.radius == 0, coincident)
    np.testing.assert_array_equal(counts.balls, expected)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_points_that_all_coincide_have_no_error_and_equal_counts(value):
    x, labels = np.full((N, 30), value, np.float32), np.arange(N) % 4
    rows, _ = matmul.prepare(jnp.asarray(x))
    assert not matmul.error(rows, jnp.zeros(N)).any()
    counts = compiled.discrete_counts(x, labels, k=3, metric="euclidean")
    expected = twins.discrete_counts(x, labels, 3, "euclidean")
    for name, have, want in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(have, want, err_msg=name)
    y = data("plain", 1)
    counts = compiled.joint_counts(x, y, k=3, metric="euclidean")
    _, expected = twins.joint_counts((x, y), ((0,), (1,)), 3, "euclidean")
    np.testing.assert_array_equal(counts.balls, expected)


@pytest.mark.slow
def test_two_copies_of_a_wide_layer_say_what_one_says():
    x = data("plain", 500)
    labels = np.arange(N) % 3
    x[:, 0] += 100 * labels
    mi = optax_mi.ksg_discrete(x, labels)
    np.testing.assert_allclose(
        optax_mi.ksg_discrete(np.hstack([x, x]), labels), mi, atol=1e-6
    )
