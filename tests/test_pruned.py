"""The search in few dimensions counts what a look at all pairs counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

from optax_mi._estimators import _joint, _pruned
from optax_mi._types import Metric

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


CASES = [
    *[(kind, (1, 1), "chebyshev") for kind in KINDS],
    *[(kind, (2, 1), "manhattan") for kind in ("on a grid", "heavy tails")],
    *[(kind, (2, 2), "chebyshev") for kind in ("Gaussian", "in clusters")],
]


@pytest.mark.parametrize(("kind", "dims", "metric"), CASES)
def test_counts_equal_those_of_all_pairs(kind, dims, metric, monkeypatch):
    n = 901
    x, y = sample(kind, n, dims[0]), sample("Gaussian", n, dims[1], seed=1)
    y[:, 0] += x[:, 0] / np.std(x)
    arguments = ((x, y), ((0,), (1,)), (2, 5), metric)
    assert not _pruned.applies([x.shape, y.shape], (5,), metric)
    plain = counts(*arguments)
    monkeypatch.setattr(_pruned, "MIN_POINTS", {2: 1, 3: 1, 4: 1})
    for have, want in zip(counts(*arguments), plain, strict=True):
        np.testing.assert_array_equal(have, want)


def test_three_variables_and_their_subspaces(monkeypatch):
    variables = [sample("Gaussian", 700, 1, seed) for seed in range(3)]
    arguments = (variables, ((0, 2), (1, 2), (2,)), (3,), "chebyshev")
    plain = counts(*arguments)
    monkeypatch.setattr(_pruned, "MIN_POINTS", {3: 1})
    for have, want in zip(counts(*arguments), plain, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("n", [6, 33, 200])
def test_small_samples_equal_the_twin(n, monkeypatch):
    monkeypatch.setattr(_pruned, "MIN_POINTS", {2: 1})
    x, y = sample("Gaussian", n, 1), sample("Gaussian", n, 1, seed=1)
    found = counts((x, y), ((0,), (1,)), (3,), "chebyshev")
    expected = twins.ksg_counts(x, y)
    for have, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(have, want)


def test_it_is_used_for_many_points_in_few_dimensions_alone():
    def applies(n, d_x, d_y, ks=(3,), metric: Metric = "chebyshev"):
        return _pruned.applies([(n, d_x), (n, d_y)], ks, metric)

    assert applies(100_000, 1, 1)
    assert applies(100_000, 2, 2, metric="manhattan")
    assert not applies(1000, 1, 1)
    assert not applies(100_000, 3, 3)
    assert not applies(100_000, 1, 1, metric="euclidean")
    assert not applies(100_000, 1, 1, ks=(100,))
