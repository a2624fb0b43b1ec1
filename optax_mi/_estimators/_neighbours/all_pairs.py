"""Counts by looking at all pairs, a block of rows against all columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Integer

from optax_mi._estimators._neighbours import collectives, distances, matmul, tiles
from optax_mi._estimators._neighbours.query import (
    Ball,
    Edge,
    Found,
    Query,
    Rows,
    ball,
    ball_of_class,
)
from optax_mi._types import AxisName

# By how many codes a distance can differ between two kernels, for each feature: one
# takes a product and a sum in one step, the other rounds between.
_ROUNDING = 16


class Columns(NamedTuple):
    """Points that neighbours are found among."""

    points: Sequence[Any]  # of each variable, or codes of their distances from the rows
    labels: Sequence[Integer[Array, "1 m"] | None]  # in each space


def by_tiles(
    query: Query, columns: Any, rows: Rows
) -> tuple[list[Found], Bool[Array, "rows"]]:
    """A block of rows against all columns, tile by tile."""
    measured = partial(measure, query, rows)
    value, arrays = tiles.view(measured, columns, query.features)
    span = None if value is tiles.stored else _span_of_labels(query, rows)
    radii = _radii(query, rows, value, arrays, span)
    found = [
        _about(query, rows, k, value, arrays, radius, span)
        for k, radius in zip(rows.ks, radii, strict=True)
    ]
    return found, _any(map(_is_not_kth, found))


def by_matmul(
    query: Query, columns: Any, rows: Rows
) -> tuple[list[Found], Bool[Array, "rows"]]:
    """As by tiles, some distances by a product; doubtful where its error may count."""
    measured = tiles.store(partial(measure, query, rows), columns)
    radii = _radii(query, rows, tiles.stored, measured)
    pairs = [
        _about_within_error(query, rows, k, measured, radius)
        for k, radius in zip(rows.ks, radii, strict=True)
    ]
    found = [of_k for of_k, _ in pairs]
    doubtful = [doubt for _, doubt in pairs]
    return found, _any([*doubtful, *map(_is_not_kth, found)])


def exactly(
    query: Query,
    columns: Any,
    rows: Rows,
    found: Sequence[Found],
    *,
    afresh: bool = False,
) -> list[Found]:
    """As by tiles, and right for any row: all of its distances are stored.

    The radii that were found are too large by few points; or they say nothing, and are
    sought afresh, as any number of points may be within a product's error.
    """
    measured = tiles.store(partial(measure, query, rows), columns)
    first = _codes_in(query, 0, rows, measured)
    if afresh:
        above = _radii(query, rows, tiles.stored, measured)
    else:
        above = [of_k.radius for of_k in found]
    # A radius is beyond all points where too few groups had one with the label.
    rounding = _ROUNDING * sum(query.features)
    largest = distances.farthest(first) - rounding
    radii = [
        tiles.kth_smallest(first, k=k + 1, above=jnp.minimum(limit, largest) + rounding)
        for k, limit in zip(rows.ks, above, strict=True)
    ]
    return [
        _about(query, rows, k, tiles.stored, measured, radius)
        for k, radius in zip(rows.ks, radii, strict=True)
    ]


def measure(query: Query, rows: Rows, columns: Columns) -> Columns:
    """The columns, with codes of their distances from the rows in place of points."""

    def codes(v: int) -> Int[Array, "rows m"]:
        points, unit = columns.points[v], query.units[v]
        if isinstance(points, matmul.Points):
            squared = matmul.squared_distances(rows.products[v], points)
            return distances.code(squared * unit)
        return distances.codes_from(rows.x[v], points, query.metric, unit)

    return columns._replace(points=[codes(v) for v in range(len(query.variables))])


def columns_of(query: Query, axis: AxisName) -> Any:
    """All points as columns, or this device's of them."""
    points, labels = query.arrays
    columns = Columns(
        [distances.as_columns(x) for x in points],
        [None if own is None else _pad_labels(own)[None] for own in labels],
    )
    return collectives.spread(columns, axis)


def _pad_labels(labels: Integer[Array, "n"]) -> Integer[Array, "m"]:
    """Labels in order stay so; what is padded is too far away to count."""
    # As a number of the labels' type: a Python integer would have to fit in int32.
    largest = np.asarray(jnp.iinfo(labels.dtype).max, labels.dtype)
    return distances.pad_points(labels, largest)


def with_products(
    query: Query, rows: Rows, columns: Any, axis: AxisName
) -> tuple[Rows, Any]:
    """Rows and columns, those of wide variables as they are for a product."""
    prepared = [
        matmul.prepare(x, axis)
        if matmul.applies(x.shape[1], query.metric)
        else (None, None)
        for x in rows.x
    ]
    own = columns if axis is None else columns.own
    mixed = [
        direct if product is None else product
        for direct, (_, product) in zip(own.points, prepared, strict=True)
    ]
    rows = rows._replace(products=tuple(product for product, _ in prepared))
    return rows, collectives.spread(own._replace(points=mixed), axis)


def _span_of_labels(query: Query, rows: Rows) -> tiles.Span:
    """The columns with the labels of these rows, which are in order.

    None where the rows are so many that most columns would be among them.
    """
    labels = rows.labels[0]
    if labels is None or 2 * len(labels) > query.number:
        return None
    lowest, highest = jnp.min(labels), jnp.max(labels)

    def span(columns: Columns) -> tuple[Any, Any]:
        others: Any = columns.labels[0]
        return jnp.sum(others < lowest), jnp.sum(others <= highest)

    return span


