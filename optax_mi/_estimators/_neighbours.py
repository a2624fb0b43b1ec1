"""Distances from a block of points to all points, counted and selected by code.

Estimators are written for a block of rows against all n points, as arrays [rows, n];
`map_blocks` runs them over the blocks, so that no n x n matrix is ever held.

A distance is held as its `code`, the unsigned integer with the same bits: for numbers
>= 0 it has the same order. Distances only ever meet distances taken by the same metric
within the same variable, so any increasing function of the metric will do, and the
Euclidean one stays squared. A direct distance is accumulated over the features in one
fixed order: rows that coincide are at exactly equal distances, and counts of `<` and
`<=` against a neighbour's distance need no tolerance.

Reductions over the n points fold `FOLDS` slices of them onto each other by elementwise
operations, which XLA vectorises and spreads over cores, and only then reduce what is
left along the axis, which on a CPU it does one number at a time (docs/performance.md).
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_mi import _checks
from optax_mi._types import Metric

METRICS: tuple[Metric, ...] = ("euclidean", "chebyshev", "manhattan")

FOLDS = 16

# Up to this many features the loop over them is written out; a longer one is unrolled
# by as many.
_UNROLL = 16

# Largest magnitude after `rescale`, as a power of two. Squares of differences, summed
# over 2^20 features and 2^20 samples, stay below the largest float32; differences down
# to 1e-31 of the largest value keep a square that does not underflow.
_LARGEST_EXPONENT = 40


def rescale(x: jax.Array) -> jax.Array:
    """Multiplies x by the power of two that keeps squared distances representable.

    A power of two changes no mantissa: ties stay ties and every comparison of two
    distances comes out as before.
    """
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return jnp.ldexp(x, _LARGEST_EXPONENT - exponent)


def pad_points(values: jax.Array, fill: float) -> jax.Array:
    """Pads the first axis, the points, to a multiple of `FOLDS`."""
    padding = [(0, -len(values) % FOLDS)] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, padding, constant_values=fill)


def as_columns(x: jax.Array) -> jax.Array:
    """Points [n, d] as features [d, m]; the m - n points of padding lie at infinity."""
    return pad_points(x, jnp.inf).T


def distances(points: jax.Array, columns: jax.Array, metric: Metric) -> jax.Array:
    """Direct distances [rows, m] of points [rows, d] from `as_columns` [d, m].

    Euclidean distances come squared.
    """

    def add_feature(f, total):
        difference = columns[None, f] - points[:, f, None]
        if metric == "euclidean":
            return total + difference * difference
        if metric == "manhattan":
            return total + jnp.abs(difference)
        # The larger of two codes is twice as fast as the larger of two floats, which
        # must look out for NaN.
        return jnp.maximum(total, code(jnp.abs(difference)))

    d, m = columns.shape
    total = jnp.zeros((len(points), m), columns.dtype)
    total = code(total) if metric == "chebyshev" else total
    if d <= _UNROLL:
        for f in range(d):
            total = add_feature(f, total)
    else:
        total = jax.lax.fori_loop(0, d, add_feature, total, unroll=_UNROLL)
    return decode(total) if metric == "chebyshev" else total


def code(distance: jax.Array) -> jax.Array:
    """The unsigned integer with the bits of a distance, which has the same order."""
    unsigned = jnp.uint64 if distance.dtype == jnp.float64 else jnp.uint32
    return jax.lax.bitcast_convert_type(distance, unsigned)


def decode(codes: jax.Array) -> jax.Array:
    """The distance of a code."""
    floating = jnp.float64 if codes.dtype == jnp.uint64 else jnp.float32
    return jax.lax.bitcast_convert_type(codes, floating)


def farthest(codes: jax.Array) -> np.unsignedinteger:
    """A code beyond that of any distance, infinity included."""
    return codes.dtype.type(np.iinfo(codes.dtype).max)


def highest_bit(codes: jax.Array) -> np.unsignedinteger:
    """The bit that no distance has set: it is that of the sign."""
    return codes.dtype.type(1 << (8 * codes.dtype.itemsize - 1))


def without_itself(codes: jax.Array, position: jax.Array, n: int) -> jax.Array:
    """Puts each row's own point, and the padding after n, farthest of all."""
    column = jnp.arange(codes.shape[1])[None]
    absent = (position[:, None] == column) | (column >= n)
    return jnp.where(absent, farthest(codes), codes)


