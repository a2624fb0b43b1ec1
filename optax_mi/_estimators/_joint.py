"""Neighbours in a joint space of several variables, and counts in its subspaces.

What `ksg`, `ksg_mixed` and `ksg_conditional` share: the distance of two points in a
space of several variables is the largest of their distances within the variables, each
in a unit of its own (`_scaling`); rho is the distance of a point to its k-th neighbour
in the space of all variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, Bool, Float, Int, UInt

from optax_mi._estimators import _scaling
from optax_mi._estimators._neighbours import (
    boxes,
    collectives,
    distances,
    matmul,
    sorting,
    tiles,
)
from optax_mi._estimators._neighbours.packing import Variable
from optax_mi._estimators._neighbours.ties import mean_digamma
from optax_mi._types import AxisName, Metric, Scaling

# From columns of each variable to codes within it of their distances from the rows.
_Codes: TypeAlias = Callable[..., list[UInt[Array, "rows m"]]]


class Near(NamedTuple):
    """Numbers of other points."""

    closer: Int[Array, "n"]
    tied: Int[Array, "n"]  # at exactly that distance


class Edge(NamedTuple):
    """What lies about the largest distance, in one variable, to one of k neighbours."""

    near: Near
    neighbours: Int[Array, "n"]  # those of the tied points that are neighbours


class JointCounts(NamedTuple):
    """What lies about rho."""

    joint: Near
    near: tuple[Near, ...]  # in each subspace
    coincident: Bool[Array, "n"]  # whether rho is zero
    edges: tuple[Edge, ...]  # of each variable, where they are asked for


class _Block(NamedTuple):
    """Points of each variable."""

    x: tuple[Float[Array, "rows _d"], ...]
    gram: tuple[matmul.Points | None, ...]  # of a variable measured by a product


def joint_counts(
    variables: Sequence[Float[Array, "n _d"]],
    subspaces: Sequence[Sequence[int]],
    *,
    ks: Sequence[int],
    metric: Metric,
    scaling: Scaling,
    block_size: int | None,
    edges: bool = False,
    axis: AxisName = None,
) -> list[JointCounts]:
    """Counts the points closer than rho to every point, and at rho, for each k.

    Args:
      variables: Points of each variable.
      subspaces: Which variables each counting is in.
      ks: Numbers of neighbours; their minima of groups are taken once.
      metric: The norm within a variable.
      scaling: What features or variables are divided by.
      block_size: Points handled at a time.
      edges: Whether to find the edges of the rectangle of the k neighbours as well.
      axis: That of the devices over which the points are spread.
    """
    n, features = len(variables[0]), [v.shape[1] for v in variables]
    devices = collectives.size(axis)
    searched = not edges and boxes.applies(n * devices, features, ks)
    if axis is not None and searched:
        options: Any = {"ks": ks, "metric": metric, "scaling": scaling}

        def of_all(*variables: Float[Array, "all _d"]) -> list[JointCounts]:
            return joint_counts(variables, subspaces, block_size=block_size, **options)

        return collectives.on_each(of_all, variables, axis)
    variables, units = _scaling.in_units(variables, scaling, metric, axis)
    own_columns = [distances.as_columns(v) for v in variables]
    columns = collectives.spread(own_columns, axis)
    spaces = (tuple(range(len(variables))), *subspaces)
    within = max(ks) + 1  # each point is the nearest to itself

    def codes_from(block: _Block) -> _Codes:
        def codes(tile: Sequence[Float[Array, "_d m"]]) -> list[UInt[Array, "rows m"]]:
            return [
                distances.codes_from(x, own, metric, unit)
                for x, own, unit in zip(block.x, tile, units, strict=True)
            ]

        return codes

    def about(rho: UInt[Array, "rows"], codes: _Codes, arrays: Any) -> JointCounts:
        counts = _count_between(rho, rho, spaces, codes, arrays)
        return counts._replace(
            edges=_edges(rho, codes, arrays, len(variables)) if edges else ()
        )

    def exact(block: _Block) -> list[JointCounts]:
        codes = collectives.everywhere(codes_from(block), columns)
        joint = _farthest(codes)
        rhos = [tiles.kth_smallest(joint, k=k + 1, max_k=k + 1) for k in ks]
        return [about(rho, tiles.stored, codes) for rho in rhos]

    def by_groups(codes: _Codes, arrays: Any) -> list[UInt[Array, "rows"]]:
        minima = tiles.group_minima(lambda tile: _farthest(codes(tile)), arrays, within)
        return [tiles.kth_of_minima(minima, k=k + 1, max_k=k + 1) for k in ks]

    def fast(block: _Block) -> tuple[list[JointCounts], Bool[Array, "rows"]]:
        codes, arrays = tiles.view(codes_from(block), columns, features)
        found = [about(rho, codes, arrays) for rho in by_groups(codes, arrays)]
        return found, _any(_is_not_kth(c, k) for c, k in zip(found, ks, strict=True))

    wide = [matmul.applies(d, metric) and not edges for d in features]
    grams = [
        matmul.prepare(v, axis) if w else (None, None)
        for v, w in zip(variables, wide, strict=True)
    ]
    rows = _Block(tuple(variables), tuple(gram for gram, _ in grams))
    block_size = tiles.choose_block_size(n, features, within, block_size, devices)
    if searched:
        found, tied = _searched(variables, units, subspaces, ks, metric)
        return tiles.redo(found, tied, exact, rows, block_size)
    if not any(wide):
        return tiles.map_rechecked(fast, exact, rows, block_size, axis)

    # A variable has its columns where it is not measured by a product.
    mixed_columns = collectives.spread(
        [
            own if gram is None else gram
            for own, (_, gram) in zip(own_columns, grams, strict=True)
        ],
        axis,
    )

    def approximate(block: _Block) -> tuple[list[JointCounts], Bool[Array, "rows"]]:
        def codes(tile: Sequence[Any]) -> list[UInt[Array, "rows m"]]:
            return [
                distances.codes_from(x, own, metric, unit)
                if gram is None
                else distances.code(matmul.squared_distances(gram, own) * unit)
                for x, own, unit, gram in zip(
                    block.x, tile, units, block.gram, strict=True
                )
            ]

        arrays = collectives.everywhere(codes, mixed_columns)

        def error(squared: Float[Array, "rows"]) -> Float[Array, "rows"]:
            errors = [
                matmul.error(gram, squared / unit) * unit
                for gram, unit in zip(block.gram, units, strict=True)
                if gram is not None
            ]
            return reduce(jnp.maximum, errors)

        found = [
            _count_about(rho, error, spaces, arrays)
            for rho in by_groups(tiles.stored, arrays)
        ]
        return [counts for counts, _ in found], _any(
            doubtful | _is_not_kth(counts, k)
            for (counts, doubtful), k in zip(found, ks, strict=True)
        )

    return tiles.map_rechecked(approximate, exact, rows, block_size, axis)


def mean_digammas(counts: JointCounts, k: Any, dtype: Any) -> list[Float[Array, "n"]]:
    r"""E psi of the numbers of points as near as the k-th neighbour.

    In the whole space, and then in each subspace: psi(k) and psi(n_S + 1), with ties at
    rho in expectation over their random order (docs/method.md). What is at rho in the
    whole space is so in one variable; within a subspace of it the k-th neighbour is one
    of those tied in both, and in other subspaces nothing is tied. Where rho is zero,
    psi(n + 1) of the n coincident points (Gao et al. 2017), which is the same mean.
    """
    joint = Near(*(c.astype(dtype) for c in counts.joint))

    def mean(near: Near) -> Float[Array, "n"]:
        closer, tied = (c.astype(dtype) for c in near)
        in_order = mean_digamma(
            closer, k - joint.closer, joint.tied, jnp.maximum(tied, joint.tied)
        )
        untied = counts.coincident | (near.tied == 0)
        plain = digamma(closer + jnp.where(counts.coincident, tied, 0) + 1)
        return jnp.where(untied, plain, in_order)

    whole = jnp.where(
        counts.coincident, digamma(joint.tied + 1), digamma(jnp.asarray(k, dtype))
    )
    return [whole, *map(mean, counts.near)]


def signed_sum(
    means: Sequence[Float[Array, "n"]], signs: Sequence[int]
) -> Float[Array, "n"]:
    """Each point's term: that of the whole space, and those of subspaces by sign."""
    term, *near = means
    for sign, mean in zip(signs, near, strict=True):
        term = term + sign * mean
    return term