def _radii(
    query: Query,
    rows: Rows,
    value: Callable[[Any], Columns],
    arrays: Any,
    span: tiles.Span = None,
) -> list[Int[Array, "rows"]]:
    """Codes of the k-th neighbour's distance, or now and then of a farther one's."""

    def first(tile: Any) -> Int[Array, "rows m"]:
        return _codes_in(query, 0, rows, value(tile))

    # Each point is the nearest to itself.
    minima = tiles.group_minima(first, arrays, max(query.ks) + 1, span)
    return [
        tiles.kth_of_minima(minima, k=k + 1, max_k=max_k + 1)
        for k, max_k in zip(rows.ks, query.ks, strict=True)
    ]


def _codes_in(
    query: Query, s: int, rows: Rows, measured: Columns
) -> Int[Array, "rows m"]:
    """Codes of the distances in a space."""
    largest = reduce(
        jnp.maximum, [measured.points[v] for v in query.spaces[s].variables]
    )
    labels, others = rows.labels[s], measured.labels[s]
    if labels is None or others is None:
        return largest
    return distances.among_label(largest, labels, others[0])


def _about(
    query: Query,
    rows: Rows,
    k: Int[Array, "rows"],
    value: Callable[[Any], Columns],
    arrays: Any,
    radius: Int[Array, "rows"],
    span: tiles.Span = None,
) -> Found:
    """What lies about a radius."""
    balls = _balls(query, rows, value, arrays, radius, radius, span)
    edges = _edges(query, rows, value, arrays, radius) if query.edges else ()
    return Found(k, radius, balls, edges)


def _about_within_error(
    query: Query,
    rows: Rows,
    k: Int[Array, "rows"],
    measured: Columns,
    radius: Int[Array, "rows"],
) -> tuple[Found, Bool[Array, "rows"]]:
    """What lies about a radius by distances with an error, and where that is in doubt.

    Beyond doubt, the k-th neighbour alone is within the error of its distance, in one
    of the variables.
    """
    squared = distances.decode(radius)
    errors = [
        matmul.error(product, squared / unit) * unit
        for product, unit in zip(rows.products, query.units, strict=True)
        if product is not None
    ]
    tolerance = 2 * reduce(jnp.maximum, errors)
    low = distances.code(jnp.maximum(squared - tolerance, 0))
    high = distances.code(squared + tolerance)
    balls = _balls(query, rows, tiles.stored, measured, low, high)

    def at_radius(tile: Columns) -> list[Bool[Array, "rows m"]]:
        return [(c >= low[:, None]) & (c <= high[:, None]) for c in tile.points]

    several = sum(tiles.count(at_radius, measured)) > 1
    doubtful = (balls[0].tied > 1) | several | (squared <= 2 * tolerance)
    # Without an error ties are ties, as where all points coincide.
    return Found(k, radius, balls), doubtful & (tolerance > 0)


def _balls(
    query: Query,
    rows: Rows,
    value: Callable[[Any], Columns],
    arrays: Any,
    low: Int[Array, "rows"],
    high: Int[Array, "rows"],
    span: tiles.Span = None,
) -> tuple[Ball, ...]:
    """In each space, the points closer than low, and those from low to high."""

    def of(spaces: Sequence[int], span: tiles.Span) -> dict[int, Ball]:
        def predicates(tile: Any) -> list[Bool[Array, "rows m"]]:
            measured = value(tile)
            codes = [_codes_in(query, s, rows, measured) for s in spaces]
            return [
                holds for c in codes for holds in (c < low[:, None], c <= high[:, None])
            ]

        counts = tiles.count(predicates, arrays, span)
        pairs = zip(spaces, counts[::2], counts[1::2], strict=True)
        return {s: ball(low, *pair) for s, *pair in pairs}

    spaces = [s for s, space in enumerate(query.spaces) if space.variables]
    if span is None:
        found = of(spaces, None)
    else:  # of the first space alone
        found = of(spaces[:1], span) | of(spaces[1:], None)
    return tuple(
        found[s] if s in found else ball_of_class(size, low)
        for s, size in enumerate(rows.sizes)
    )


def _edges(
    query: Query,
    rows: Rows,
    value: Callable[[Any], Columns],
    arrays: Any,
    radius: Int[Array, "rows"],
) -> tuple[Edge, ...]:
    """Of the rectangle of the neighbours, all that are within the radius."""

    def neighbour(measured: Columns) -> Bool[Array, "rows m"]:
        return _codes_in(query, 0, rows, measured) <= radius[:, None]

    def side(v: int) -> Int[Array, "rows"]:
        def within(tile: Any) -> Int[Array, "rows m"]:
            measured = value(tile)
            return jnp.where(neighbour(measured), measured.points[v], 0)

        return tiles.maximum(within, arrays)

    sides = [side(v) for v in range(len(query.variables))]

    def predicates(tile: Any) -> list[Bool[Array, "rows m"]]:
        measured = value(tile)
        return [
            holds
            for codes, edge in zip(measured.points, sides, strict=True)
            for holds in (
                codes < edge[:, None],
                codes <= edge[:, None],
                neighbour(measured) & (codes == edge[:, None]),
            )
        ]

    counts = tiles.count(predicates, arrays)

    def edge(v: int) -> Edge:
        closer, within, neighbours = counts[3 * v : 3 * v + 3]
        # The point itself is at an edge of zero, and was counted among the neighbours.
        return Edge(ball(sides[v], closer, within), neighbours - (sides[v] == 0))

    return tuple(edge(v) for v in range(len(sides)))


def _is_not_kth(found: Found) -> Bool[Array, "n"]:
    """Whether the radius is too large, or rounded otherwise by what found it."""
    closer, tied = found.balls[0]
    return (found.k > 0) & ((closer >= found.k) | (closer + tied < found.k))


def _any(conditions: Iterable[Bool[Array, "n"]]) -> Bool[Array, "n"]:
    return reduce(jnp.logical_or, conditions)