def count(predicate: Callable[..., jax.Array], *values: jax.Array) -> jax.Array:
    """How many of the points satisfy a predicate of arrays [rows, m], per row."""
    parts = _fold(lambda *v: predicate(*v).astype(jnp.int32), jnp.add, values)
    return jnp.sum(parts, axis=1)


def smallest(value: Callable[..., jax.Array], *values: jax.Array) -> jax.Array:
    """The smallest of a function of arrays [rows, m], per row."""
    return jnp.min(_fold(value, jnp.minimum, values), axis=1)


def largest(value: Callable[..., jax.Array], *values: jax.Array) -> jax.Array:
    """The largest of a function of arrays [rows, m], per row."""
    return jnp.max(_fold(value, jnp.maximum, values), axis=1)


def kth_smallest(
    value: Callable[..., jax.Array],
    *values: jax.Array,
    k: jax.Array | int,
    max_k: int,
) -> jax.Array:
    """The k-th smallest of a function of arrays [rows, m], counting multiplicity.

    `k` may differ from row to row and is at most the static `max_k`; below 1 it counts
    as 1. Each round steps to the next larger distinct value while fewer than k points
    lie at or below the present one, in less time than `top_k` (docs/performance.md).
    """

    def step(_, kth):
        limit = kth[:, None]
        reached = count(lambda *v: value(*v) <= limit, *values)
        following = smallest(lambda *v: beyond(value(*v), limit), *values)
        return jnp.where(reached < k, following, kth)

    return jax.lax.fori_loop(1, max_k, step, smallest(value, *values))


def beyond(codes: jax.Array, limit: jax.Array) -> jax.Array:
    """Codes larger than a limit, and the farthest for the others."""
    return jnp.where(codes > limit, codes, farthest(codes))


def _fold(
    fn: Callable[..., jax.Array],
    combine: Callable[[jax.Array, jax.Array], jax.Array],
    values: tuple[jax.Array, ...],
) -> jax.Array:
    """Combines fn of the `FOLDS` slices of arrays [rows, m] into [rows, m / FOLDS]."""
    width = values[0].shape[1] // FOLDS
    starts = range(0, FOLDS * width, width)
    return reduce(
        combine,
        [fn(*(v[:, start : start + width] for v in values)) for start in starts],
    )


def map_blocks(fn: Callable[..., Any], rows: Any, block_size: int) -> Any:
    """Applies `fn` to blocks of the rows of a pytree of arrays [n, ...].

    The last block is filled up with copies of the first row, whose results are dropped.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    block_size = min(n, block_size)
    blocks = -(-n // block_size)

    def split(array: jax.Array) -> jax.Array:
        fill = jnp.repeat(array[:1], blocks * block_size - n, axis=0)
        array = jnp.concatenate([array, fill])
        return array.reshape(blocks, block_size, *array.shape[1:])

    def join(array: jax.Array) -> jax.Array:
        return array.reshape(blocks * block_size, *array.shape[2:])[:n]

    return jax.tree.map(join, jax.lax.map(fn, jax.tree.map(split, rows)))


def check_options(metric: Metric, block_size: int | None) -> None:
    """Checks the options that every neighbour estimator takes."""
    _checks.one_of("metric", metric, METRICS)
    if block_size is not None:
        _checks.positive_integer("block_size", block_size)


def choose_block_size(n: int, block_size: int | None) -> int:
    """Rows of a block: its distances should fit into a core's cache, or fill a GPU."""
    if block_size is not None:
        return block_size
    elements = 2**18 if jax.default_backend() == "cpu" else 2**25
    blocks = -(-n * n // elements)
    return -(-n // blocks)
