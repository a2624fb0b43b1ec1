"""The search in few dimensions counts what a look at all pairs counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

import optax_mi
from optax_mi._estimators import _axes, _distances, _joint, _ksg_discrete, _pruned

KINDS = ["Gaussian", "on a grid", "heavy tails", "repeated", "in clusters"]


def sample(kind, n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    if kind == "on a grid":
        x = np.round(6 * x)
    if kind == "heavy tails":
        x = x / rng.random((n, 1)) ** 2
    if kind == "repeated":
        x[n // 2 :] = x[: n - n // 2]
    if kind == "in clusters":
        x = 1e-3 * x + rng.integers(0, 3, (n, 1))
    return x.astype(np.float32)


def counts(variables, subspaces, ks, metric):
    def count(variables):
        return _joint.joint_counts(
            variables, subspaces, ks=ks, metric=metric, block_size=None
        )

    found = jax.jit(count)([jnp.asarray(v) for v in variables])
    return [np.asarray(a) for a in jax.tree.leaves(found)]


def search_few_points(monkeypatch):
    for table in ("MIN_POINTS", "MIN_POINTS_ALONE"):
        least = dict.fromkeys(getattr(_pruned, table), 1)
        monkeypatch.setattr(_pruned, table, least)


CASES = [
    *[(kind, (1, 1), "chebyshev") for kind in KINDS],
    ("heavy tails", (1, 1), "euclidean"),
    ("on a grid", (1, 1), "manhattan"),
    *[(kind, (2, 1), "chebyshev") for kind in ("on a grid", "heavy tails")],
    *[(kind, (2, 2), "chebyshev") for kind in ("Gaussian", "in clusters")],
    ("on a grid", (2, 2), "euclidean"),
    ("Gaussian", (3, 2), "manhattan"),
]


@pytest.mark.parametrize(("kind", "dims", "metric"), CASES)
def test_counts_equal_those_of_all_pairs(kind, dims, metric, monkeypatch):
    n = 901
    x, y = sample(kind, n, dims[0]), sample("Gaussian", n, dims[1], seed=1)
    y[:, 0] += x[:, 0] / np.std(x)
    arguments = ((x, y), ((0,), (1,)), (2, 5), metric)
    plain = counts(*arguments)
    search_few_points(monkeypatch)
    assert _pruned.applies(n, dims, (2, 5))
    for have, want in zip(counts(*arguments), plain, strict=True):
        np.testing.assert_array_equal(have, want)


def test_three_variables_and_their_subspaces(monkeypatch):
    variables = [sample("Gaussian", 700, 1, seed) for seed in range(3)]
    arguments = (variables, ((0, 2), (1, 2), (2,)), (3,), "chebyshev")
    plain = counts(*arguments)
    search_few_points(monkeypatch)
    for have, want in zip(counts(*arguments), plain, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("n", [6, 33, 200])
def test_small_samples_equal_the_twin(n, monkeypatch):
    search_few_points(monkeypatch)
    x, y = sample("Gaussian", n, 1), sample("Gaussian", n, 1, seed=1)
    found = counts((x, y), ((0,), (1,)), (3,), "chebyshev")
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)))
    np.testing.assert_array_equal(found[:-1], np.concatenate(expected))
    np.testing.assert_array_equal(found[-1], coincident)


def test_points_tied_beyond_what_is_kept_are_looked_at_again(monkeypatch):
    x = np.repeat(np.arange(30.0, dtype=np.float32), 30)[:, None]
    search_few_points(monkeypatch)
    found = counts((x, x), ((0,), (1,)), (3,), "chebyshev")
    for closer, tied in (found[:2], found[2:4], found[4:6]):
        np.testing.assert_array_equal(closer, 0)
        np.testing.assert_array_equal(tied, 29)


def discrete_counts(x, labels, metric):
    def count(x, labels):
        return _ksg_discrete.neighbour_counts(
            x, labels, k=3, metric=metric, block_size=None
        )

    return [np.asarray(a) for a in jax.jit(count)(jnp.asarray(x), jnp.asarray(labels))]


@pytest.mark.parametrize(
    ("kind", "d", "metric"),
    [
        *[(kind, 2, "euclidean") for kind in KINDS],
        ("on a grid", 3, "manhattan"),
        ("Gaussian", 5, "chebyshev"),
    ],
)
def test_counts_of_classes_equal_those_of_all_pairs(kind, d, metric, monkeypatch):
    n = 901
    # Classes of one to hundreds of points, in no order.
    labels = np.random.default_rng(2).permutation(np.arange(n) ** 3 // n**2 % 97 - 40)
    x = sample(kind, n, d)
    x[:, 0] += np.std(x) / 40 * labels
    plain = discrete_counts(x, labels, metric)
    search_few_points(monkeypatch)
    assert _pruned.applies(n, (d,), (3,))
    for have, want in zip(discrete_counts(x, labels, metric), plain, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("d", [2, 4])
def test_entropy_is_that_of_all_pairs(d, monkeypatch):
    x = sample("heavy tails", 700, d)
    plain = optax_mi.kl_entropy(x)
    search_few_points(monkeypatch)
    jax.clear_caches()  # of programs that look at all pairs
    np.testing.assert_allclose(optax_mi.kl_entropy(x), plain, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_along_an_axis_equal_sorted_distances(kind):
    x = sample(kind, 300, 1)[:, 0]
    labels = np.random.default_rng(1).integers(0, 8, 300) ** 2
    k = np.minimum(4, np.bincount(labels)[labels] - 1)
    axis = _axes.axis(jnp.asarray(x), labels=jnp.asarray(labels))
    codes = _axes.kth_distances(axis, jnp.asarray(k), 4, "manhattan")
    distance = np.abs(x[:, None] - x[None])
    distance = np.where(labels[:, None] == labels[None], distance, np.inf)
    expected = np.sort(distance, axis=1)[np.arange(300), k]  # each is its own nearest
    np.testing.assert_array_equal(_distances.decode(codes), expected)


def test_it_is_used_for_many_points_in_few_dimensions_alone():
    assert _pruned.applies(100_000, (1, 1), (3,))
    assert _pruned.applies(100_000, (2, 3), (3, 5))
    assert _pruned.applies(100_000, (5,), (3,))
    assert not _pruned.applies(1000, (1, 1), (3,))
    assert not _pruned.applies(100_000, (3, 3), (3,))
    assert not _pruned.applies(100_000, (6,), (3,))
    assert not _pruned.applies(100_000, (1, 1), (100,))


@pytest.mark.parametrize("metric", ["chebyshev", "euclidean"])
@pytest.mark.parametrize("n", [1, 2, 50, 700])
def test_counts_along_axes_equal_those_by_comparing(n, metric):
    rng = np.random.default_rng(n)
    x = np.round(rng.normal(size=(n, 2)) * 20).astype(np.float32) / 8
    radius = np.round(rng.random(n) * 10).astype(np.float32) / 8
    radius = radius**2 if metric == "euclidean" else radius
    units = [jnp.float32(1), jnp.float32(2)]
    axes = [
        axis
        for f, unit in enumerate(units)
        for axis in _axes.axes_of(jnp.asarray(x[:, [f]]), unit, metric) or []
    ]
    distance = np.abs(x[:, None] - x[None])
    distance = distance**2 if metric == "euclidean" else distance
    for used in ([0], [0, 1]):
        farther = np.max(distance[..., used] * np.array([1, 2])[used], axis=-1)
        closer, within = _axes.counts(
            [axes[i] for i in used], _distances.code(jnp.asarray(radius)), metric
        )
        np.testing.assert_array_equal(closer, np.sum(farther < radius[:, None], axis=1))
        np.testing.assert_array_equal(
            within, np.sum(farther <= radius[:, None], axis=1)
        )
