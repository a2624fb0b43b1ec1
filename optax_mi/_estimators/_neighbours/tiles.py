"""The k-th nearest of all points, and how many are nearer, for one block of points.

A pass over the columns cuts them into tiles, and folds each tile's slices of `lanes`
columns onto an array [rows, lanes] by elementwise operations: XLA makes one vectorised
kernel of them, with distances that never leave the registers. Reducing along the axis
instead would go one number at a time on a CPU (docs/performance.md).

The arguments `value` and `arrays` of the passes below are a function to codes
[rows, m] and the tree of arrays [..., m] that it is a function of, column by column;
or the `Shards` of it, and then a pass is over the columns of all devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped, UInt

from optax_mi._estimators._neighbours import caches, collectives
from optax_mi._estimators._neighbours.distances import ALIGNMENT, FEW_FEATURES, farthest
from optax_mi._estimators._neighbours.once import once
from optax_mi._estimators._neighbours.packed import Packed
from optax_mi._types import Index

# From columns to codes of their distances from the rows, and to what holds for each.
Codes: TypeAlias = Callable[..., Int[Array, "rows m"]]
Predicates: TypeAlias = Callable[..., Sequence[Bool[Array, "rows m"]]]
# From columns to the first of those that a pass is over, and the first after them.
Span: TypeAlias = Callable[[Any], tuple[Index, Index]] | None

# Slices of a tile, where nothing else is called for.
_FOLDS = 8

# The least number of columns in a slice.
_LANES = 32

# The least number of groups of columns of which minima are taken.
_GROUPS = 256

# Most counts that are held in the bits of one word.
_COUNTS = 8


def view(
    value: Callable[..., Any], arrays: Any, features: Sequence[int]
) -> tuple[Callable[..., Any], Any]:
    """What the passes are given: distances of many features are taken once and stored.

    Those of few features are taken afresh in every pass.
    """
    if max(features) > FEW_FEATURES:
        return stored, store(value, arrays)
    return value, arrays


def store(value: Callable[..., Any], arrays: Any) -> Any:
    """What a function of columns gives for all of them, a tree of arrays [rows, m]."""
    if isinstance(arrays, collectives.Shards):  # the loop round the devices stores it
        return collectives.everywhere(value, arrays)
    return once(value, arrays)


def stored(arrays: Any) -> Any:
    """The function to codes where the arrays hold them."""
    return arrays


def groups(k: int, m: int) -> int:
    """How many groups of m columns `group_minima` tells apart.

    Enough to have the k nearest in different groups in all but 3 % of the rows, though
    no more than `ALIGNMENT` if not one for each column.
    """
    enough = max(_GROUPS, 1 << (20 * k * (k - 1)).bit_length())
    return m if m <= enough else min(enough, ALIGNMENT)


def group_minima(
    value: Codes, arrays: Any, k: int, span: Span = None
) -> Int[Array, "rows groups"]:
    """The smallest code of each of `groups` groups of columns, at least of a span.

    Their k-th smallest is the k-th smallest of all, unless two of the k nearest are in
    one group: then it is too large. Counting tells: it is right where fewer than k
    codes are smaller.
    """
    return collectives.around(
        lambda own: _group_minima(value, own, k, span), arrays, jnp.minimum, farthest
    )


def _group_minima(
    value: Codes, arrays: Any, k: int, span: Span
) -> Int[Array, "rows groups"]:
    tile, m = _tile(value, arrays), _columns(arrays)
    lanes = groups(k, m)
    if lanes > tile.lanes:
        near = caches.first() // (lanes * _numbers(arrays))
        folds = 1 << max(1, min(near, ALIGNMENT // lanes)).bit_length() - 1
        tile = tile._replace(lanes=lanes, folds=folds)
    if tile.size == m:
        return once(lambda own: _fold_minima(value, own, tile), arrays)
    return _fold_minima(value, arrays, tile, span)


def kth_of_minima(
    minima: Int[Array, "rows groups"], *, k: Int[Array, "rows"] | int, max_k: int
) -> Int[Array, "rows"]:
    """The k-th smallest code of each row, counting multiplicity.

    `k` may differ from row to row and is at most the static `max_k`; below 1 it counts
    as 1. Each round steps to the next larger distinct code while fewer than k lie at or
    below the present one, in less time than `top_k` (docs/performance.md).
    """

    def step(_: Any, kth: Int[Array, "rows"]) -> Int[Array, "rows"]:
        limit = kth[:, None]
        (reached,) = count(lambda codes: [codes <= limit], minima)
        following = minimum(
            lambda codes: jnp.where(codes > limit, codes, farthest(codes)), minima
        )
        return jnp.where(reached < k, following, kth)

    return jax.lax.fori_loop(1, max_k, step, minimum(stored, minima))


def kth_smallest(
    codes: Int[Array, "rows m"],
    *,
    k: Int[Array, "rows"] | int,
    above: Int[Array, "rows"],
) -> Int[Array, "rows"]:
    """The k-th smallest code of each row, counting multiplicity.

    Found by steps down from `above`, which it is not larger than, to the next smaller
    code while k or more are smaller.
    """

    def step_down(state: Any) -> Any:
        kth, _ = state
        limit = kth[:, None]
        (smaller,) = count(lambda codes: [codes < limit], codes)
        following = maximum(lambda codes: jnp.where(codes < limit, codes, 0), codes)
        is_too_large = smaller >= jnp.maximum(k, 1)
        return jnp.where(is_too_large, following, kth), jnp.any(is_too_large)

    state = (above, collectives.varying(jnp.array(True), codes))
    return jax.lax.while_loop(lambda state: state[1], step_down, state)[0]


def minimum(value: Codes, arrays: Any) -> Int[Array, "rows"]:
    """The smallest code of each row."""

    def of(own: Any) -> Int[Array, "rows"]:
        return jnp.min(_fold_minima(value, own, _tile(value, own)), axis=1)

    return collectives.around(of, arrays, jnp.minimum, farthest)


def maximum(value: Codes, arrays: Any) -> Int[Array, "rows"]:
    """The largest code of each row."""
    # The complement of an integer has the opposite order.
    return ~minimum(lambda tile: ~value(tile), arrays)


def count(
    predicates: Predicates, arrays: Any, span: Span = None
) -> list[Int[Array, "rows"]]:
    """How many columns satisfy each of several predicates, per row.

    Beyond the span none does. The counts of one pass share the bits of a word, and are
    moved into words of their own before they overflow.
    """
    return collectives.around(
        lambda own: _count(predicates, own, span), arrays, jnp.add, lambda _: 0
    )


def _count(predicates: Predicates, arrays: Any, span: Span) -> list[Int[Array, "rows"]]:
    number = len(jax.eval_shape(predicates, _cut(arrays, 0, _LANES)))
    tile = _tile(lambda slices: predicates(slices)[0], arrays)
    if number > _COUNTS:
        starts = range(0, number, _COUNTS)
        parts = [
            _count(
                lambda slices, i=i: predicates(slices)[i : i + _COUNTS], arrays, span
            )
            for i in starts
        ]
        return [total for part in parts for total in part]
    tiles = _columns(arrays) // tile.size
    packed = Packed(number)
    period = min(tiles, packed.largest // tile.folds)  # tiles until a count may be full
    begin, end = _tiles_of(span, arrays, tile)
    whole = span is None and tiles % period == 0

    def add(word: UInt[Array, "rows lanes"], tile: Any) -> UInt[Array, "rows lanes"]:
        return packed.add(word, predicates(tile))

    def counted(own: Any, first: Any, last: Any) -> UInt[Array, "rows lanes"]:
        return _fold(add, _zeros(tile, jnp.uint32, own), own, tile, first, last)

    def collect(
        i: Index, totals: list[Int[Array, "rows lanes"]]
    ) -> list[Int[Array, "rows lanes"]]:
        first = begin + i * period
        last = first + period if whole else jnp.minimum(first + period, end)
        return packed.unpack(totals, counted(arrays, first, last))

    totals = [_zeros(tile, jnp.int32, arrays)] * number
    if tiles == 1 and number > 1:
        word = once(lambda own: counted(own, 0, 1), arrays)
        totals = packed.unpack(totals, word)
    else:  # a loop stores what it counts, and a single count has one reader
        totals = jax.lax.fori_loop(0, -(-(end - begin) // period), collect, totals)
    return [jnp.sum(total, axis=1) for total in totals]


class _Tile(NamedTuple):
    """Columns that are folded at a time: `folds` slices of `lanes` of them."""

    rows: int
    lanes: int
    folds: int
    dtype: Any

    @property
    def size(self) -> int:
        return self.lanes * self.folds


def _tile(value: Callable[..., Shaped[Array, "rows m"]], arrays: Any) -> _Tile:
    """All columns where codes are stored, else what stays within a core's cache."""
    shape = jax.eval_shape(value, _cut(arrays, 0, _LANES))
    rows, m = shape.shape[0], _columns(arrays)
    parts = max(1, m // (_LANES * _FOLDS))
    is_stored = any(a.shape == (rows, m) for a in jax.tree.leaves(arrays))
    tiles = next(
        t
        for t in range(1, parts + 1)
        if parts % t == 0
        and (
            is_stored
            or t == parts
            or (
                rows * m // (_FOLDS * t) <= caches.second() // 4
                and m // t * _numbers(arrays) <= caches.first()
            )
        )
    )
    return _Tile(rows, m // (_FOLDS * tiles), _FOLDS, shape.dtype)


def _tiles_of(span: Span, arrays: Any, tile: _Tile) -> tuple[Any, Any]:
    """The first tile of a span, and the first after it."""
    begin, end = (0, _columns(arrays)) if span is None else span(arrays)
    return begin // tile.size, -(-end // tile.size)


def _zeros(tile: _Tile, dtype: Any, arrays: Any) -> Shaped[Array, "rows lanes"]:
    return collectives.varying(jnp.zeros((tile.rows, tile.lanes), dtype), arrays)


def _numbers(arrays: Any) -> int:
    """How many a column has."""
    return sum(a.size // a.shape[-1] for a in jax.tree.leaves(arrays))


def _columns(arrays: Any) -> int:
    return jax.tree.leaves(arrays)[0].shape[-1]


def _cut(arrays: Any, start: Any, size: int) -> Any:
    return jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, start, size, axis=a.ndim - 1), arrays
    )


def _fold_minima(
    value: Codes, arrays: Any, tile: _Tile, span: Span = None
) -> Int[Array, "rows lanes"]:
    start = _zeros(tile, tile.dtype, arrays) + farthest(tile)

    def smaller(
        least: Int[Array, "rows lanes"], slices: Any
    ) -> Int[Array, "rows lanes"]:
        return jnp.minimum(least, value(slices))

    return _fold(smaller, start, arrays, tile, *_tiles_of(span, arrays, tile))


def _fold(
    step: Callable[[Shaped[Array, "rows lanes"], Any], Shaped[Array, "rows lanes"]],
    state: Shaped[Array, "rows lanes"],
    arrays: Any,
    tile: _Tile,
    first: Any,
    last: Any,
) -> Shaped[Array, "rows lanes"]:
    """Folds tiles first to last - 1 of the columns onto a state."""
    starts = range(0, tile.size, tile.lanes)

    def fold_tile(t: Index, carry: Any) -> Any:
        columns, state = carry
        # Cut out one step ahead: a kernel that looks up where its tile begins is not
        # vectorised.
        following = _cut(arrays, (t + 1) * tile.size, tile.size)
        slices = [_cut_statically(columns, start, tile.lanes) for start in starts]
        return following, reduce(step, slices, state)

    carry = (_cut(arrays, first * tile.size, tile.size), state)
    return jax.lax.fori_loop(first, last, fold_tile, carry)[1]


def _cut_statically(arrays: Any, start: int, size: int) -> Any:
    return jax.tree.map(lambda a: a[..., start : start + size], arrays)
