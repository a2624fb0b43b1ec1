"""The search in few dimensions counts what a look at all pairs counts."""

from functools import partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from compiled import MARGINS

import optax_mi
from optax_mi._estimators._neighbours import boxes, distances, sorting
from optax_mi._estimators._neighbours.distances import Variable

N = 901
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


@pytest.fixture
def searched(monkeypatch):
    """Counts as `compiled` has them, found by a search however few the points are."""

    def search(counts, *arguments, **options):
        with monkeypatch.context() as patch:
            for table in ("MIN_POINTS", "MIN_POINTS_ALONE"):
                least = dict.fromkeys(getattr(boxes, table), 1)
                patch.setattr(boxes, table, least)
            return counts(*arguments, **options, search=True)

    return search


def assert_equal(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for have, want in pairs:
        np.testing.assert_array_equal(have, want)


def assert_found_equal(found, expected, metric):
    """Counts exactly; a sum may be rounded otherwise in another program (jax 0.7.1)."""
    rounding = 0 if metric == "chebyshev" else 8
    for have, want in zip(found, expected, strict=True):
        off = np.abs(np.asarray(have.radius) - np.asarray(want.radius))
        assert off.max() <= rounding
        assert_equal(have._replace(radius=0), want._replace(radius=0))


# Those of one shape share their programs.
CASES = [
    *[(kind, (1, 1), "chebyshev") for kind in KINDS],
    *[(kind, (2, 1), "euclidean") for kind in ("on a grid", "heavy tails")],
    *[(kind, (2, 2), "chebyshev") for kind in ("Gaussian", "in clusters")],
    ("Gaussian", (3, 2), "manhattan"),
]


@pytest.mark.parametrize(
    ("kind", "dims", "metric"),
    [
        pytest.param(*case, marks=[] if case[1] == (1, 1) else pytest.mark.slow)
        for case in CASES
    ],
)
def test_counts_equal_those_of_all_pairs(kind, dims, metric, searched):
    x, y = sample(kind, N, dims[0]), sample("Gaussian", N, dims[1], seed=1)
    y[:, 0] += x[:, 0] / np.std(x)
    count = partial(compiled.counts_of, (x, y), MARGINS, ks=(2, 5), metric=metric)
    assert_found_equal(searched(count), count(), metric)


@pytest.mark.slow
def test_three_variables_and_their_subspaces(searched):
    variables = [sample("Gaussian", N, 1, seed) for seed in range(3)]
    subspaces = ((0, 2), (1, 2), (2,))
    count = partial(
        compiled.counts_of, variables, subspaces, ks=(3,), metric="chebyshev"
    )
    assert_found_equal(searched(count), count(), "chebyshev")


@pytest.mark.parametrize(
    "metric", ["chebyshev", pytest.param("euclidean", marks=pytest.mark.slow)]
)
def test_classes_among_the_variables(metric, searched):
    x, y = sample("on a grid", N, 2), sample("Gaussian", N, 1, seed=1)
    few, more = np.arange(N) % 3, np.arange(N) ** 2 % 7
    # One and two axes within a class, a class alone, classes in common, and neither.
    subspaces = ((0, 1), (2, 1), (1,), (1, 3), (0, 2))
    count = partial(
        compiled.counts_of, (x, few, y, more), subspaces, ks=(2,), metric=metric
    )
    assert_found_equal(searched(count), count(), metric)


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 33])
def test_small_samples_equal_the_twin(n, searched):
    x, y = sample("Gaussian", n, 1), sample("Gaussian", n, 1, seed=1)
    count = partial(compiled.counts_of, (x, y), MARGINS, ks=(3,), metric="chebyshev")
    (found,) = searched(count)
    coincident, expected = twins.joint_counts((x, y), MARGINS)
    np.testing.assert_array_equal(found.balls, expected)
    np.testing.assert_array_equal(found.radius == 0, coincident)