def _farthest(codes: Sequence[UInt[Array, "rows m"]]) -> UInt[Array, "rows m"]:
    """The distance in the space of several variables."""
    return reduce(jnp.maximum, codes)


def _any(conditions: Iterable[Bool[Array, "n"]]) -> Bool[Array, "n"]:
    return reduce(jnp.logical_or, conditions)


def _is_not_kth(counts: JointCounts, k: int) -> Bool[Array, "n"]:
    """Whether rho is too large, or rounded otherwise by the kernel that found it."""
    within = counts.joint.closer + counts.joint.tied
    return (counts.joint.closer >= k) | (within < k)


def _count_between(
    low: UInt[Array, "rows"],
    high: UInt[Array, "rows"],
    spaces: Sequence[Sequence[int]],
    codes: _Codes,
    arrays: Any,
) -> JointCounts:
    """Counts the points closer than low, and those from low to high."""

    def predicates(tile: Any) -> list[Bool[Array, "rows m"]]:
        own = codes(tile)
        farthest = [_farthest([own[v] for v in space]) for space in spaces]
        closer = [c < low[:, None] for c in farthest]
        return closer + [c <= high[:, None] for c in farthest]

    counts = tiles.count(predicates, arrays)
    joint, *near = (
        Near(*tiles.others(low, closer, within))
        for closer, within in zip(
            counts[: len(spaces)], counts[len(spaces) :], strict=True
        )
    )
    return JointCounts(joint, tuple(near), high == 0, ())


