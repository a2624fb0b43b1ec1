"""Counts of the points within a radius along one or two axes, by sorting.

An axis is a feature whose distances stand for themselves: the points within a radius
are an interval of its sorted values, and those within it along two axes a rectangle of
their ranks. That takes n log n operations and gives the counts of all pairs exactly:
the ends of an interval are searched for by the very distances that are compared.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_mi._estimators import _distances
from optax_mi._types import Metric


class Axis(NamedTuple):
    """One feature of n points, in sorted order."""

    values: jax.Array  # [n]
    order: jax.Array  # [n], the points in the order of their values
    unit: jax.Array  # the factor of the distances


class _Interval(NamedTuple):
    """The sorted values from `begin` to `end` - 1, of each point [n]."""

    begin: jax.Array
    end: jax.Array


def axes_of(x: jax.Array, unit: jax.Array, metric: Metric) -> list[Axis] | None:
    """The axes of a variable [n, d], or None where it is more than its features."""
    if metric != "chebyshev" and x.shape[1] > 1:
        return None
    features = [x[:, f] for f in range(x.shape[1])]
    return [Axis(values, order(values), unit) for values in features]


def order(values: jax.Array) -> jax.Array:
    """The points in the order of their values."""
    position = jnp.arange(len(values))
    return jax.lax.sort((values, position), num_keys=1)[1]


def counts(
    axes: Sequence[Axis], radius: jax.Array, metric: Metric
) -> tuple[jax.Array, jax.Array]:
    """Numbers of points, itself among them, closer than a radius and up to it.

    Args:
      axes: One or two of them.
      radius: Codes [n].
      metric: Decides whether distances come squared.
    """
    closer = [_interval(axis, lambda c: c < radius, metric) for axis in axes]
    within = [_interval(axis, lambda c: c <= radius, metric) for axis in axes]
    if len(axes) == 1:
        return closer[0].end - closer[0].begin, within[0].end - within[0].begin
    first, second = axes
    position = jnp.arange(len(radius))
    rank = jnp.zeros_like(position).at[second.order].set(position)
    closer_count, within_count = _in_rectangles(rank[first.order], [closer, within])
    return closer_count, within_count


def _interval(
    axis: Axis, inside: Callable[[jax.Array], jax.Array], metric: Metric
) -> _Interval:
    """The sorted values at distances from each point that satisfy a condition."""
    n = len(axis.values)
    ordered = axis.values[axis.order]

    def is_inside(other: jax.Array) -> jax.Array:
        difference = other - axis.values
        squared = metric == "euclidean"
        distance = difference * difference if squared else jnp.abs(difference)
        return inside(_distances.code(distance * axis.unit))

    def first(holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """The first of the sorted values from which on a condition holds, or n."""

        def halve(_, ends: tuple[jax.Array, jax.Array]) -> Any:
            low, high = ends
            middle = (low + high) // 2
            before = (low < high) & ~holds(ordered[middle])
            return jnp.where(before, middle + 1, low), jnp.where(before, high, middle)

        ends = (jnp.zeros_like(axis.order), jnp.full_like(axis.order, n))
        return jax.lax.fori_loop(0, n.bit_length(), halve, ends)[0]

    return _Interval(
        begin=first(lambda other: (other > axis.values) | is_inside(other)),
        end=first(lambda other: (other > axis.values) & ~is_inside(other)),
    )


def _in_rectangles(
    ranks: jax.Array, rectangles: Sequence[Sequence[_Interval]]
) -> jax.Array:
    """How many of the ranks lie in each rectangle, [rectangles, n].

    A rectangle is an interval of the sequence of ranks [n] and one of the ranks. The
    sequence is sorted by one bit after the other, the highest first, and each interval
    of it is followed: of the ranks that agree with a limit in the bits above, those
    with a zero where it has a one are below it (a wavelet matrix: Claude, Navarro and
    Ordonez 2015).
    """
    n = len(ranks)
    limit = jnp.stack([jnp.stack(of_ranks) for _, of_ranks in rectangles])
    begin = jnp.stack([jnp.stack([along.begin] * 2) for along, _ in rectangles])
    end = jnp.stack([jnp.stack([along.end] * 2) for along, _ in rectangles])

    def sort_by_bit(level: jax.Array, state: Any) -> Any:
        ranks, begin, end, below = state
        bit = jnp.left_shift(1, n.bit_length() - 1 - level)
        is_zero = (ranks & bit) == 0
        zeros = jnp.concatenate([jnp.zeros(1, ranks.dtype), jnp.cumsum(is_zero)])
        has_one = (limit & bit) != 0
        below += jnp.where(has_one, zeros[end] - zeros[begin], 0)

        def follow(place: jax.Array, goes_up: jax.Array) -> jax.Array:
            return jnp.where(goes_up, zeros[-1] + place - zeros[place], zeros[place])

        moved = follow(jnp.arange(n), ~is_zero)
        ranks = jnp.zeros_like(ranks).at[moved].set(ranks)
        return ranks, follow(begin, has_one), follow(end, has_one), below

    state = (ranks, begin, end, jnp.zeros_like(begin))
    below = jax.lax.fori_loop(0, n.bit_length(), sort_by_bit, state)[3]
    return below[:, 1] - below[:, 0]
