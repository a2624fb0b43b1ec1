"""Euclidean distances as one matrix product, and the rows where that is not enough.

|a - b|^2 = |a|^2 + |b|^2 - 2 ab is a matrix product: many times faster than differences
where features are many, and what accelerators are made for. Its rounding error is in
proportion to |a|^2 + |b|^2 however close a and b are, so that ties come out unequal.
The estimators therefore treat it as approximate: a row in which more points than the
k-th neighbour itself lie within the error of the k-th distance is doubtful, and
`recheck` does it again with direct distances.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_mi._estimators import _neighbours

# From this many features on the product is faster (docs/performance.md).
MIN_FEATURES = 17

# Rows that `recheck` does at once: few are doubtful where no distances are tied.
_RECHECK_ROWS = 32


class Points(NamedTuple):
    """Points of a matrix product, [n, ...]."""

    x: jax.Array  # [n, d], centred
    squared: jax.Array  # [n], |x|^2


def prepare(x: jax.Array) -> tuple[Points, Points]:
    """Points [n, d] as rows, and padded as columns, far from everything."""
    # The error is in proportion to the norms, so they are kept as small as they can be.
    x = x - jnp.mean(x, axis=0, keepdims=True)
    squared = jnp.sum(x * x, axis=1)
    # Not infinite: differences of it would be NaN.
    far = float(jnp.finfo(x.dtype).max) / 4
    columns = Points(_neighbours.pad_points(x, 0), _neighbours.pad_points(squared, far))
    return Points(x, squared), columns


def squared_distances(rows: Points, columns: Points) -> jax.Array:
    """Approximate squared distances [rows, m], never negative."""
    product = jax.lax.dot_general(
        rows.x,
        columns.x,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
    )
    norms = rows.squared[:, None] + columns.squared[None]
    return jnp.maximum(norms - 2 * product, 0)


def error(rows: Points, squared: jax.Array) -> jax.Array:
    """Bounds the error of the squared distances near a given one, per row.

    A point at distance r from a has a norm of at most |a| + r. Rounding errors add up
    like a random walk over the features; `tests/test_gram.py` holds what is measured to
    three quarters of this.
    """
    scale = rows.squared + (jnp.sqrt(rows.squared) + jnp.sqrt(squared)) ** 2
    return jnp.finfo(scale.dtype).eps * (8 + rows.x.shape[1] ** 0.5 / 8) * scale


def recheck(
    exact: Callable[[Any], Any],
    results: Any,
    doubtful: jax.Array,
    rows: Any,
    block_size: int,
) -> Any:
    """Replaces the results of doubtful rows by exact ones, a block of them at a time.

    `exact` maps a block of rows to results and is right for any row, so that a block
    may be filled up with rows that were in no doubt.
    """
    n = len(doubtful)
    block_size = min(n, block_size, _RECHECK_ROWS)
    order = jnp.argsort(~doubtful)
    number = jnp.sum(doubtful)

    def unfinished(state: Any) -> jax.Array:
        return state[0] < number

    def step(state: Any) -> Any:
        start, results = state
        index = jax.lax.dynamic_slice(order, (start,), (block_size,))
        corrected = exact(jax.tree.map(lambda array: array[index], rows))
        put = jax.tree.map(lambda r, c: r.at[index].set(c), results, corrected)
        return start + block_size, put

    start = jnp.zeros((), number.dtype)
    return jax.lax.while_loop(unfinished, step, (start, results))[1]
