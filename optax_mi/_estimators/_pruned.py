"""Joint counts in few dimensions without looking at all pairs of points.

Points are ordered so that every `LEAF` consecutive ones, a leaf, lie in a compact box.
For a leaf of queries only those leaves are visited whose box comes within the radius;
those that lie inside it as a whole are counted without a look at their points. In one
dimension the points are sorted and the ends of the radius are searched for.

The results are those of all pairs, to the last count. Rounding is monotone: the
distance of two points is computed by the same operations as the distance of their
boxes, from differences that are no smaller, so that no bound needs a tolerance. That
holds for norms without products, which compilers may or may not fuse with sums: not
for the Euclidean one.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_mi._estimators import _neighbours
from optax_mi._types import Metric

LEAF = 32

# From how many points on this beats looking at all pairs by what its longer compilation
# is worth, by the number of features of all variables (docs/performance.md).
MIN_POINTS = {2: 4000, 3: 8000, 4: 16_000}

# Leaves that are visited at a time.
_VISITED = 8

# Leaves of queries that are worked on at once.
_BATCH = 8


class Variable(NamedTuple):
    """Points [n, d] of a variable, and the factor of its distances."""

    x: jax.Array
    unit: jax.Array


class _Tree(NamedTuple):
    """Points in leaves: L of them, the last one empty."""

    position: jax.Array  # [L, LEAF], into the original order; n for padding
    columns: tuple[jax.Array, ...]  # [L, d, LEAF] of each variable, padding infinite
    low: tuple[jax.Array, ...]  # [L, d], the boxes
    high: tuple[jax.Array, ...]
    size: jax.Array  # [L]


def applies(
    shapes: Sequence[tuple[int, ...]], ks: Sequence[int], metric: Metric
) -> bool:
    """Whether variables of these shapes [n, d] are searched here."""
    n, features = shapes[0][0], sum(shape[1] for shape in shapes)
    enough = features in MIN_POINTS and n >= MIN_POINTS[features]
    return enough and max(ks) <= LEAF and metric != "euclidean"


def radii(
    variables: Sequence[Variable], ks: Sequence[int], metric: Metric
) -> list[jax.Array]:
    """For each k, codes [n] of the distance to the k-th neighbour in the whole."""
    tree, n = _build(variables), len(variables[0].x)
    leaves, largest = len(tree.size) - 1, max(ks)
    columns = -(-largest // _neighbours.FOLDS) * _neighbours.FOLDS
    far = _neighbours.farthest(_neighbours.code(variables[0].x))

    def nearest(q: jax.Array, index: jax.Array, best: jax.Array) -> jax.Array:
        codes = _distances(tree, variables, q, index, metric)
        absent = tree.position[q][:, None] == tree.position[index].reshape(1, -1)
        codes = jnp.where(absent, far, codes)
        return _k_smallest(jnp.concatenate([best, codes], axis=1), largest)

    def bound(q: jax.Array) -> jax.Array:
        # The neighbours in the order bound the radius, and so what is to be visited.
        around = q + jnp.arange(-1, 2)
        around = jnp.where((around < 0) | (around > leaves), leaves, around)
        radius = nearest(q, around, nobody)[:, largest - 1]
        return jnp.max(radius, where=tree.position[q] < n, initial=0)

    nobody = jnp.full((LEAF, columns), far)
    bounds = jax.lax.map(bound, jnp.arange(leaves), batch_size=_BATCH)

    def near(q: jax.Array) -> jax.Array:
        return _box_distance(tree, variables, q, metric, farthest=False) <= bounds[q]

    def search(q: jax.Array) -> jax.Array:
        return _visit(near(q), lambda index, best: nearest(q, index, best), nobody)

    found = _map_evenly(near, search, leaves)
    return [_unordered(found[:, :, k - 1], tree, n) for k in ks]


def closer(
    variables: Sequence[Variable], limits: Sequence[jax.Array], metric: Metric
) -> list[jax.Array]:
    """For each limit [n], counts [n] of the other points at codes below it."""
    n = len(variables[0].x)
    if len(variables) == 1 and variables[0].x.shape[1] == 1:
        return [_closer_on_a_line(variables[0], limit) for limit in limits]
    tree = _build(variables)
    leaves = len(tree.size) - 1

    def count(limit: jax.Array) -> jax.Array:
        padded = jnp.append(limit, jnp.zeros(1, limit.dtype))

        def boxes(q: jax.Array) -> tuple[jax.Array, jax.Array]:
            own, present = padded[tree.position[q]], tree.position[q] < n
            least = jnp.min(own, where=present, initial=_neighbours.farthest(own))
            most = jnp.max(own, where=present, initial=0)
            lower = _box_distance(tree, variables, q, metric, farthest=False)
            whole = _box_distance(tree, variables, q, metric, farthest=True) < least
            return (lower < most) & ~whole, whole

        def cut(q: jax.Array) -> jax.Array:
            return boxes(q)[0]

        def look(q: jax.Array) -> jax.Array:
            own = padded[tree.position[q]]
            mask, whole = boxes(q)

            def add(index: jax.Array, total: jax.Array) -> jax.Array:
                codes = _distances(tree, variables, q, index, metric)
                return total + _neighbours.count(lambda c: c < own[:, None], codes)

            start = jnp.sum(tree.size, where=whole) - 1
            return _visit(mask, add, jnp.broadcast_to(start, (LEAF,)))

        return _unordered(_map_evenly(cut, look, leaves), tree, n)

    return [count(limit) for limit in limits]


def _map_evenly(
    mask: Callable[[jax.Array], jax.Array],
    fn: Callable[[jax.Array], jax.Array],
    leaves: int,
) -> jax.Array:
    """Maps fn over the leaves, those with masks of a like size together.

    A batch takes as long as the one of its leaves that visits most others.
    """

    def number(q: jax.Array) -> jax.Array:
        return jnp.sum(mask(q))

    numbers = jax.lax.map(number, jnp.arange(leaves), batch_size=_BATCH)
    order = jnp.argsort(numbers)
    found = jax.lax.map(fn, order, batch_size=_BATCH)
    return jnp.zeros_like(found).at[order].set(found)


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


def _k_smallest(codes: jax.Array, k: int) -> jax.Array:
    """The k smallest codes of each row in order, and the farthest up to `FOLDS`."""
    far = _neighbours.farthest(codes)

    def step(r: jax.Array, state: Any) -> Any:
        values, reached = state
        last = values[r - 1][:, None]
        following = _neighbours.smallest(lambda c: _neighbours.beyond(c, last), codes)
        within = _neighbours.count(lambda c: c <= following[:, None], codes)
        return values.at[r].set(following), reached.at[r].set(within)

    first = _neighbours.smallest(lambda c: c, codes)
    within = _neighbours.count(lambda c: c <= first[:, None], codes)
    rows = len(codes)
    values = jnp.full((k, rows), far).at[0].set(first)
    reached = jnp.zeros((k, rows), within.dtype).at[0].set(within)
    values, reached = jax.lax.fori_loop(1, k, step, (values, reached))
    wanted = jnp.arange(1, k + 1)[None, :, None]
    enough = reached[:, None] >= wanted
    smallest = jnp.min(jnp.where(enough, values[:, None], far), axis=0).T
    rest = jnp.full((rows, -k % _neighbours.FOLDS), far)
    return jnp.concatenate([smallest, rest], axis=1)


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
    padded = jnp.concatenate([x, jnp.full((leaves * LEAF - n, d), jnp.inf)])
    position = jnp.arange(leaves * LEAF)
    group = jnp.zeros(leaves * LEAF, jnp.int32)
    width = leaves * LEAF
    for feature, parts in enumerate(splits):
        position = position[jnp.lexsort((padded[position, feature], group))]
        width //= parts
        group = jnp.arange(leaves * LEAF) // width
    position = jnp.minimum(position, n).reshape(leaves, LEAF)
    position = jnp.concatenate([position, jnp.full((1, LEAF), n)])

    columns, low, high = [], [], []
    for v in variables:
        ended = jnp.concatenate([v.x, jnp.full((1, v.x.shape[1]), jnp.inf)])
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
        distance = _neighbours.distances(origin, gap.T, metric)[0]
        codes.append(_neighbours.code(distance * v.unit))
    return reduce(jnp.maximum, codes)


def _distances(
    tree: _Tree,
    variables: Sequence[Variable],
    q: jax.Array,
    index: jax.Array,
    metric: Metric,
) -> jax.Array:
    """Codes [LEAF, points of the leaves of an index] of the distances from leaf q."""
    codes = []
    for v, columns in zip(variables, tree.columns, strict=True):
        visited = columns[index].transpose(1, 0, 2).reshape(columns.shape[1], -1)
        distance = _neighbours.distances(columns[q].T, visited, metric)
        codes.append(_neighbours.code(distance * v.unit))
    return reduce(jnp.maximum, codes)


def _closer_on_a_line(variable: Variable, limit: jax.Array) -> jax.Array:
    """Counts by two searches in sorted values, by the distance as it is computed."""
    values = variable.x[:, 0]
    n = len(values)
    ordered = jnp.sort(values)

    def outside(index: jax.Array) -> jax.Array:
        neighbour = ordered[jnp.clip(index, 0, n - 1)]
        distance = jnp.abs(neighbour - values)
        beyond = _neighbours.code(distance * variable.unit) >= limit
        return (index < 0) | (index >= n) | beyond

    def last_inside(end: int) -> jax.Array:
        def halve(_, ends):
            inside, out = ends
            middle = (inside + out) // 2
            is_out = outside(middle)
            return jnp.where(is_out, inside, middle), jnp.where(is_out, middle, out)

        ends = (start, jnp.full_like(start, end))
        return jax.lax.fori_loop(0, n.bit_length() + 1, halve, ends)[0]

    start = jnp.searchsorted(ordered, values)
    return last_inside(n) - last_inside(-1)
