"""Neighbours in few dimensions without looking at all pairs of points.

Points are ordered so that a few consecutive ones, a leaf, lie in a compact box.
For a leaf of queries only those leaves are visited whose box comes within a bound of
the radius. The results are those of all pairs: boxes only tell which points need no
look, with a margin for rounding, and points are looked at by the same operations.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_mi._estimators import _axes, _distances, _neighbours
from optax_mi._types import Metric


class _Sizes(NamedTuple):
    """What was measured to be fast (docs/performance.md)."""

    min_points: int  # from which on this is worth its longer compilation
    leaf: int  # points of a leaf
    batch: int  # leaves of queries that are worked on at once
    visited: int  # leaves that each of them visits at a time


# By the number of features of all variables.
SIZES = {
    2: _Sizes(16_000, leaf=64, batch=8, visited=8),
    3: _Sizes(30_000, leaf=32, batch=32, visited=16),
    4: _Sizes(30_000, leaf=32, batch=32, visited=16),
}

# More neighbours are not looked for here: the k nearest of a leaf's lanes are kept.
_MAX_K = 8

# How much closer than its points a box is taken to be, relatively.
_MARGIN = 1e-5


class Variable(NamedTuple):
    """Points [n, d] of a variable, and the factor of its distances."""

    x: jax.Array
    unit: jax.Array


class _Leaves(NamedTuple):
    """Points of several variables in L leaves, the last one empty.

    The features of all variables, D of them, lie side by side.
    """

    position: jax.Array  # [L, leaf], into the original order; n for padding
    points: jax.Array  # [L, D, leaf], padding infinite
    low: jax.Array  # [L, D], the boxes
    high: jax.Array


class Found(NamedTuple):
    """What the nearest points of each of n points say about the k-th of them."""

    radius: jax.Array  # [n], codes
    closer: jax.Array  # [n], other points closer than the radius
    tied: jax.Array  # [n], other points at the radius
    certain: jax.Array  # [n], whether so; where many are tied some were not kept


def applies(n: int, features: int, ks: Sequence[int]) -> bool:
    """Whether n points of so many features in all are searched here."""
    return features in SIZES and n >= SIZES[features].min_points and max(ks) <= _MAX_K


def neighbours(
    variables: Sequence[Variable], ks: Sequence[int], metric: Metric
) -> list[Found]:
    """Finds the k-th neighbour in the space of all variables, for each k."""
    n = len(variables[0].x)
    sizes = SIZES[sum(v.x.shape[1] for v in variables)]
    leaves = _build(variables, sizes.leaf)
    distance = _distance(variables, metric)
    empty = len(leaves.position) - 1
    kept = max(ks) + 1  # one more than the k-th tells whether others are tied with it
    dtype = _distances.code(variables[0].unit).dtype
    far = dtype.type(np.iinfo(dtype).max)

    def codes(q: jax.Array, index: jax.Array) -> jax.Array:
        """Codes [V, B, leaf, leaf] of leaves q [B] from those of an index [B, V]."""
        return distance.between(leaves.points[q], leaves.points[index])

    def within_leaf(q: jax.Array) -> Any:
        itself = np.eye(sizes.leaf, dtype=bool)[None]
        own = jnp.where(itself, far, codes(q, q[:, None])[0])
        return _insert((jnp.full_like(own, far),) * kept, own[None])

    def about(nearest: Sequence[jax.Array], k: int) -> Found:
        *within, further = nearest
        lanes = jnp.stack(within, axis=2).reshape(-1, sizes.leaf * len(within))
        radius = _neighbours.kth_of_minima(lanes, k=k, max_k=k)
        limit = radius[:, None]
        found = Found(
            radius,
            jnp.sum(lanes < limit, axis=1),
            jnp.sum(lanes == limit, axis=1),
            jnp.all(further.reshape(-1, sizes.leaf) > limit, axis=1),
        )
        return Found(*(value.reshape(-1, sizes.leaf) for value in found))

    def bound(q: jax.Array) -> jax.Array:
        # The neighbours in the order bound the radius, and so what is to be visited.
        beside = jnp.stack([q - 1, q + 1], axis=1)
        beside = jnp.where((beside < 0) | (beside > empty), empty, beside)
        nearest = _insert(within_leaf(q), codes(q, beside))[0].reshape(-1, sizes.leaf)
        radius = _neighbours.kth_of_minima(nearest, k=max(ks), max_k=max(ks))
        radius = radius.reshape(-1, sizes.leaf)
        return jnp.max(radius, axis=1, where=leaves.position[q] < n, initial=0)

    bounds = _in_batches(bound, jnp.arange(empty), empty, sizes.batch)

    def search(q: jax.Array) -> list[Found]:
        near = jax.vmap(lambda own: distance.least(leaves, own))(q) <= bounds[q, None]
        near &= jnp.arange(empty + 1)[None] != q[:, None]
        nearest = _visit(
            near,
            lambda index: codes(q, index),
            _insert,
            within_leaf(q),
            sizes.visited,
        )
        return [about(nearest, k) for k in ks]

    # A batch takes as long as the one of its leaves that visits most others.
    order = jnp.argsort(bounds)
    found = _in_batches(search, order, empty, sizes.batch)
    position = leaves.position[order].reshape(-1)

    def unordered(values: jax.Array) -> jax.Array:
        empty_last = jnp.zeros(n + 1, values.dtype)
        return empty_last.at[position].set(values.reshape(-1))[:n]

    return jax.tree.map(unordered, found)


def _in_batches(
    fn: Callable[[jax.Array], Any], order: jax.Array, empty: int, size: int
) -> Any:
    """Applies fn to indices of leaves, so many of them at a time."""
    batches = jnp.pad(order, (0, -len(order) % size), constant_values=empty)
    found = jax.lax.map(fn, batches.reshape(-1, size))

    def join(values: jax.Array) -> jax.Array:
        return values.reshape(-1, *values.shape[2:])[: len(order)]

    return jax.tree.map(join, found)


class _Distance(NamedTuple):
    """The distance in the space of several variables, as codes."""

    variables: Sequence[tuple[slice, jax.Array]]  # features, unit
    metric: Metric

    def codes(
        self, points: jax.Array, columns: jax.Array, margin: float = 1.0
    ) -> jax.Array:
        """Codes [rows, m] of points [rows, D] from columns [D, m]."""
        codes = [
            _distances.codes_from(
                points[:, features], columns[features], self.metric, unit * margin
            )
            for features, unit in self.variables
        ]
        return reduce(jnp.maximum, codes)

    def between(self, own: jax.Array, others: jax.Array) -> jax.Array:
        """Codes [V, B, leaf, leaf] of leaves [B, D, leaf] from others [B, V, ...]."""
        of_leaf = jax.vmap(lambda own, other: self.codes(own.T, other))
        return jax.vmap(of_leaf, in_axes=(None, 1))(own, others)

    def least(self, leaves: _Leaves, q: jax.Array) -> jax.Array:
        """Codes [L], no larger than that of any point of q from any of a leaf."""
        low, high = leaves.low[q][None], leaves.high[q][None]
        gap = jnp.maximum(jnp.maximum(leaves.low - high, low - leaves.high), 0)
        return self.codes(jnp.zeros_like(gap[:1]), gap.T, 1 - _MARGIN)[0]


def _distance(variables: Sequence[Variable], metric: Metric) -> _Distance:
    ends = np.cumsum([v.x.shape[1] for v in variables])
    features = [
        slice(int(end) - v.x.shape[1], int(end))
        for end, v in zip(ends, variables, strict=True)
    ]
    units = [v.unit for v in variables]
    return _Distance(list(zip(features, units, strict=True)), metric)


def _visit(
    mask: jax.Array,
    look: Callable[[jax.Array], jax.Array],
    step: Callable[[Any, jax.Array], Any],
    state: Any,
    at_a_time: int,
) -> Any:
    """Folds what `look` finds in the leaves of a mask [B, L], some at a time."""
    index = jax.vmap(lambda own: _members(own, at_a_time))(mask)
    most = jnp.max(jnp.sum(mask, axis=1))

    def fold(carry: Any) -> Any:
        start, state = carry
        visited = jax.lax.dynamic_slice_in_dim(index, start, at_a_time, axis=1)
        return start + at_a_time, step(state, look(visited))

    carry = (jnp.zeros_like(most), state)
    return jax.lax.while_loop(lambda carry: carry[0] < most, fold, carry)[1]


def _members(mask: jax.Array, more: int) -> jax.Array:
    """The indices in a mask [L], then some of the last, empty leaf."""
    empty = len(mask) - 1
    # Sums of the ones before each by products with a triangle, far faster on a CPU than
    # `jnp.cumsum` and so than `jnp.nonzero`.
    width = int(len(mask) ** 0.5) + 1
    groups = jnp.pad(mask, (0, width * width - len(mask))).reshape(width, width)
    upto = jnp.asarray(np.triu(np.ones((width, width), np.float32)))
    precision = jax.lax.Precision.HIGHEST
    within = jnp.matmul(groups.astype(upto.dtype), upto, precision=precision)
    size = within[:, -1]
    before = jnp.matmul(size, upto, precision=precision) - size
    rank = (before[:, None] + within).astype(jnp.int32).reshape(-1)[: len(mask)] - 1
    room = len(mask) + more
    index = jnp.full(room, empty)
    return index.at[jnp.where(mask, rank, room)].set(jnp.arange(len(mask)), mode="drop")


def _insert(nearest: Sequence[jax.Array], codes: jax.Array) -> Any:
    """The smallest of each lane in order, of those so far and of further codes."""
    kept = list(nearest)
    for own in codes:
        for i, smaller in enumerate(kept):
            kept[i], own = jnp.minimum(smaller, own), jnp.maximum(smaller, own)
    return tuple(kept)


def _build(variables: Sequence[Variable], size: int) -> _Leaves:
    """Splits into slices along one feature after the other, by sorting."""
    x = jnp.concatenate([v.x for v in variables], axis=1)
    n, d = x.shape
    slices = max(1, round((n / size) ** (1 / d)))
    splits = [slices] * (d - 1)
    splits.append(-(-n // (size * slices ** (d - 1))))
    leaves = int(np.prod(splits))
    # The first feature's order is that of its axis, and so sorted only once.
    order = _axes.order(variables[0].x[:, 0])
    position = jnp.concatenate([order, jnp.full(leaves * size - n, n)])
    ended = jnp.concatenate([x, jnp.full((1, d), jnp.inf, x.dtype)])
    groups = splits[0]
    for feature, parts in enumerate(splits[1:], start=1):
        keys = ended[position, feature].reshape(groups, -1)
        _, position = jax.lax.sort((keys, position.reshape(groups, -1)), num_keys=1)
        position = position.reshape(-1)
        groups *= parts
    position = jnp.concatenate([position, jnp.full(size, n)]).reshape(-1, size)
    points = ended[position]
    return _Leaves(
        position,
        points.transpose(0, 2, 1),
        low=jnp.min(points, axis=1),
        high=jnp.max(jnp.where(points < jnp.inf, points, -jnp.inf), axis=1),
    )
