"""Neighbours in few dimensions without looking at all pairs of points.

Points are ordered so that every `LEAF` consecutive ones, a leaf, lie in a compact box.
For a leaf of queries only those leaves are visited whose box comes within the radius;
those that lie inside it as a whole are counted without a look at their points. In one
dimension the points are sorted and the ends of the radius are searched for.

The results are those of all pairs, to the last count: boxes only tell which points need
no look, with a margin for rounding, and points are looked at by the same operations.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_mi._estimators import _distances, _neighbours
from optax_mi._types import Metric

LEAF = 32

# From how many points on this beats looking at all pairs by what its longer compilation
# is worth, by the number of features of all variables (docs/performance.md).
MIN_POINTS = {2: 16_000, 3: 30_000, 4: 30_000}

# More neighbours are not looked for here: the k nearest of a leaf's lanes are kept.
_MAX_K = 8

# Leaves that are visited at a time.
_VISITED = 8

# Leaves of queries that are worked on at once.
_BATCH = 64

# How much closer than its points a box is taken to be, relatively.
_MARGIN = 1e-5


class Variable(NamedTuple):
    """Points [n, d] of a variable, and the factor of its distances."""

    x: jax.Array
    unit: jax.Array


class Counts(NamedTuple):
    """Numbers of other points."""

    closer: jax.Array  # [n]
    tied: jax.Array  # [n]


class _Tree(NamedTuple):
    """Points in leaves: L of them, the last one empty."""

    position: jax.Array  # [L, LEAF], into the original order; n for padding
    columns: tuple[jax.Array, ...]  # [L, d, LEAF] of each variable, padding infinite
    low: tuple[jax.Array, ...]  # [L, d], the boxes
    high: tuple[jax.Array, ...]
    size: jax.Array  # [L]


def applies(
    n: int, features: Sequence[int], ks: Sequence[int], metric: Metric
) -> bool:
    """Whether n points of variables of so many features are searched here."""
    least = MIN_POINTS.get(sum(features))
    return least is not None and n >= least and max(ks) <= _MAX_K


def radii(
    variables: Sequence[Variable], ks: Sequence[int], metric: Metric
) -> list[jax.Array]:
    """For each k, codes [n] of the distance to the k-th neighbour in the whole."""
    tree, n = _build(variables), len(variables[0].x)
    leaves, within = len(tree.size) - 1, max(ks) + 1  # a point is the nearest to itself
    dtype = _distances.code(variables[0].unit).dtype
    nobody = (jnp.full((LEAF, LEAF), np.iinfo(dtype).max, dtype),) * within

    def nearer(q: jax.Array, index: jax.Array, best: Any) -> Any:
        """The nearest of each lane, with the points of more leaves."""
        return _insert(best, _codes(tree, variables, q, index, metric))

    def kth(best: Any, k: int) -> jax.Array:
        lanes = jnp.concatenate(best, axis=1)
        return _neighbours.kth_smallest(
            _neighbours.stored, lanes, k=k + 1, max_k=k + 1
        )

    def bound(q: jax.Array) -> jax.Array:
        # The neighbours in the order bound the radius, and so what is to be visited.
        around = q + jnp.arange(-1, 2)
        around = jnp.where((around < 0) | (around > leaves), leaves, around)
        radius = kth(nearer(q, around, nobody), max(ks))
        return jnp.max(radius, where=tree.position[q] < n, initial=0)

    bounds = jax.lax.map(bound, jnp.arange(leaves), batch_size=_BATCH)

    def near(q: jax.Array) -> jax.Array:
        return _box_distance(tree, variables, q, metric, farthest=False) <= bounds[q]

    def search(q: jax.Array) -> list[jax.Array]:
        best = _visit(near(q), lambda index, best: nearer(q, index, best), nobody)
        return [kth(best, k) for k in ks]

    found = _map_evenly(near, search, leaves)
    return [_unordered(radius, tree, n) for radius in found]


def counts(
    variables: Sequence[Variable], radii: Sequence[jax.Array], metric: Metric
) -> list[Counts]:
    """For each radius [n], how many other points are closer, and how many at it."""
    if len(variables) == 1 and variables[0].x.shape[1] == 1:
        ends = [_within_on_a_line(variables[0], radius, metric) for radius in radii]
    else:
        tree = _build(variables)
        ends = [_within(tree, variables, radius, metric) for radius in radii]
    return [
        Counts(closer - (radius > 0), within - closer - (radius == 0))
        for radius, (closer, within) in zip(radii, ends, strict=True)
    ]


def _within(
    tree: _Tree, variables: Sequence[Variable], radius: jax.Array, metric: Metric
) -> tuple[jax.Array, jax.Array]:
    """Numbers of points, itself among them, closer than a radius and up to it."""
    n = len(radius)
    padded = jnp.append(radius, jnp.zeros(1, radius.dtype))
    # Both counts share a word, unless there are so many leaves that they might not.
    together = len(tree.size) < 2**16
    high = np.uint32(1 << 16)

    def boxes(q: jax.Array) -> tuple[jax.Array, jax.Array]:
        own, present = padded[tree.position[q]], tree.position[q] < n
        least = jnp.min(own, where=present, initial=_distances.farthest(own))
        most = jnp.max(own, where=present, initial=0)
        lower = _box_distance(tree, variables, q, metric, farthest=False)
        whole = _box_distance(tree, variables, q, metric, farthest=True) < least
        return (lower <= most) & ~whole, whole

    def cut(q: jax.Array) -> jax.Array:
        return boxes(q)[0]

    def look(q: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = padded[tree.position[q]][:, None]
        mask, whole = boxes(q)

        def add(index: jax.Array, words: list[jax.Array]) -> list[jax.Array]:
            for codes in _codes(tree, variables, q, index, metric):
                closer, within = codes < own, codes <= own
                if together:
                    both = jnp.where(within, high, np.uint32(0))
                    words = [words[0] + jnp.where(closer, high + 1, both)]
                else:
                    words = [w + c for w, c in zip(words, (closer, within), strict=True)]
            return words

        start = [jnp.zeros((LEAF, LEAF), jnp.uint32)] * (1 if together else 2)
        words = _visit(mask, add, start)
        lanes = (words[0] & (high - 1), words[0] >> 16) if together else words
        inside = jnp.sum(tree.size, where=whole)
        closer, within = (inside + jnp.sum(w, axis=1).astype(jnp.int32) for w in lanes)
        return closer, within

    closer, within = _map_evenly(cut, look, len(tree.size) - 1)
    return _unordered(closer, tree, n), _unordered(within, tree, n)


def _map_evenly(
    mask: Callable[[jax.Array], jax.Array],
    fn: Callable[[jax.Array], Any],
    leaves: int,
) -> Any:
    """Maps fn over the leaves, those with masks of a like size together.

    A batch takes as long as the one of its leaves that visits most others.
    """

    def number(q: jax.Array) -> jax.Array:
        return jnp.sum(mask(q))

    numbers = jax.lax.map(number, jnp.arange(leaves), batch_size=_BATCH)
    order = jnp.argsort(numbers)
    found = jax.lax.map(fn, order, batch_size=_BATCH)
    return jax.tree.map(lambda f: jnp.zeros_like(f).at[order].set(f), found)


def _visit(mask: jax.Array, visit: Callable[[jax.Array, Any], Any], state: Any) -> Any:
    """Passes the indices of the leaves in a mask to `visit`, `_VISITED` at a time.

    The last ones are made up by the leaf that is empty.
    """
    empty = len(mask) - 1
    # In two steps, by groups of leaves: `jnp.nonzero` would take a third of the time.
    width = int(len(mask) ** 0.5)
    groups = jnp.pad(mask, (0, -len(mask) % width)).reshape(-1, width)
    size = jnp.sum(groups, axis=1)
    end = jnp.cumsum(size)

    def member(rank: jax.Array) -> jax.Array:
        group = jnp.sum(end <= rank)
        within = jnp.cumsum(groups[group])
        place = jnp.sum(within <= rank - (end[group] - size[group]))
        return jnp.where(rank < end[-1], group * width + place, empty)

    def step(state: Any) -> Any:
        start, inner = state
        index = jax.vmap(member)(start + jnp.arange(_VISITED))
        return start + _VISITED, visit(index, inner)

    start = jnp.zeros((), end.dtype)
    return jax.lax.while_loop(lambda s: s[0] < end[-1], step, (start, state))[1]


def _insert(best: Sequence[jax.Array], values: Sequence[jax.Array]) -> Any:
    """The smallest of each lane in order, of those so far and further ones."""
    kept = list(best)
    for value in values:
        for i, smaller in enumerate(kept):
            kept[i], value = jnp.minimum(smaller, value), jnp.maximum(smaller, value)
    return tuple(kept)


def _unordered(values: jax.Array, tree: _Tree, n: int) -> jax.Array:
    """Puts values [L - 1, LEAF] of points in leaves back into the original order."""
    position = tree.position[:-1].reshape(-1)
    return jnp.zeros(n + 1, values.dtype).at[position].set(values.reshape(-1))[:n]


def _build(variables: Sequence[Variable]) -> _Tree:
    """Splits into slices along one feature after the other, by sorting."""
    x = jnp.concatenate([v.x for v in variables], axis=1)
    n, d = x.shape
    slices = max(1, round((n / LEAF) ** (1 / d)))
    splits = [slices] * (d - 1)
    splits.append(-(-n // (LEAF * slices ** (d - 1))))
    leaves = int(np.prod(splits))
    padded = jnp.concatenate([x, jnp.full((leaves * LEAF - n, d), jnp.inf, x.dtype)])
    position = jnp.arange(leaves * LEAF)
    groups = 1
    for feature, parts in enumerate(splits):
        keys = padded[position, feature].reshape(groups, -1)
        _, position = jax.lax.sort((keys, position.reshape(groups, -1)), num_keys=1)
        position = position.reshape(-1)
        groups *= parts
    position = jnp.minimum(position, n).reshape(leaves, LEAF)
    position = jnp.concatenate([position, jnp.full((1, LEAF), n)])

    columns, low, high = [], [], []
    for v in variables:
        ended = jnp.concatenate([v.x, jnp.full((1, v.x.shape[1]), jnp.inf, v.x.dtype)])
        points = ended[position]
        columns.append(points.transpose(0, 2, 1))
        low.append(jnp.min(points, axis=1))
        high.append(jnp.max(jnp.where(points < jnp.inf, points, -jnp.inf), axis=1))
    size = jnp.sum(position < n, axis=1)
    return _Tree(position, tuple(columns), tuple(low), tuple(high), size)


def _box_distance(
    tree: _Tree,
    variables: Sequence[Variable],
    q: jax.Array,
    metric: Metric,
    *,
    farthest: bool,
) -> jax.Array:
    """Codes of the least or greatest distance of a point in each box to one of q's."""
    codes = []
    for v, low, high in zip(variables, tree.low, tree.high, strict=True):
        above, below = low - high[q][None], low[q][None] - high
        gap = jnp.maximum(jnp.maximum(above, below), 0)
        if farthest:
            gap = jnp.maximum(
                jnp.abs(high - low[q][None]), jnp.abs(high[q][None] - low)
            )
        origin = jnp.zeros((1, gap.shape[1]), gap.dtype)
        margin = 1 + _MARGIN if farthest else 1 - _MARGIN
        own = _distances.codes_from(origin, gap.T, metric, v.unit * margin)
        codes.append(own[0])
    return reduce(jnp.maximum, codes)


