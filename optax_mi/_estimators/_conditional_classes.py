"""Neighbours in a joint space of which some variables are classes.

Two points of one class are at distance 0 in that variable, and points of different
classes at infinity. So the k-th neighbour is sought among the points that share all
classes; where they are fewer than k, the last of them takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from optax_mi._estimators import _joint, _scaling
from optax_mi._estimators._neighbours import distances
from optax_mi._types import Metric, Scaling


def mean_digammas(
    variables: Sequence[Num[Array, "n *_d"]],
    subspaces: Sequence[Sequence[int]],
    *,
    ks: Sequence[int],
    metric: Metric,
    scaling: Scaling,
    block_size: int,
) -> tuple[list[list[Float[Array, "n"]]], Bool[Array, "n"]]:
    """`_joint.mean_digammas` for each k, and which points have a neighbour.

    Args:
      variables: Points [n, d] of a continuous variable, classes [n] of a discrete one.
      subspaces: Which variables each counting is in.
      ks: Numbers of neighbours.
      metric: The norm within a continuous variable.
      scaling: What features or variables are divided by.
      block_size: Points handled at a time.
    """
    spaces = (range(len(variables)), *subspaces)
    within = _distances_within(variables, metric, scaling)

    def of_point(i: Any) -> list[tuple[_joint.JointCounts, Int[Array, ""]]]:
        distances = [of(i) for of in within]
        farthest = [reduce(jnp.maximum, (distances[v] for v in s)) for s in spaces]
        nearest = -jax.lax.top_k(-farthest[0], max(ks) + 1)[0]  # the point itself first
        others = jnp.sum(jnp.isfinite(farthest[0])) - 1

        def about(k: int) -> tuple[_joint.JointCounts, Int[Array, ""]]:
            own_k = jnp.minimum(k, others)
            rho = nearest[own_k]
            joint, *near = (_near(distance, rho) for distance in farthest)
            return _joint.JointCounts(joint, tuple(near), rho == 0, ()), own_k

        return [about(k) for k in ks]

    points = jnp.arange(len(variables[0]))
    found = jax.lax.map(of_point, points, batch_size=block_size)
    dtype = jnp.result_type(float)
    # Of a point without a neighbour nothing is taken; its terms need not be finite.
    means = [
        _joint.mean_digammas(counts, jnp.maximum(own_k, 1).astype(dtype), dtype)
        for counts, own_k in found
    ]
    return means, found[0][1] > 0


def _near(distance: Float[Array, "n"], rho: Float[Array, ""]) -> _joint.Near:
    closer, within = jnp.sum(distance < rho), jnp.sum(distance <= rho)
    # The point itself is closer than rho, or at rho where that is zero.
    own = (rho > 0).astype(closer.dtype)
    return _joint.Near(closer - own, within - closer - (1 - own))


def _distances_within(
    variables: Sequence[Num[Array, "n *_d"]], metric: Metric, scaling: Scaling
) -> list[Any]:
    """For each variable, a function from a point's number to distances from it."""

    def of_classes(labels: Int[Array, "n"]) -> Any:
        return lambda i: jnp.where(labels == labels[i], 0.0, jnp.inf)

    def of_numbers(x: Float[Array, "n d"], unit: Float[Array, ""]) -> Any:
        columns = x.T
        return lambda i: distances.distances(x[i][None], columns, metric)[0] * unit

    numbers = [v for v in variables if v.ndim > 1]
    in_units = zip(*_scaling.in_units(numbers, scaling, metric), strict=True)
    return [
        of_numbers(*next(in_units)) if v.ndim > 1 else of_classes(v) for v in variables
    ]
