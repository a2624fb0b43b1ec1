"""Neighbours and counts in few dimensions without looking at all pairs of points.

The results are those of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer, Shaped

from optax_mi._estimators._neighbours import distances, packing, tiles
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._estimators._neighbours.packed import Packed
from optax_mi._estimators._neighbours.packing import Leaves, Sizes
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


class Nearest(NamedTuple):
    """What the nearest points of each of n points say about the k-th of them."""

    radius: Int[Array, "n"]  # codes
    closer: Int[Array, "n"]  # other points closer than the radius
    tied: Int[Array, "n"]  # other points at the radius
    certain: Bool[Array, "n"]  # whether so; where many are tied some were not kept


def applies(n: int, features: Sequence[int], ks: Sequence[int]) -> bool:
    """Whether n points of variables of so many features are searched here."""
    least = MIN_POINTS if len(features) > 1 else MIN_POINTS_ALONE
    return n >= least.get(sum(features), np.inf) and max(ks) <= _MAX_K


def nearest(
    variables: Sequence[Variable],
    ks: Sequence[Int[Array, "n"]],
    max_ks: Sequence[int],
    metric: Metric,
    labels: Integer[Array, "n"] | None = None,
) -> list[Nearest]:
    """Finds the k-th neighbour in the space of all variables, for each k.

    A `k` is at most its `max_k`, may differ from point to point, and is at most the
    number of other points with the same label, among which the neighbours are.
    """
    sizes = SIZES[sum(v.x.shape[1] for v in variables)]
    search = _Search(
        packing.build(variables, sizes.leaf, labels),
        packing.distance(variables, metric),
        sizes,
        kept=max(max_ks) + 1,  # one more tells whether others are tied with the k-th
    )
    leaves = search.leaves
    ks_of = [leaves.of(k) for k in ks]
    bounds = packing.in_batches(
        lambda q: search.bound(q, reduce(jnp.maximum, ks_of)[q]),
        leaves,
        jnp.arange(leaves.empty),
        sizes.batch,
    )

    def about(q: Int[Array, "B"]) -> list[Nearest]:
        lanes = [search.in_rows(a) for a in search.visit(q, bounds)]
        found = [
            _kth(lanes, k[q].reshape(-1), max_k)
            for k, max_k in zip(ks_of, max_ks, strict=True)
        ]
        return jax.tree.map(search.in_rows, found)

    near = partial(search.near, bounds=bounds)
    return packing.visiting(about, near, leaves, len(ks[0]), sizes.batch)


def _kth(
    lanes: Sequence[Int[Array, "rows lanes"]], k: Int[Array, "rows"], max_k: int
) -> Nearest:
    """Of the smallest codes of each lane in order: all but the last are looked at."""
    *within, further = lanes
    within = jnp.concatenate(within, axis=1)
    radius = jnp.where(k > 0, tiles.kth_of_minima(within, k=k, max_k=max_k), 0)
    limit = radius[:, None]
    return Nearest(
        radius,
        jnp.sum(within < limit, axis=1),
        jnp.sum(within == limit, axis=1),
        jnp.all(further > limit, axis=1) | (k == 0),
    )


class _Search(NamedTuple):
    """The smallest codes of each lane of a leaf's points from those of near leaves."""

    leaves: Leaves
    distance: packing.Distance
    sizes: Sizes
    kept: int

    def own(self, q: Int[Array, "B"]) -> tuple[Int[Array, "B leaf leaf"], ...]:
        """Within the leaf itself."""
        codes = self.distance.between(self.leaves, q, q[:, None])
        far = distances.farthest(codes)
        others = jnp.where(np.eye(self.sizes.leaf, dtype=bool)[None], far, codes[0])
        return _insert((jnp.full_like(others, far),) * self.kept, others[None])

    def bound(self, q: Int[Array, "B"], k: Int[Array, "B leaf"]) -> Int[Array, "B"]:
        """A code that no point's k-th neighbour exceeds, of the neighbours in order."""
        empty = self.leaves.empty
        beside = jnp.stack([q - 1, q + 1], axis=1)
        beside = jnp.where((beside < 0) | (beside > empty), empty, beside)
        codes = self.distance.between(self.leaves, q, beside)
        radius = tiles.kth_of_minima(
            self.in_rows(_insert(self.own(q), codes)[0]),
            k=k.reshape(-1),
            max_k=self.kept - 1,
        )
        return jnp.max(self.in_rows(radius), axis=1, where=k > 0, initial=0)

    def near(
        self, q: Int[Array, "B"], bounds: Int[Array, "queries"]
    ) -> Bool[Array, "B L"]:
        """Which other leaves have to be visited."""
        leaves = self.leaves
        mask = self.distance.least(leaves, q) <= bounds[q, None]
        mask &= jnp.arange(leaves.empty + 1)[None] != q[:, None]
        return mask if leaves.label is None else mask & _share_label(leaves, q)

    def visit(
        self, q: Int[Array, "B"], bounds: Int[Array, "queries"]
    ) -> tuple[Int[Array, "B leaf leaf"], ...]:
        """Visits them."""
        return packing.visit(
            self.near(q, bounds),
            lambda index: self.distance.between(self.leaves, q, index),
            _insert,
            self.own(q),
            self.sizes.visited,
        )

    def in_rows(self, values: Shaped[Array, "..."]) -> Shaped[Array, "rows leaf"]:
        """One row for each point."""
        return values.reshape(-1, self.sizes.leaf)


