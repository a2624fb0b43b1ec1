"""Neighbours in a joint space of several variables, and counts in its subspaces.

What `ksg`, `ksg_mixed` and `conditional_ksg` share: the distance of two points in a
space of several variables is the largest of their distances within the variables, each
divided by that variable's spread; rho is the distance of a point to its k-th neighbour
in the space of all variables.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_mi._estimators import _gram, _neighbours, _pruned
from optax_mi._types import Metric


class JointCounts(NamedTuple):
    """Points that each of n points finds near itself. The point itself not counted."""

    joint: jax.Array  # [n], k, or all within rho where the k-th is at distance zero
    near: tuple[jax.Array, ...]  # [n] for each subspace
    coincident: jax.Array  # [n], whether the k-th neighbour is at distance zero


class _Block(NamedTuple):
    position: jax.Array
    x: tuple[jax.Array, ...]  # each variable


def joint_counts(
    variables: Sequence[jax.Array],
    subspaces: Sequence[Sequence[int]],
    *,
    ks: Sequence[int],
    metric: Metric,
    block_size: int | None,
    rectangle: bool = False,
) -> list[JointCounts]:
    """Counts the points closer than rho to every point, for each k.

    Args:
      variables: Points [n, d_v] of each variable.
      subspaces: Which variables each counting is in.
      ks: Numbers of neighbours; the distances are taken once for all of them.
      metric: The norm within a variable.
      block_size: Points handled at a time.
      rectangle: Count, per variable, the points as far as the farthest of the k
        neighbours in that variable (the second algorithm of Kraskov et al.), and all
        points within rho in the joint space.

    Where rho is zero, the points at distance zero are counted, in every case.
    """
    n = len(variables[0])
    block_size = _neighbours.choose_block_size(n, block_size)
    variables = [_neighbours.rescale(v) for v in variables]
    columns = [_neighbours.as_columns(v) for v in variables]
    units = [
        _inverse_spread(v, c, metric) for v, c in zip(variables, columns, strict=True)
    ]

    def codes(distance: jax.Array, v: int, block: _Block) -> jax.Array:
        # Scaling the distances rather than the data keeps tied distances tied.
        codes = _neighbours.code(distance * units[v])
        return _neighbours.without_itself(codes, block.position, n)

    def exact(block: _Block) -> list[JointCounts]:
        spaces = [
            codes(_neighbours.distances(x, columns[v], metric), v, block)
            for v, x in enumerate(block.x)
        ]
        count_all = _count_rectangle if rectangle else _count_near
        return [count_all(spaces, subspaces, k) for k in ks]

    rows = _Block(jnp.arange(n), tuple(variables))
    if not rectangle and _pruned.applies([v.shape for v in variables], ks, metric):
        counts, doubtful = _pruned_counts(
            [_pruned.Variable(v, u) for v, u in zip(variables, units, strict=True)],
            subspaces,
            ks,
            metric,
        )
        return _gram.recheck(exact, counts, doubtful, rows, block_size)

    wide = [v.shape[1] >= _gram.MIN_FEATURES for v in variables]
    if metric != "euclidean" or not any(wide) or rectangle:
        return _neighbours.map_blocks(exact, rows, block_size)

    grams = {v: _gram.prepare(variables[v]) for v, w in enumerate(wide) if w}

    def approximate(block: tuple[_Block, dict[int, _gram.Points]]) -> Any:
        points, gram_rows = block

        def distance(v: int) -> jax.Array:
            if v in grams:
                return _gram.squared_distances(gram_rows[v], grams[v][1])
            return _neighbours.distances(points.x[v], columns[v], metric)

        def error(squared: jax.Array) -> jax.Array:
            errors = [
                _gram.error(gram, squared / units[v]) * units[v]
                for v, gram in gram_rows.items()
            ]
            return reduce(jnp.maximum, errors)

        spaces = [codes(distance(v), v, points) for v in range(len(variables))]
        results = [_count_between(spaces, subspaces, k, error) for k in ks]
        doubtful = reduce(jnp.logical_or, [doubt for _, doubt in results])
        return [counts for counts, _ in results], doubtful

    gram_rows = {v: gram[0] for v, gram in grams.items()}
    counts, doubtful = _neighbours.map_blocks(
        approximate, (rows, gram_rows), block_size
    )
    return _gram.recheck(exact, counts, doubtful, rows, block_size)


def _pruned_counts(
    variables: list[_pruned.Variable],
    subspaces: Sequence[Sequence[int]],
    ks: Sequence[int],
    metric: Metric,
) -> tuple[list[JointCounts], jax.Array]:
    """Counts in few dimensions, doubtful where rho = 0."""
    radii = _pruned.radii(variables, ks, metric)
    near = [_pruned.closer([variables[v] for v in s], radii, metric) for s in subspaces]
    counts = [
        JointCounts(jnp.full(rho.shape, k, near[0][i].dtype), tuple(own), rho == 0)
        for i, (k, rho, own) in enumerate(
            zip(ks, radii, zip(*near, strict=True), strict=True)
        )
    ]
    return counts, reduce(jnp.logical_or, [c.coincident for c in counts])


def _farther(*codes: jax.Array) -> jax.Array:
    """The distance in the space of several variables."""
    return reduce(jnp.maximum, codes)


def _radius(spaces: list[jax.Array], k: int) -> jax.Array:
    return _neighbours.kth_smallest(_farther, *spaces, k=k, max_k=k)


def _count_near(spaces, subspaces, k) -> JointCounts:
    rho = _radius(spaces, k)
    coincident = rho == 0
    # The code after that of zero is 1: what is below it is at distance zero.
    limit = jnp.maximum(rho, 1)

    def count(within: jax.Array, codes: list[jax.Array]) -> jax.Array:
        return _neighbours.count(lambda *c: _farther(*c) < within[:, None], *codes)

    near = tuple(count(limit, [spaces[v] for v in s]) for s in subspaces)
    joint = jnp.where(coincident, count(jnp.ones_like(rho), spaces), k)
    return JointCounts(joint, near, coincident)


def _count_rectangle(spaces, subspaces, k) -> JointCounts:
    rho = _radius(spaces, k)

    def side(v: int) -> jax.Array:
        def within(own: jax.Array, *codes: jax.Array) -> jax.Array:
            return jnp.where(_farther(*codes) <= rho[:, None], own, 0)

        return _neighbours.largest(within, spaces[v], *spaces)

    def count(s: Sequence[int]) -> jax.Array:
        codes, sides = [spaces[v] for v in s], [side(v)[:, None] for v in s]

        def within(*codes: jax.Array) -> jax.Array:
            inside = [c <= limit for c, limit in zip(codes, sides, strict=True)]
            return reduce(jnp.logical_and, inside)

        return _neighbours.count(within, *codes)

    joint = _neighbours.count(lambda *c: _farther(*c) <= rho[:, None], *spaces)
    return JointCounts(joint, tuple(count(s) for s in subspaces), rho == 0)


def _count_between(spaces, subspaces, k, error) -> tuple[JointCounts, jax.Array]:
    """Counts by distances with an error; doubtful where it may change a count."""
    rho = _radius(spaces, k)
    squared = _neighbours.decode(rho)
    margin = 2 * error(squared)
    low = _neighbours.code(jnp.maximum(squared - margin, 0))[:, None]
    high = _neighbours.code(squared + margin)[:, None]

    def between(codes: list[jax.Array]) -> jax.Array:
        def inside(*codes: jax.Array) -> jax.Array:
            return (_farther(*codes) >= low) & (_farther(*codes) <= high)

        return _neighbours.count(inside, *codes)

    # Beyond doubt, the k-th neighbour alone is at rho, in one of the variables.
    at_rho = sum(between([codes]) for codes in spaces)
    doubtful = (between(spaces) > 1) | (at_rho > 1) | (squared <= margin)
    near = tuple(
        _neighbours.count(lambda *c: _farther(*c) < low, *[spaces[v] for v in s])
        for s in subspaces
    )
    joint = jnp.full(rho.shape, k, near[0].dtype)
    return JointCounts(joint, near, jnp.zeros(rho.shape, bool)), doubtful


def _inverse_spread(x: jax.Array, columns: jax.Array, metric: Metric) -> jax.Array:
    """1 / root mean square distance from the mean, squared where distances are."""
    mean = jnp.mean(x, axis=0, keepdims=True)
    distance = _neighbours.distances(mean, columns, metric)[0, : len(x)]
    squared = metric == "euclidean"
    spread = jnp.mean(distance) if squared else jnp.sqrt(jnp.mean(distance**2))
    return jnp.where(spread > 0, 1 / spread, 1)
