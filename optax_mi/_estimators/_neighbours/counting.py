"""Who counts: the one place that chooses, and the one exit for what is in doubt.

A `Query` says between which points, in which spaces and up to which neighbour. Every
strategy answers all queries that it fits, and those that may err say where.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from optax_mi._estimators._neighbours import (
    all_pairs,
    blocks,
    boxes,
    collectives,
    few_pairs,
    matmul,
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
    # A product's distances are good enough to be compared, not to be used themselves.
    if not (query.edges or query.radii) and any(
        matmul.applies(d, query.metric) for d in features
    ):
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
    n, devices = query.number, collectives.size(axis)
    by = strategy(query, n * devices)
    if by not in ("tiles", "matmul"):
        return _in_full(partial(_by_few_pairs, by, block_size), query, axis)
    labels = query.spaces[0].labels
    if labels is None:
        return _by_all_pairs(by, block_size, axis, query)
    # In order of the labels a block of points has its neighbours in a span of columns.
    order = jnp.argsort(labels)
    in_order = query.of(jax.tree.map(lambda a: a[order], query.arrays))
    found = _by_all_pairs(by, block_size, axis, in_order)
    table, split = blocks.side_by_side(found)
    return split(jnp.zeros_like(table).at[order].set(table))


def _by_few_pairs(by: Strategy, block_size: int | None, query: Query) -> list[Found]:
    rows = rows_of(query, None)
    if by == "classes":
        return few_pairs.by_classes(query, rows)
    if by == "sorting":
        return few_pairs.by_sorting(query, rows)
    found, doubtful = few_pairs.by_boxes(query, rows)
    exact = partial(all_pairs.exactly, query, all_pairs.columns_of(query, None))
    size = _block_size(query, block_size, None)
    return blocks.redo(found, doubtful, exact, rows, size)


def _by_all_pairs(
    by: Strategy, block_size: int | None, axis: AxisName, query: Query
) -> list[Found]:
    rows, columns = rows_of(query, axis), all_pairs.columns_of(query, axis)
    exact = partial(all_pairs.exactly, query, columns)
    fast = partial(all_pairs.by_tiles, query, columns)
    if by == "matmul":
        rows, mixed = all_pairs.with_products(query, rows, columns, axis)
        fast = partial(all_pairs.by_matmul, query, mixed)
        exact = partial(all_pairs.exactly, query, columns, afresh=True)
    size = _block_size(query, block_size, axis)
    return blocks.map_rechecked(fast, exact, rows, size, axis)


def _in_full(
    fn: Callable[[Query], list[Found]], query: Query, axis: AxisName
) -> list[Found]:
    """Applies fn to all points on every device, and keeps what is found of its own."""
    if axis is None:
        return fn(query)
    arrays, tree = jax.tree.flatten(query.arrays)
    return collectives.on_each(
        lambda *all_: fn(query.of(jax.tree.unflatten(tree, all_))), arrays, axis
    )


def _block_size(query: Query, given: int | None, axis: AxisName) -> int:
    n, devices = query.number, collectives.size(axis)
    most = max(query.ks) + 1  # each point is the nearest to itself
    return blocks.choose_block_size(n, query.features, most, given, devices)