def _codes(
    tree: _Tree,
    variables: Sequence[Variable],
    q: jax.Array,
    index: jax.Array,
    metric: Metric,
) -> list[jax.Array]:
    """Codes [LEAF, LEAF] of the distances from the points of leaf q, for each leaf."""
    points = [columns[q].T for columns in tree.columns]
    found = []
    for visited in range(len(index)):
        codes = [
            _distances.codes_from(own, columns[index[visited]], metric, v.unit)
            for own, columns, v in zip(points, tree.columns, variables, strict=True)
        ]
        found.append(reduce(jnp.maximum, codes))
    return found


def _within_on_a_line(
    variable: Variable, radius: jax.Array, metric: Metric
) -> tuple[jax.Array, jax.Array]:
    """Counts by searching sorted values for the ends, by the distance as computed."""
    values = variable.x[:, 0]
    n = len(values)
    ordered = _sorted(values)

    def first(holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """The first of the sorted values from which on a condition holds, or n."""

        def halve(_, ends: tuple[jax.Array, jax.Array]) -> Any:
            low, high = ends
            middle = (low + high) // 2
            before = (low < high) & ~holds(ordered[middle])
            return jnp.where(before, middle + 1, low), jnp.where(before, high, middle)

        ends = (jnp.zeros(n, jnp.int32), jnp.full(n, n, jnp.int32))
        return jax.lax.fori_loop(0, n.bit_length(), halve, ends)[0]

    def number(inside: Callable[[jax.Array], jax.Array]) -> jax.Array:
        begin = first(lambda other: (other > values) | inside(other))
        end = first(lambda other: (other > values) & ~inside(other))
        return end - begin

    def code(other: jax.Array) -> jax.Array:
        difference = other - values
        squared = metric == "euclidean"
        distance = difference * difference if squared else jnp.abs(difference)
        return _distances.code(distance * variable.unit)

    closer = number(lambda other: code(other) < radius)
    return closer, number(lambda other: code(other) <= radius)


def _sorted(values: jax.Array) -> jax.Array:
    """Sorted floats: as the integers that have the same order, four times faster."""
    signed = jnp.int64 if values.dtype == jnp.float64 else jnp.int32
    largest = np.iinfo(signed).max

    def swap(bits: jax.Array) -> jax.Array:
        return jnp.where(bits < 0, bits ^ largest, bits)

    bits = jax.lax.bitcast_convert_type(values, signed)
    return jax.lax.bitcast_convert_type(swap(jnp.sort(swap(bits))), values.dtype)
