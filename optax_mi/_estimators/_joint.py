"""Means of digammas in the spaces of several variables: what `ksg` and others share.

The distance of two points in a space of several variables is the largest of their
distances within the variables, each in a unit of its own (`_scaling`); rho is the
distance of a point to its k-th neighbour in the space of all variables. Two points of
one class are at distance 0 in that variable, and points of different classes farther
apart than all others: so the neighbours of a point share all its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Shaped

from optax_mi import _checks
from optax_mi._estimators import _scaling
from optax_mi._estimators._neighbours import classes, collectives, counting, distances
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._estimators._neighbours.query import Ball, Found, Query, Space
from optax_mi._estimators._neighbours.sharding import number_of_points
from optax_mi._estimators._neighbours.ties import mean_digamma
from optax_mi._estimators._psi import digamma
from optax_mi._types import AxisName, Metric, Scaling


class Options(NamedTuple):
    """What an estimator is asked for, besides its variables."""

    ks: tuple[int, ...]
    metric: Metric
    scaling: Scaling
    block_size: int | None = None


# From what is found of each point, and a type of floats, to its term.
Form: TypeAlias = Callable[[Found, Any], Float[Array, "n"]]


def options(
    n: int,
    k: int | Sequence[int],
    metric: Metric,
    scaling: Scaling,
    block_size: int | None,
    axis_name: AxisName,
) -> Options:
    """The options of an estimate from n points, checked."""
    ks = _checks.several_neighbours(k, number_of_points(n, axis_name))
    distances.check_options(metric, block_size)
    _scaling.check(scaling)
    return Options(ks, metric, scaling, block_size)


def estimate(
    variables: Sequence[Num[Array, "n *_d"]],
    subspaces: Sequence[Sequence[int]],
    form: Form,
    options: Options,
    axis: AxisName,
    *,
    local: bool,
    edges: bool = False,
) -> Float[Array, "*n"]:
    """The mean over the points of a form, or each point's, averaged over several k.

    NaN where a variable is not finite. A point that shares all its classes with no
    other one has no neighbour and is left out.
    """
    variables = jax.lax.stop_gradient(tuple(variables))
    found = search(variables, subspaces, options, axis, edges=edges)
    numbers = [v for v in variables if v.ndim > 1]
    dtype = jnp.result_type(float, *numbers)
    terms = jnp.mean(jnp.stack([form(of_k, dtype) for of_k in found]), axis=0)
    has_classes = len(numbers) < len(variables)
    used = found[0].k > 0 if has_classes else None
    mean = collectives.mean_or_each(terms, axis, local, where=used)
    finite = [collectives.all_finite(v, axis) for v in numbers]
    return jnp.where(reduce(jnp.logical_and, finite, True), mean, jnp.nan)


def search(
    variables: Sequence[Num[Array, "n *_d"]],
    subspaces: Sequence[Sequence[int]],
    options: Options,
    axis: AxisName = None,
    *,
    edges: bool = False,
) -> list[Found]:
    """Counts the points closer than rho to every point, and at rho, for each k.

    Args:
      variables: Points [n, d] of a continuous variable, labels [n] of classes.
      subspaces: Which variables each counting is in, after that in all of them.
      options: Those of the estimator. Where fewer than k other points share a point's
        classes, k is their number.
      axis: That of the devices over which the points are spread.
      edges: Whether to find the edges of the rectangle of the k neighbours as well.
    """
    numbers = [i for i, v in enumerate(variables) if v.ndim > 1]
    points, units = _scaling.in_units(
        [variables[i] for i in numbers], options.scaling, options.metric, axis
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
        options.ks,
        options.metric,
        edges,
    )
    return counting.count(query, block_size=options.block_size, axis=axis)


def digamma_of_number(
    points: Shaped[Array, "n ..."], axis: AxisName
) -> Float[Array, ""]:
    """psi(N) of the points of all devices."""
    n = len(points) * collectives.size(axis)
    return digamma(jnp.asarray(n, jnp.result_type(float, points)))


def signed(*signs: int) -> Form:
    """The form of equation (8): psi(k), and psi(n_S + 1) of the subspaces by sign."""

    def form(found: Found, dtype: Any) -> Float[Array, "n"]:
        term, *near = mean_digammas(found, dtype)
        return term + sum(s * mean for s, mean in zip(signs, near, strict=True))

    return form


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
    closer, tied = (jnp.stack(numbers) for numbers in zip(*balls, strict=True))
    j, subset = (
        jnp.broadcast_to(numbers[None], closer.shape)
        for numbers in (k - joint.closer, joint.tied)
    )
    in_order = mean_digamma(closer, j, subset, jnp.maximum(tied, subset))
    untied = coincident[None] | (tied == 0)
    near = closer + jnp.where(coincident[None], tied, 0) + 1
    whole = jnp.where(coincident, joint.tied + 1, k)
    of_whole, *plain = digamma(jnp.stack([whole, *near]))
    return [of_whole, *jnp.where(untied, jnp.stack(plain), in_order)]
