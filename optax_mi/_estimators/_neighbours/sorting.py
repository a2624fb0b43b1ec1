"""Counts of the points within a radius in one or two features, by sorting.

Where the distance is that of one feature, the points within a radius are an interval of
its sorted values, and those within it in two features a rectangle of their ranks. That
takes n log n operations and gives the counts of all pairs exactly: the ends of an
interval are searched for by the very distances that are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

from optax_mi._estimators._neighbours import distances
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._types import Index, Metric


class SortedFeature(NamedTuple):
    """One feature of n points, in sorted order."""

    values: Float[Array, "n"]
    order: Int[Array, "n"]  # the points in the order of their values
    unit: Float[Array, ""] | float  # the factor of the distances
    group: Interval  # where each point's group is in that order


class Interval(NamedTuple):
    """The sorted values from `begin` to `end` - 1, of each point."""

    begin: Int[Array, "n"]
    end: Int[Array, "n"]


def sorted_features_of(
    variables: Sequence[Variable], metric: Metric, labels: Integer[Array, "n"] | None
) -> list[SortedFeature] | None:
    """The features of a space, one or two, or None where there are more than that.

    The first is sorted within the labels, which then hold for both.
    """
    if metric != "chebyshev" and any(v.x.shape[1] > 1 for v in variables):
        return None
    features = [(v.x[:, f], v.unit) for v in variables for f in range(v.x.shape[1])]
    if len(features) > 2:
        return None
    return [
        sorted_feature(*feature, labels if i == 0 else None)
        for i, feature in enumerate(features)
    ]


def sorted_feature(
    values: Float[Array, "n"],
    unit: Float[Array, ""] | float = 1.0,
    labels: Integer[Array, "n"] | None = None,
) -> SortedFeature:
    """Sorts one feature; where there are labels, within each of them."""
    places = jnp.arange(len(values))
    if labels is None:
        everywhere = Interval(
            jnp.zeros_like(places), jnp.full_like(places, len(values))
        )
        return SortedFeature(values, order(values), unit, everywhere)
    in_order, points = order_within(labels, values, places)
    group = jax.tree.map(
        lambda end: jnp.zeros_like(end).at[points].set(end), groups_of(in_order)
    )
    return SortedFeature(values, points, unit, group)


def kth_distances(
    feature: SortedFeature, k: Int[Array, "n"], max_k: int, metric: Metric
) -> Int[Array, "n"]:
    """Codes of the distance to the k-th nearest other point of the group.

    `k` is at most `max_k` and may differ from point to point. Where the group has fewer
    others the result means nothing.
    """
    own = feature.values[feature.order]
    k, begin, end = (a[feature.order] for a in (k, *feature.group))
    places = jnp.arange(len(own))

    def distance(step: Int[Array, "..."] | int) -> Int[Array, "n"]:
        """Codes of the distance to what is so many steps further in order."""
        other = places + step
        inside = (other >= begin) & (other < end)
        codes = _codes(own.at[other].get(mode="clip") - own, feature.unit, metric)
        return jnp.where(inside, codes, distances.farthest(codes))

    # Some i of the k are to the left, and the others to the right: of two ascending
    # sequences the k-th smallest is the least of max(left[i], right[k - i]) over i.
    def split(i: Index, kth: Int[Array, "n"]) -> Int[Array, "n"]:
        farther = jnp.maximum(distance(-i), distance(k - i))
        return jnp.where(i <= k, jnp.minimum(kth, farther), kth)

    kth = jax.lax.fori_loop(1, max_k + 1, split, distance(k))
    return jnp.zeros_like(kth).at[feature.order].set(kth)


def order(values: Float[Array, "n"]) -> Int[Array, "n"]:
    """The points in the order of their values."""
    return jax.lax.sort((_sort_key(values), jnp.arange(len(values))), num_keys=1)[1]


def order_within(
    groups: Integer[Array, "n"], values: Float[Array, "n"], points: Int[Array, "n"]
) -> tuple[Integer[Array, "n"], Int[Array, "n"]]:
    """Groups in order, and the points by group and then by their values."""
    keys = (groups, _sort_key(values))
    groups, _, points = jax.lax.sort((*keys, points), num_keys=2)
    return groups, points


def groups_of(ordered: Integer[Array, "n"]) -> Interval:
    """Where the group of each is, of groups in order."""
    places, n = jnp.arange(len(ordered)), len(ordered)
    is_last = jnp.append(ordered[1:] != ordered[:-1], True)
    return Interval(
        begin=jax.lax.cummax(jnp.where(jnp.roll(is_last, 1), places, 0)),
        end=jax.lax.cummin(jnp.where(is_last, places + 1, n), reverse=True),
    )


def _codes(
    difference: Float[Array, "n"], unit: Float[Array, ""] | float, metric: Metric
) -> Int[Array, "n"]:
    squared = metric == "euclidean"
    distance = difference * difference if squared else jnp.abs(difference)
    return distances.code(distance * unit)


def _sort_key(values: Float[Array, "n"]) -> Int[Array, "n"]:
    """Integers in the order of the values, which XLA sorts faster than floats."""
    signed = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    bits = jax.lax.bitcast_convert_type(values, signed)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(signed).max, bits)


def counts(
    features: Sequence[SortedFeature], radius: Int[Array, "n"], metric: Metric
) -> tuple[Int[Array, "n"], Int[Array, "n"]]:
    """Numbers of points, itself among them, closer than a radius and up to it.

    Args:
      features: One or two of them.
      radius: Codes.
      metric: Decides whether distances come squared.
    """
    closer = [_interval(feature, lambda c: c < radius, metric) for feature in features]
    within = [_interval(feature, lambda c: c <= radius, metric) for feature in features]
    if len(features) == 1:
        return closer[0].end - closer[0].begin, within[0].end - within[0].begin
    first, second = features
    position = jnp.arange(len(radius))
    rank = jnp.zeros_like(position).at[second.order].set(position)
    closer_count, within_count = _in_rectangles(rank[first.order], [closer, within])
    return closer_count, within_count


def _interval(
    feature: SortedFeature,
    inside: Callable[[Int[Array, "n"]], Bool[Array, "n"]],
    metric: Metric,
) -> Interval:
    """The sorted values at distances from each point that satisfy a condition."""
    n = len(feature.values)
    ordered = feature.values[feature.order]

    def is_inside(other: Float[Array, "n"]) -> Bool[Array, "n"]:
        return inside(_codes(other - feature.values, feature.unit, metric))

    def first(
        holds: Callable[[Float[Array, "n"]], Bool[Array, "n"]],
    ) -> Int[Array, "n"]:
        """The first of the group from which on a condition holds, or its end."""

        def halve(_: Any, ends: Interval) -> Interval:
            low, high = ends
            middle = (low + high) // 2
            after = (low < high) & ~holds(ordered[middle])
            return Interval(
                jnp.where(after, middle + 1, low), jnp.where(after, high, middle)
            )

        return jax.lax.fori_loop(0, n.bit_length(), halve, feature.group)[0]

    return Interval(
        begin=first(lambda other: (other > feature.values) | is_inside(other)),
        end=first(lambda other: (other > feature.values) & ~is_inside(other)),
    )


def _in_rectangles(
    ranks: Int[Array, "n"], rectangles: Sequence[Sequence[Interval]]
) -> Int[Array, "rectangles n"]:
    """How many points lie in each rectangle.

    The points are in the order of the first feature, and `ranks` are theirs in that of
    the second. A rectangle is an interval of places in the sequence, and one of ranks.
    How many of an interval have ranks below a limit is found bit by bit, the highest
    first (a wavelet matrix: Claude, Navarro and Ordonez 2015): those that have agreed
    with the limit so far, and have a zero where it has a one, are below it. The
    sequence is then sorted by the bit, and the interval follows those that agree.

    Of 3 0 5 1 4 2, how many at places 1 to 4 are below 5, in bits 101? Of 0 5 1 4, two
    have no 4. Sorted by that bit: 3 0 1 2 5 4, and 5 4 agree. The limit has no 2, and
    neither have they; sorted: 0 1 5 4 3 2. It has a 1, and one of 5 4 has none. In all
    three: 0, 1 and 4.
    """
    n = len(ranks)
    limit = jnp.stack([jnp.stack(of_ranks) for _, of_ranks in rectangles])
    begin = jnp.stack([jnp.stack([along.begin] * 2) for along, _ in rectangles])
    end = jnp.stack([jnp.stack([along.end] * 2) for along, _ in rectangles])

    def sort_by_bit(level: Index, state: Any) -> Any:
        ranks, begin, end, below = state
        bit = jnp.left_shift(1, n.bit_length() - 1 - level)
        is_zero = (ranks & bit) == 0
        zeros = jnp.concatenate([jnp.zeros(1, ranks.dtype), jnp.cumsum(is_zero)])
        has_one = (limit & bit) != 0
        below += jnp.where(has_one, zeros[end] - zeros[begin], 0)

        def follow(
            place: Int[Array, "*shape"], goes_up: Bool[Array, "*shape"]
        ) -> Int[Array, "*shape"]:
            return jnp.where(goes_up, zeros[-1] + place - zeros[place], zeros[place])

        moved = follow(jnp.arange(n), ~is_zero)
        ranks = jnp.zeros_like(ranks).at[moved].set(ranks)
        return ranks, follow(begin, has_one), follow(end, has_one), below

    state = (ranks, begin, end, jnp.zeros_like(begin))
    below = jax.lax.fori_loop(0, n.bit_length(), sort_by_bit, state)[3]
    return below[:, 1] - below[:, 0]