def counts(
    variables: Sequence[Variable],
    radius: Int[Array, "n"],
    metric: Metric,
    labels: Integer[Array, "n"] | None = None,
) -> tuple[Int[Array, "n"], Int[Array, "n"]]:
    """Numbers of points, itself among them, closer than a radius and up to it.

    With labels, of those with the point's own.
    """
    sizes = SIZES[sum(v.x.shape[1] for v in variables)]
    leaves = packing.build(variables, sizes.leaf, labels)
    distance = packing.distance(variables, metric)
    limits = leaves.of(radius)
    farthest = jnp.max(limits, axis=1)
    empty = jnp.zeros((sizes.batch, sizes.leaf, sizes.leaf), jnp.uint32)
    packed = Packed(2)

    def near(q: Int[Array, "B"]) -> Bool[Array, "B L"]:
        mask = distance.least(leaves, q) <= farthest[q, None]
        return mask if leaves.label is None else mask & _share_label(leaves, q)

    def count(q: Int[Array, "B"]) -> list[Int[Array, "B leaf"]]:
        limit = limits[q][..., None]

        def add(state: Any, codes: Int[Array, "V B leaf leaf"]) -> Any:
            word, totals = state
            added = jnp.zeros_like(word)
            for own in codes:
                added = packed.add(added, [own < limit, own <= limit])
            # The counts of the last step are taken out of their word in this one: in
            # the same one XLA would count again for each of them.
            return added, packed.unpack(totals, word)

        word, totals = packing.visit(
            near(q),
            lambda index: distance.between(leaves, q, index),
            add,
            (empty, [jnp.zeros(empty.shape, jnp.int32)] * packed.number),
            sizes.visited,
        )
        return [jnp.sum(total, axis=2) for total in packed.unpack(totals, word)]

    closer, within = packing.visiting(count, near, leaves, len(radius), sizes.batch)
    return closer, within


def _share_label(leaves: Leaves, q: Int[Array, "B"]) -> Bool[Array, "B L"]:
    """Whether leaves, whose labels are in order, may have one in common."""
    labels: Any = leaves.label
    first, last = jnp.min(labels, axis=1), jnp.max(labels, axis=1)
    return (first[None] <= last[q, None]) & (last[None] >= first[q, None])


def _insert(
    nearest: Sequence[Int[Array, "B leaf leaf"]], codes: Int[Array, "V B leaf leaf"]
) -> tuple[Int[Array, "B leaf leaf"], ...]:
    """The smallest of each lane in order, of those so far and of further codes."""
    kept = list(nearest)
    for own in codes:
        for i, smaller in enumerate(kept):
            kept[i], own = jnp.minimum(smaller, own), jnp.maximum(smaller, own)
    return tuple(kept)
