"""Who counts: the one place that chooses, and the one exit for what is in doubt.

A `Query` says between which points, in which spaces and up to which neighbour. Every
strategy answers all queries that it fits, and those that may err say where.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias

import jax

from optax_mi._estimators._neighbours import (
    all_pairs,
    boxes,
    collectives,
    few_pairs,
    matmul,
    tiles,
)
from optax_mi._estimators._neighbours.query import Found, Query, rows_of
from optax_mi._types import AxisName

Strategy: TypeAlias = Literal["classes", "sorting", "boxes", "matmul", "tiles"]


def strategy(query: Query, n: int) -> Strategy:
    """Who counts, of n points in all: the only place that chooses."""
    features = query.features
    if not features:
        return "classes"
    if not query.edges and features == [1]:
        return "sorting"
    if not query.edges and boxes.applies(n, features, query.ks):
        return "boxes"
    if not query.edges and any(matmul.applies(d, query.metric) for d in features):
        return "matmul"
    return "tiles"


def count(
    query: Query, *, block_size: int | None = None, axis: AxisName = None
) -> list[Found]:
    """Answers a query, for each k.

    Args:
      query: What is to be counted.
      block_size: Points handled at a time; by default what fits the cache.
      axis: That of the devices over which the points are spread.
    """
    n, devices = len(jax.tree.leaves(query.arrays)[0]), collectives.size(axis)
    by = strategy(query, n * devices)
    if by not in ("matmul", "tiles") and axis is not None:
        arrays, tree = jax.tree.flatten(query.arrays)

        def of_all(*arrays: Any) -> list[Found]:
            return count(query.of(jax.tree.unflatten(tree, arrays)))

        return collectives.on_each(of_all, arrays, axis)
    rows = rows_of(query, axis)
    if by == "classes":
        return few_pairs.by_classes(query, rows)
    if by == "sorting":
        return few_pairs.by_sorting(query, rows)
    columns = all_pairs.columns_of(query, axis)
    exact = partial(all_pairs.exactly, query, columns)
    size = tiles.choose_block_size(
        n, query.features, max(query.ks) + 1, block_size, devices
    )
    if by == "boxes":
        found, doubtful = few_pairs.by_boxes(query, rows)
        return tiles.redo(found, doubtful, exact, rows, size)
    fast = partial(all_pairs.by_tiles, query, columns)
    if by == "matmul":
        rows, mixed = all_pairs.with_products(query, rows, columns, axis)
        fast = partial(all_pairs.by_matmul, query, mixed)
    return tiles.map_rechecked(fast, exact, rows, size, axis)
