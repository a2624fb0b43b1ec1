"""Which strategy counts, and what all of them share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi
from optax_mi._estimators._neighbours import counting
from optax_mi._estimators._neighbours.query import ball

FEW, MANY = 1000, 100_000


def variables(*features, classes=()):
    """Shapes of variables, from functions of n: features, and classes by place."""

    def of(n):
        shapes: list[Any] = [((n, d), jnp.float32) for d in features]
        for place in classes:
            shapes.insert(place, ((n,), jnp.int32))
        return [jax.ShapeDtypeStruct(*shape) for shape in shapes]

    return of


# By estimator and variables: who counts few points, and who many. It is the table of
# docs/counting.md.
TABLE = {
    "ksg_discrete": [
        (variables(1, classes=[1]), "sorting", "sorting"),
        (variables(2, classes=[1]), "tiles", "boxes"),
        (variables(10, classes=[1]), "tiles", "tiles"),
        (variables(100, classes=[1]), "matmul", "matmul"),
    ],
    "knn_entropy": [
        (variables(1), "sorting", "sorting"),
        (variables(2), "tiles", "boxes"),
        (variables(10), "tiles", "tiles"),
        (variables(100), "tiles", "tiles"),  # a product's distances have an error
    ],
    "ksg": [
        (variables(1, 1), "tiles", "boxes"),
        (variables(10, 1), "tiles", "tiles"),
        (variables(100, 1), "tiles", "tiles"),  # in the maximum norm, its default
    ],
    "ksg_mixed": [
        (variables(1, 1), "tiles", "boxes"),
        (variables(10, 1), "tiles", "tiles"),
    ],
    "ksg_conditional": [
        (variables(1, 1, 1), "tiles", "boxes"),
        (variables(1, 1, classes=[2]), "tiles", "boxes"),
        (variables(1, classes=[1, 2]), "sorting", "sorting"),
        (variables(classes=[0, 1, 2]), "classes", "classes"),
        (variables(10, 1, 1), "tiles", "tiles"),
    ],
}
ROWS = [
    pytest.param(name, of, n, by, id=f"{name}-{i}-{n}")
    for name, rows in TABLE.items()
    for i, (of, few, many) in enumerate(rows)
    for n, by in [(FEW, few), (MANY, many)]
]


@pytest.fixture
def chosen(monkeypatch):
    """The strategies chosen while a function is traced."""
    answers, strategy = [], counting.strategy

    def answer(query, n):
        answers.append(strategy(query, n))
        return answers[-1]

    monkeypatch.setattr(counting, "strategy", answer)
    jax.clear_caches()  # what is compiled chooses no more
    return answers


@pytest.mark.parametrize(("name", "of", "n", "by"), ROWS)
def test_one_place_chooses_who_counts(name, of, n, by, chosen):
    jax.eval_shape(getattr(optax_mi, name), *of(n))
    assert chosen == [by]


@pytest.mark.parametrize("name", ["ksg", "ksg_mixed", "ksg_conditional"])
def test_wide_variables_are_measured_by_a_product_in_the_euclidean_norm(name, chosen):
    shapes = variables(100, 1, *[1][: name == "ksg_conditional"])(FEW)
    estimator = getattr(optax_mi, name)
    jax.eval_shape(lambda *xs: estimator(*xs, metric="euclidean"), *shapes)
    assert chosen == ["matmul"]


def test_edges_are_looked_for_among_all_pairs(chosen):
    shapes = variables(1, 1)(MANY)
    jax.eval_shape(lambda *xs: optax_mi.ksg(*xs, algorithm=2), *shapes)
    assert chosen == ["tiles"]


@pytest.mark.parametrize("limit", [0, 1, 2, 9])
def test_others_leave_out_the_point_itself(limit):
    distances = np.array([0, 0, 0, 0, 2, 2, 5, 9])  # the first is from the point itself
    closer, within = (
        jnp.array([c.sum()]) for c in (distances < limit, distances <= limit)
    )
    counted = ball(jnp.full(1, limit, jnp.int32), closer, within)
    others = distances[1:]
    assert [int(c[0]) for c in counted] == [sum(others < limit), sum(others == limit)]
