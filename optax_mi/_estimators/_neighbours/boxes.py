"""Neighbours and counts in few dimensions without looking at all pairs of points.

The results are those of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer, Shaped, UInt

from optax_mi._estimators._neighbours import distances, packing, tiles
from optax_mi._estimators._neighbours.packing import Leaves, Sizes, Variable
from optax_mi._types import Metric

# By the number of features: sizes that were measured to be fast, and the number of
# points from which on a search is worth its longer compilation, in the space of several
# variables and in one alone (docs/performance.md).
SIZES = {
    2: Sizes(leaf=64, batch=8, visited=8),
    3: Sizes(leaf=32, batch=32, visited=16),
    4: Sizes(leaf=32, batch=32, visited=16),
    5: Sizes(leaf=32, batch=32, visited=16),
}
MIN_POINTS = {2: 10_000, 3: 16_000, 4: 16_000, 5: 25_000}
MIN_POINTS_ALONE = {2: 16_000, 3: 16_000, 4: 30_000, 5: 30_000}

# More neighbours are not looked for here: the k nearest of a leaf's lanes are kept.
_MAX_K = 8


class Found(NamedTuple):
    """What the nearest points of each of n points say about the k-th of them."""

    radius: UInt[Array, "n"]  # codes
    closer: Int[Array, "n"]  # other points closer than the radius
    tied: Int[Array, "n"]  # other points at the radius
    certain: Bool[Array, "n"]  # whether so; where many are tied some were not kept


def applies(n: int, features: Sequence[int], ks: Sequence[int]) -> bool:
    """Whether n points of variables of so many features are searched here."""
    least = MIN_POINTS if len(features) > 1 else MIN_POINTS_ALONE
    return n >= least.get(sum(features), np.inf) and max(ks) <= _MAX_K


def neighbours(
    variables: Sequence[Variable], ks: Sequence[int], metric: Metric
) -> list[Found]:
    """Finds the k-th neighbour in the space of all variables, for each k."""
    sizes = SIZES[sum(v.x.shape[1] for v in variables)]

    def about(lanes: Sequence[UInt[Array, "rows lanes"]], k: int) -> Found:
        *within, further = lanes
        within = jnp.concatenate(within, axis=1)
        radius = tiles.kth_of_minima(within, k=k, max_k=k)
        limit = radius[:, None]
        return Found(
            radius,
            jnp.sum(within < limit, axis=1),
            jnp.sum(within == limit, axis=1),
            jnp.all(further > limit, axis=1),
        )

    return _nearest(
        packing.build(variables, sizes.leaf),
        packing.distance(variables, metric),
        lambda lanes, _: [about(lanes, k) for k in ks],
        k=jnp.full(len(variables[0].x), max(ks)),
        kept=max(ks) + 1,  # one more tells whether others are tied with the k-th
        sizes=sizes,
    )


def kth_distances(
    variable: Variable,
    k: Int[Array, "n"],
    max_k: int,
    metric: Metric,
    labels: Integer[Array, "n"] | None = None,
) -> UInt[Array, "n"]:
    """Codes of the distance to the k-th nearest other point, of the same label.

    `k` is at most `max_k` and may differ from point to point; where it is zero there
    is no such point, and the result means nothing.
    """
    sizes = SIZES[variable.x.shape[1]]

    def kth(
        lanes: Sequence[UInt[Array, "rows lanes"]], k: Int[Array, "rows"]
    ) -> UInt[Array, "rows"]:
        return tiles.kth_of_minima(jnp.concatenate(lanes, axis=1), k=k, max_k=max_k)

    return _nearest(
        packing.build([variable], sizes.leaf, labels),
        packing.distance([variable], metric),
        kth,
        k=k,
        kept=max_k,
        sizes=sizes,
    )


def _nearest(
    leaves: Leaves,
    distance: packing.Distance,
    about: Callable[[Sequence[UInt[Array, "rows lanes"]], Int[Array, "rows"]], Any],
    *,
    k: Int[Array, "n"],
    kept: int,
    sizes: Sizes,
) -> Any:
    """What is to be said about each of n points by the nearest of others.

    `about` is given `kept` arrays of codes, the smallest of each lane in order, and k
    of the rows.
    """
    n = len(k)
    k_of = leaves.of(k)
    far = distances.farthest(distances.code(leaves.low))

    def within_leaf(q: Int[Array, "B"]) -> tuple[UInt[Array, "B leaf leaf"], ...]:
        itself = np.eye(sizes.leaf, dtype=bool)[None]
        own = jnp.where(itself, far, distance.between(leaves, q, q[:, None])[0])
        return _insert((jnp.full_like(own, far),) * kept, own[None])

    def in_rows(values: Shaped[Array, "..."]) -> Shaped[Array, "rows leaf"]:
        return values.reshape(-1, sizes.leaf)

    def bound(q: Int[Array, "B"]) -> UInt[Array, "B"]:
        # The neighbours in the order bound the radius, and so what is to be visited.
        beside = jnp.stack([q - 1, q + 1], axis=1)
        beside = jnp.where((beside < 0) | (beside > leaves.empty), leaves.empty, beside)
        lanes = _insert(within_leaf(q), distance.between(leaves, q, beside))[0]
        radius = tiles.kth_of_minima(in_rows(lanes), k=k_of[q].reshape(-1), max_k=kept)
        return jnp.max(in_rows(radius), axis=1, where=k_of[q] > 0, initial=0)

    bounds = packing.in_batches(bound, leaves, jnp.arange(leaves.empty), sizes.batch)

    def near(q: Int[Array, "B"]) -> Bool[Array, "B L"]:
        mask = distance.least(leaves, q) <= bounds[q, None]
        mask &= jnp.arange(leaves.empty + 1)[None] != q[:, None]
        if leaves.label is None:
            return mask
        first, last = leaves.label[:, 0], jnp.max(leaves.label, axis=1)
        return mask & (first[None] <= last[q, None]) & (last[None] >= first[q, None])

    def search(q: Int[Array, "B"]) -> Any:
        nearest = packing.visit(
            near(q),
            lambda index: distance.between(leaves, q, index),
            _insert,
            within_leaf(q),
            sizes.visited,
        )
        found = about([in_rows(a) for a in nearest], k_of[q].reshape(-1))
        return jax.tree.map(in_rows, found)

    return packing.visiting(search, near, leaves, n, sizes.batch)


def counts_within(
    variables: Sequence[Variable],
    radius: UInt[Array, "n"],
    predicates: Callable[
        [UInt[Array, "*rows m"], UInt[Array, "*rows #m"]],
        Sequence[Bool[Array, "*rows m"]],
    ],
    metric: Metric,
    labels: Integer[Array, "n"] | None = None,
) -> list[Int[Array, "n"]]:
    """How many points satisfy each of several predicates, for each point.

    A predicate is given codes, flagged where labels differ, and limits; it holds for no
    code above the limit but for the flag.
    """
    sizes = SIZES[sum(v.x.shape[1] for v in variables)]
    leaves = packing.build(variables, sizes.leaf)
    if labels is not None:
        leaves = leaves._replace(label=leaves.of(labels))
    distance = packing.distance(variables, metric)
    limits = leaves.of(radius)
    farthest = jnp.max(limits, axis=1)
    empty = jnp.zeros((sizes.batch, sizes.leaf, sizes.leaf), jnp.uint32)
    number = len(jax.eval_shape(predicates, empty, empty))
    bits = 32 // number

    def unpack(
        totals: Sequence[Int[Array, "B leaf leaf"]], word: UInt[Array, "B leaf leaf"]
    ) -> list[Int[Array, "B leaf leaf"]]:
        return [
            total + ((word >> (bits * i)) & np.uint32(2**bits - 1)).astype(total.dtype)
            for i, total in enumerate(totals)
        ]

    def near(q: Int[Array, "B"]) -> Bool[Array, "B L"]:
        return distance.least(leaves, q) <= farthest[q, None]

    def count(q: Int[Array, "B"]) -> list[Int[Array, "B leaf"]]:
        limit = limits[q][..., None]

        def add(state: Any, codes: UInt[Array, "V B leaf leaf"]) -> Any:
            word, totals = state
            added = jnp.zeros_like(word)
            for own in codes:
                for i, holds in enumerate(predicates(own, limit)):
                    added = jnp.where(holds, added + np.uint32(1 << bits * i), added)
            # The counts of the last step are taken out of their word in this one: in
            # the same one XLA would count again for each of them.
            return added, unpack(totals, word)

        totals = [jnp.zeros(empty.shape, jnp.int32)] * number
        word, totals = packing.visit(
            near(q),
            lambda index: distance.between(leaves, q, index),
            add,
            (empty, totals),
            sizes.visited,
        )
        return [jnp.sum(total, axis=2) for total in unpack(totals, word)]

    return packing.visiting(count, near, leaves, len(radius), sizes.batch)


def _insert(
    nearest: Sequence[UInt[Array, "B leaf leaf"]], codes: UInt[Array, "V B leaf leaf"]
) -> tuple[UInt[Array, "B leaf leaf"], ...]:
    """The smallest of each lane in order, of those so far and of further codes."""
    kept = list(nearest)
    for own in codes:
        for i, smaller in enumerate(kept):
            kept[i], own = jnp.minimum(smaller, own), jnp.maximum(smaller, own)
    return tuple(kept)
