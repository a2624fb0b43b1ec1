"""Blocks of rows, and rows of which the results are in doubt.

What is counted is written for a block of rows against all columns (`tiles`), so that no
n x n matrix is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from optax_mi._estimators._neighbours import caches, collectives
from optax_mi._estimators._neighbours.distances import ALIGNMENT, FEW_FEATURES
from optax_mi._estimators._neighbours.tiles import groups
from optax_mi._types import AxisName

# The least number of rows for which the columns of other devices are sent.
_ROWS_SENT_TO = 1024


def choose_block_size(
    n: int, features: Sequence[int], k: int, block_size: int | None, devices: int = 1
) -> int:
    """Rows of a block, of n points of so many features and to find the k nearest."""
    if block_size is not None:
        return min(n, block_size)
    m = devices * (n + -n % ALIGNMENT)
    # A row's distances are stored, or the minima of its groups are kept at hand.
    stored = max(features) > FEW_FEATURES
    held, room = (
        (m, 8 * caches.CPU_SECOND) if stored else (groups(k, m), caches.CPU_SECOND)
    )
    blocks = -(-n * held // max(room, caches.second()))
    if devices > 1:
        # For each block all columns are sent round, which has to be worth it.
        blocks = min(blocks, -(-n // _ROWS_SENT_TO))
    return -(-n // blocks)


def map_blocks(fn: Callable[..., Any], rows: Any, block_size: int) -> Any:
    """Applies `fn` to blocks of the rows of a pytree of arrays [n, ...].

    The last block is filled up with copies of the first row, whose results are dropped.
    """
    n = jax.tree.leaves(rows)[0].shape[0]
    blocks = -(-n // block_size)

    def split(array: Shaped[Array, "n *d"]) -> Shaped[Array, "blocks rows *d"]:
        if missing := blocks * block_size - n:
            array = jnp.concatenate([array, jnp.repeat(array[:1], missing, axis=0)])
        return array.reshape(blocks, block_size, *array.shape[1:])

    def join(array: Shaped[Array, "blocks rows *d"]) -> Shaped[Array, "n *d"]:
        return array.reshape(blocks * block_size, *array.shape[2:])[:n]

    return jax.tree.map(join, jax.lax.map(fn, jax.tree.map(split, rows)))


def map_rechecked(
    fast: Callable[[Any], tuple[Any, Bool[Array, "rows"]]],
    exact: Callable[[Any, Any], Any],
    rows: Any,
    block_size: int,
    axis: AxisName = None,
) -> Any:
    """Applies `fast` to blocks of the rows, and `exact` where that was in doubt.

    `fast` maps a block to results, which are whole numbers, and to whether each row's
    are doubtful; `exact` maps a block and its doubtful results to right ones.
    """
    results, doubtful = map_blocks(fast, rows, block_size)
    return redo(results, doubtful, exact, rows, block_size, axis)


def redo(
    results: Any,
    doubtful: Bool[Array, "n"],
    exact: Callable[[Any, Any], Any],
    rows: Any,
    block_size: int,
    axis: AxisName = None,
) -> Any:
    """Replaces the results of doubtful rows by exact ones, some rows at a time."""
    table, split = side_by_side(results)
    n, devices = len(doubtful), collectives.size(axis)
    m = n * devices
    # Of a million points no more than 16 rows, which take 64 MiB for each variable.
    least = max(8, min(32, 64 * caches.CPU_SECOND // m))
    if devices > 1:
        # For each block all columns are sent round, as for `choose_block_size`.
        least = max(64, min(_ROWS_SENT_TO // 4, 4 * caches.second() // m))
    # Few are doubtful where no distances are tied, and `exact` holds their distances.
    block_size = min(
        block_size, max(min(n, least), min(n // 64, 4 * caches.CPU_SECOND // m))
    )
    # Sorting positions takes a quarter of the time of sorting a mask with them.
    positions = jnp.arange(n)
    order = jnp.sort(jnp.where(doubtful, positions, positions + n)) % n
    # Those with fewer of them go on, as columns are passed round as long as any needs.
    number = collectives.largest(jnp.sum(doubtful), axis)

    def unfinished(state: Any) -> Bool[Array, ""]:
        return state[0] < number

    def step(state: Any) -> Any:
        start, table = state
        # The last block is filled up with other rows, for which it is right as well.
        index = jax.lax.dynamic_slice(order, (start,), (block_size,))
        block = jax.tree.map(lambda array: array[index], rows)
        corrected, _ = side_by_side(exact(block, split(table[index])))
        return start + block_size, table.at[index].set(corrected)

    start = jnp.zeros((), number.dtype)
    return split(jax.lax.while_loop(unfinished, step, (start, table))[1])


def side_by_side(
    results: Any,
) -> tuple[Int[Array, "rows numbers"], Callable[[Int[Array, "r numbers"]], Any]]:
    """Whole numbers of each row as one array, and what takes rows of it apart again.

    To be looked up and put in their places at once.
    """
    leaves, tree = jax.tree.flatten(results)
    largest = jnp.result_type(*leaves)

    def split(table: Int[Array, "r numbers"]) -> Any:
        columns = [table[:, i].astype(leaf.dtype) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(tree, columns)

    return jnp.stack([leaf.astype(largest) for leaf in leaves], axis=1), split