def _count_about(
    rho: UInt[Array, "rows"],
    error: Callable[[Float[Array, "rows"]], Float[Array, "rows"]],
    spaces: Sequence[Sequence[int]],
    arrays: Any,
) -> tuple[JointCounts, Bool[Array, "rows"]]:
    """Counts by distances with an error; doubtful where it may change a count."""
    squared = distances.decode(rho)
    margin = 2 * error(squared)
    low = distances.code(jnp.maximum(squared - margin, 0))
    high = distances.code(squared + margin)
    counts = _count_between(low, high, spaces, tiles.stored, arrays)

    def between(tile: Any) -> list[Bool[Array, "rows m"]]:
        return [(c >= low[:, None]) & (c <= high[:, None]) for c in tile]

    # Beyond doubt, the k-th neighbour alone is at rho, in one of the variables.
    at_rho = sum(tiles.count(between, arrays))
    doubtful = (counts.joint.tied > 1) | (at_rho > 1) | (squared <= 2 * margin)
    # Without an error ties are ties, as where all points coincide.
    return counts, doubtful & (margin > 0)


def _edges(
    rho: UInt[Array, "rows"], codes: _Codes, arrays: Any, number: int
) -> tuple[Edge, ...]:
    def side(v: int) -> UInt[Array, "rows"]:
        def within(tile: Any) -> UInt[Array, "rows m"]:
            own = codes(tile)
            return jnp.where(_farthest(own) <= rho[:, None], own[v], 0)

        return tiles.maximum(within, arrays)

    variables = range(number)
    sides = [side(v) for v in variables]

    def predicates(tile: Any) -> list[Bool[Array, "rows m"]]:
        own = codes(tile)
        neighbour = _farthest(own) <= rho[:, None]
        return [
            holds
            for c, edge in zip(own, sides, strict=True)
            for holds in (
                c < edge[:, None],
                c <= edge[:, None],
                neighbour & (c == edge[:, None]),
            )
        ]

    counts = tiles.count(predicates, arrays)

    def edge(v: int) -> Edge:
        closer, within, neighbours = counts[3 * v : 3 * v + 3]
        near = Near(*tiles.others(sides[v], closer, within))
        # The point itself is at an edge of zero, and was counted among the neighbours.
        return Edge(near, neighbours - (sides[v] == 0))

    return tuple(edge(v) for v in variables)


def _searched(
    variables: Sequence[Float[Array, "n _d"]],
    units: Sequence[Float[Array, ""]],
    subspaces: Sequence[Sequence[int]],
    ks: Sequence[int],
    metric: Metric,
) -> tuple[list[JointCounts], Bool[Array, "n"]]:
    """Counts in few dimensions, and where ties may have been left out."""
    spaces = [Variable(*v) for v in zip(variables, units, strict=True)]
    found = boxes.neighbours(spaces, ks, metric)
    axes = [sorting.axes_of(*v, metric) for v in spaces]

    def counts(
        subspace: Sequence[int], radius: UInt[Array, "n"]
    ) -> Sequence[Int[Array, "n"]]:
        own = [axes[v] for v in subspace]
        along = [axis for several in own if several is not None for axis in several]
        if None not in own and len(along) <= 2:
            return sorting.counts(along, radius, metric)

        def predicates(
            codes: UInt[Array, "*rows m"], limit: UInt[Array, "*rows #m"]
        ) -> list[Bool[Array, "*rows m"]]:
            return [codes < limit, codes <= limit]

        within = [spaces[v] for v in subspace]
        return boxes.counts_within(within, radius, predicates, metric)

    def near(subspace: Sequence[int], radius: UInt[Array, "n"]) -> Near:
        return Near(*tiles.others(radius, *counts(subspace, radius)))

    counted = [
        JointCounts(
            Near(about.closer, about.tied),
            tuple(near(s, about.radius) for s in subspaces),
            about.radius == 0,
            (),
        )
        for about in found
    ]
    return counted, ~reduce(jnp.logical_and, [about.certain for about in found])