def test_points_tied_beyond_what_is_kept_are_looked_at_again(searched):
    x = (np.arange(N) * 30 // N).astype(np.float32)[:, None]  # thirty or so of each
    count = partial(compiled.counts_of, (x, x), MARGINS, ks=(2, 5), metric="chebyshev")
    others = np.bincount(x[:, 0].astype(int))[x[:, 0].astype(int)] - 1
    for found in searched(count):
        for closer, tied in found.balls:
            np.testing.assert_array_equal(closer, 0)
            np.testing.assert_array_equal(tied, others)


@pytest.mark.parametrize(
    ("kind", "d", "metric"),
    [
        *[(kind, 2, "euclidean") for kind in KINDS],
        pytest.param("on a grid", 3, "manhattan", marks=pytest.mark.slow),
        pytest.param("Gaussian", 5, "chebyshev", marks=pytest.mark.slow),
    ],
)
def test_counts_of_classes_equal_those_of_all_pairs(kind, d, metric, searched):
    # Classes of one to hundreds of points, in no order.
    labels = np.random.default_rng(2).permutation(np.arange(N) ** 3 // N**2 % 97 - 40)
    x = sample(kind, N, d)
    x[:, 0] += np.std(x) / 40 * labels
    count = partial(compiled.discrete_counts, x, labels, k=3, metric=metric)
    assert_equal(searched(count), count())


@pytest.mark.parametrize("d", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_entropy_is_that_of_all_pairs(d, searched):
    x = sample("heavy tails", N, d)
    plain = optax_mi.knn_entropy(x)
    jax.clear_caches()  # of programs that look at all pairs
    found = searched(lambda search: optax_mi.knn_entropy(x))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_in_a_feature_equal_sorted_distances(kind):
    x = sample(kind, 300, 1)[:, 0]
    labels = np.random.default_rng(1).integers(0, 8, 300) ** 2
    k = np.minimum(4, np.bincount(labels)[labels] - 1)
    feature = sorting.sorted_feature(jnp.asarray(x), labels=jnp.asarray(labels))
    codes = sorting.kth_distances(feature, jnp.asarray(k), 4, "manhattan")
    distance = np.abs(x[:, None] - x[None])
    distance = np.where(labels[:, None] == labels[None], distance, np.inf)
    expected = np.sort(distance, axis=1)[np.arange(300), k]  # each is its own nearest
    np.testing.assert_array_equal(distances.decode(codes), expected)


def test_it_is_used_for_many_points_in_few_dimensions_alone():
    assert boxes.applies(100_000, (1, 1), (3,))
    assert boxes.applies(100_000, (2, 3), (3, 5))
    assert boxes.applies(100_000, (5,), (3,))
    assert not boxes.applies(1000, (1, 1), (3,))
    assert not boxes.applies(100_000, (3, 3), (3,))
    assert not boxes.applies(100_000, (6,), (3,))
    assert not boxes.applies(100_000, (1, 1), (100,))


@pytest.mark.parametrize("metric", ["chebyshev", "euclidean"])
@pytest.mark.parametrize("n", [1, 2, 50, 700])
def test_counts_in_features_equal_those_by_comparing(n, metric):
    rng = np.random.default_rng(n)
    x = np.round(rng.normal(size=(n, 2)) * 20).astype(np.float32) / 8
    radius = np.round(rng.random(n) * 10).astype(np.float32) / 8
    radius = radius**2 if metric == "euclidean" else radius
    units = [jnp.float32(1), jnp.float32(2)]
    variables = [Variable(jnp.asarray(x[:, [f]]), unit) for f, unit in enumerate(units)]
    features = sorting.sorted_features_of(variables, metric, None)
    assert features is not None
    distance = np.abs(x[:, None] - x[None])
    distance = distance**2 if metric == "euclidean" else distance
    for used in ([0], [0, 1]):
        farther = np.max(distance[..., used] * np.array([1, 2])[used], axis=-1)
        closer, within = sorting.counts(
            [features[i] for i in used], distances.code(jnp.asarray(radius)), metric
        )
        np.testing.assert_array_equal(closer, np.sum(farther < radius[:, None], axis=1))
        np.testing.assert_array_equal(
            within, np.sum(farther <= radius[:, None], axis=1)
        )
