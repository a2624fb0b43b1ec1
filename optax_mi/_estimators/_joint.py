"""Mean digammas in the spaces of several variables: what `ksg` and its family share.

The distance of two points in a space of several variables is the largest of their
distances within the variables, each in a unit of its own (`_scaling`); rho is the
distance of a point to its k-th neighbour in the space of all variables. Two points of
one class are at distance 0 in that variable, and points of different classes farther
apart than all others: so the neighbours of a point share all its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Bool, Float, Num

from optax_mi._estimators import _scaling
from optax_mi._estimators._neighbours import classes, counting
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._estimators._neighbours.query import Ball, Found, Query, Space
from optax_mi._estimators._neighbours.ties import mean_digamma
from optax_mi._types import AxisName, Metric, Scaling


def search(
    variables: Sequence[Num[Array, "n *_d"]],
    subspaces: Sequence[Sequence[int]],
    *,
    ks: Sequence[int],
    metric: Metric,
    scaling: Scaling,
    block_size: int | None,
    edges: bool = False,
    axis: AxisName = None,
) -> list[Found]:
    """Counts the points closer than rho to every point, and at rho, for each k.

    Args:
      variables: Points [n, d] of a continuous variable, labels [n] of classes.
      subspaces: Which variables each counting is in, after that in all of them.
      ks: Numbers of neighbours; fewer where fewer other points share all classes.
      metric: The norm within a variable.
      scaling: What features or variables are divided by.
      block_size: Points handled at a time.
      edges: Whether to find the edges of the rectangle of the k neighbours as well.
      axis: That of the devices over which the points are spread.
    """
    numbers = [i for i, v in enumerate(variables) if v.ndim > 1]
    points, units = _scaling.in_units(
        [variables[i] for i in numbers], scaling, metric, axis
    )

    def space(members: Sequence[int]) -> Space:
        labels = [variables[i] for i in members if i not in numbers]
        return Space(
            tuple(numbers.index(i) for i in members if i in numbers),
            classes.in_common(labels, axis),
        )

    query = Query(
        [Variable(*each) for each in zip(points, units, strict=True)],
        [space(members) for members in (range(len(variables)), *subspaces)],
        ks,
        metric,
        edges,
    )
    return counting.count(query, block_size=block_size, axis=axis)


def terms(
    found: Sequence[Found], signs: Sequence[int], dtype: Any
) -> tuple[Float[Array, "n"], Bool[Array, "n"]]:
    """Each point's sum of mean digammas, and whether it has a neighbour.

    That of the space of all variables, and those of subspaces by sign; the mean over
    several k.
    """
    each = [signed_sum(mean_digammas(of_k, dtype), signs) for of_k in found]
    return jnp.mean(jnp.stack(each), axis=0), found[0].k > 0


def mean_digammas(found: Found, dtype: Any) -> list[Float[Array, "n"]]:
    r"""E psi of the numbers of points as near as the k-th neighbour.

    In the whole space, and then in each subspace: psi(k) and psi(n_S + 1), with ties at
    rho in expectation over their random order (docs/method.md). What is at rho in the
    whole space is so in one variable; within a subspace of it the k-th neighbour is one
    of those tied in both, and in other subspaces nothing is tied. Where rho is zero,
    psi(n + 1) of the n coincident points (Gao et al. 2017), which is the same mean.
    Where a point has no neighbour the terms are finite, and mean nothing.
    """
    coincident, k = found.radius == 0, jnp.maximum(found.k, 1).astype(dtype)
    joint, *balls = (Ball(*(c.astype(dtype) for c in ball)) for ball in found.balls)

    def mean(ball: Ball) -> Float[Array, "n"]:
        in_order = mean_digamma(
            ball.closer,
            k - joint.closer,
            joint.tied,
            jnp.maximum(ball.tied, joint.tied),
        )
        untied = coincident | (ball.tied == 0)
        plain = digamma(ball.closer + jnp.where(coincident, ball.tied, 0) + 1)
        return jnp.where(untied, plain, in_order)

    whole = jnp.where(coincident, digamma(joint.tied + 1), digamma(k))
    return [whole, *map(mean, balls)]


def signed_sum(
    means: Sequence[Float[Array, "n"]], signs: Sequence[int]
) -> Float[Array, "n"]:
    """Each point's term: that of the whole space, and those of subspaces by sign."""
    term, *near = means
    for sign, mean in zip(signs, near, strict=True):
        term = term + sign * mean
    return term
