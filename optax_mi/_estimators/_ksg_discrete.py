"""Mutual information between a continuous variable and class labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, UInt

from optax_mi import _checks
from optax_mi._estimators import _scaling
from optax_mi._estimators._entropy import class_sizes
from optax_mi._estimators._neighbours import (
    boxes,
    collectives,
    distances,
    matmul,
    sorting,
    tiles,
)
from optax_mi._estimators._neighbours.packing import Variable
from optax_mi._estimators._neighbours.sharding import number_of_points, over_points
from optax_mi._estimators._neighbours.ties import mean_digamma
from optax_mi._types import AxisName, Discrete, Metric, Numeric, Scaling


def ksg_discrete(
    x: Numeric[ArrayLike, "n ..."],
    labels: Discrete[ArrayLike, "n"],
    *,
    k: int | Sequence[int] = 3,
    metric: Metric = "euclidean",
    scaling: Scaling = "feature",
    local: bool = False,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*n"]:
    r"""Estimates I(X; C), in nats, between points and the classes they belong to.

    The nearest-neighbour estimator of Ross (2014). For each point, the distance
    :math:`r` to its k-th nearest neighbour of the same class is compared with the
    number of points of any class within :math:`r`:

    .. math::
        I = \psi(N) + \operatorname{mean}_i \left[
            \psi(k_i) - \psi(N_{c(i)}) - \mathbb{E}\,\psi(m_i) \right]

    Distances are only ever compared within X, so the estimate does not depend on the
    scale of X, and labels are never embedded in a space of their own. By default each
    feature is first divided by its standard deviation (`scaling`), so that its unit
    does not matter either.

    Points at exactly equal distances (saturated outputs, dead units, quantised values,
    repeated rows) are ordered at random, and the expectation over that order is taken
    in closed form, so the result is deterministic and no noise is added. With
    :math:`a, T_s` points of the same class closer than :math:`r` and at :math:`r`,
    :math:`m_0, T` points of any class likewise, and :math:`j = k_i - a`, the k-th
    neighbour has the rank :math:`m_i = m_0 + p`, where :math:`p` is negative
    hypergeometric:

    .. math::
        \mathbb{E}\,p &= \frac{j (T+1)}{T_s+1} \qquad
        \operatorname{Var} p =
            \frac{j (T-T_s)(T+1)(T_s-j+1)}{(T_s+1)^2 (T_s+2)} \\
        \mathbb{E}\,\psi(p) &= \psi(j) + \psi(T+1) - \psi(T_s+1)
            \quad \text{(exact, used where } m_0 = 0) \\
        \mathbb{E}\,\psi(m_0 + p) &\approx \psi(\mu) + \tfrac12 \psi''(\mu)
            \operatorname{Var} p, \quad \mu = m_0 + \mathbb{E}\,p

    Without ties this is Ross's estimator. The treatment of ties is this package's own.

    The raw estimate is returned: it may be slightly negative where X says nothing.
    It has no useful gradient.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d features.
        Half-precision and integer values are computed in float32.
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      k: Number of neighbours. In a class of size at most k it is capped at the size
        less one; a class of one member is left out of the mean (its points still count
        as neighbours of others), and `usable_points` says how many points remain. Of
        several k, the mean of their estimates is returned; the distances are taken
        once.
      metric: "euclidean", "manhattan" or "chebyshev", the norm within X. By default as
        in `estimate_mi`; in the maximum norm layers of many features tell less.
      scaling: "feature" divides each feature by its standard deviation, for columns in
        different units. "variable" and "none", here the same, do not: for features
        that share a unit, as a layer's do.
      local: Whether to return each point's term, shape [n], whose mean is the estimate:
        which points tell and which mislead. A single term means little by itself; it
        may be negative, and that of a point alone in its class is NaN.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.
      axis_name: The mesh axis, or several, over which the points are spread: one of
        `jax.shard_map`, where the arrays are a device's own, or of the mesh in force
        (`jax.set_mesh`). By default arrays are asked for their sharding, which under
        `jit` they know of explicit axes alone.

    Returns:
      A scalar, in nats, or [n] of them. NaN where x holds a NaN or an infinity, or
      where no class has two members.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, labels that are not integers of
        shape [n], or an unknown metric or scaling.

    Cost: about n^2 (d + 10) operations; memory n * d and block_size * n at most. One
    feature is sorted, n log n; of many points in up to five features most pairs are not
    looked at (docs/performance.md).

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> rng = np.random.default_rng(0)
      >>> labels = rng.integers(0, 2, 1000)
      >>> x = rng.normal(size=1000) + 4.0 * labels     # I = 0.63
      >>> print(f"{optax_mi.ksg_discrete(x, labels):.2f} of {np.log(2):.2f} nats")
      0.65 of 0.69 nats

    References:
      Ross, `Mutual information between discrete and continuous data sets
      <https://doi.org/10.1371/journal.pone.0087357>`_, 2014, equation (2).
    """
    x = _checks.points("x", x, by_feature=scaling == "feature")
    labels = _checks.class_labels("labels", labels)
    n = _checks.same_length([("x", x), ("labels", labels)])
    ks = _checks.several_neighbours(k, number_of_points(n, axis_name))
    distances.check_options(metric, block_size)
    _scaling.check(scaling)
    _checks.flag("local", local)
    return _ksg_discrete(
        x,
        labels,
        by_feature=scaling == "feature" and x.shape[1] > 1,
        ks=ks,
        metric=metric,
        local=local,
        block_size=block_size,
        axis_name=axis_name,
    )


def usable_points(
    labels: Discrete[ArrayLike, "n"], *, axis_name: AxisName = None
) -> Int[Array, ""]:
    """The number of points that `ksg_discrete` averages over.

    They are those whose class has another member; of a language model's tokens many
    have none in a sample. That classes are small does not bias the estimate as long as
    it is well below what the outcomes say about themselves, ``ksg_discrete(labels,
    labels)``, the mean of psi(n) - psi(N_c) over these points: it cannot exceed that.

    Args:
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      axis_name: The mesh axis over which they are spread, as for `ksg_discrete`.

    Returns:
      An integer scalar, from 0 to n.

    Raises:
      ValueError: If labels are not integers of shape [n] with n >= 1.

    Cost: n log n.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> tokens = np.random.default_rng(0).zipf(1.5, size=1000)
      >>> int(optax_mi.usable_points(tokens)), len(set(tokens.tolist()))
      (916, 140)
    """
    labels = _checks.class_labels("labels", labels)
    return _usable_points(labels, axis_name=axis_name)


@over_points
def _usable_points(labels: Integer[Array, "n"], *, axis: AxisName) -> Int[Array, ""]:
    return collectives.total(jnp.sum(class_sizes(labels, axis) > 1), axis)


class Counts(NamedTuple):
    """What each point sees, itself excluded."""

    class_size: Int[Array, "n"]  # N_c, the point itself included
    k: Int[Array, "n"]  # k capped at N_c - 1
    same_closer: Int[Array, "n"]  # a: same class, closer than r
    same_tied: Int[Array, "n"]  # T_s: same class, at r
    any_closer: Int[Array, "n"]  # m0: any class, closer than r
    any_tied: Int[Array, "n"]  # T: any class, at r


@over_points
def _ksg_discrete(
    x: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    by_feature: bool,
    local: bool,
    axis: AxisName,
    **options: Any,
) -> Float[Array, "*n"]:
    x = jax.lax.stop_gradient(x)
    x = _scaling.by_feature(x, axis) if by_feature else x
    counts = neighbour_counts(x, labels, axis=axis, **options)
    each = [_mutual_information(c, x.dtype, axis, local) for c in counts]
    return jnp.where(collectives.all_finite(x, axis), sum(each) / len(each), jnp.nan)


class _Rows(NamedTuple):
    """A block of points."""

    label: Integer[Array, "rows"]
    class_size: Int[Array, "rows"]
    x: Float[Array, "rows d"]

    def capped(self, k: int) -> Int[Array, "rows"]:
        """The number of neighbours, at most the other members of the class."""
        return jnp.minimum(k, self.class_size - 1)


def neighbour_counts(
    x: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    ks: Sequence[int],
    metric: Metric,
    block_size: int | None,
    axis: AxisName = None,
) -> list[Counts]:
    """Counts, for each point, those within its k-th of the same class, for each k."""
    n, d, devices = *x.shape, collectives.size(axis)
    searched = boxes.applies(n * devices, (d,), ks)
    if axis is not None and (d == 1 or searched):
        options: Any = {"ks": ks, "metric": metric, "block_size": block_size}
        return collectives.on_each(
            partial(neighbour_counts, **options), (x, labels), axis
        )
    x = distances.rescale(x, axis)
    rows = _Rows(labels, class_sizes(labels, axis), x)
    column_label = distances.pad_points(labels, 0)
    columns = collectives.spread((distances.as_columns(x), column_label), axis)
    within = max(ks) + 1  # each point is the nearest to itself
    block_size = tiles.choose_block_size(n, (d,), within, block_size, devices)

    def flagged_from(block: _Rows) -> tiles.Codes:
        def value(
            tile: tuple[Float[Array, "d m"], Integer[Array, "m"]],
        ) -> UInt[Array, "rows m"]:
            codes = distances.codes_from(block.x, tile[0], metric)
            return distances.flagged(codes, block.label, tile[1])

        return value

    def by_groups(
        value: tiles.Codes, arrays: Any, block: _Rows
    ) -> list[UInt[Array, "rows"]]:
        minima = tiles.group_minima(value, arrays, within)
        return [
            tiles.kth_of_minima(minima, k=block.capped(k) + 1, max_k=k + 1) for k in ks
        ]

    def between(
        low: UInt[Array, "rows"],
        high: UInt[Array, "rows"],
        value: tiles.Codes,
        arrays: Any,
        block: _Rows,
        k: int,
    ) -> Counts:
        """Counts the other points closer than low and those from low to high."""

        def predicates(tile: Any) -> list[Bool[Array, "rows m"]]:
            return _closer_and_within(value(tile), low[:, None], high[:, None])

        return _counts(low, tiles.count(predicates, arrays), block, k)

    def exact(block: _Rows) -> list[Counts]:
        codes = collectives.everywhere(flagged_from(block), columns)
        kth = tiles.kth_smallest
        radii = [kth(codes, k=block.capped(k) + 1, max_k=k + 1) for k in ks]
        return [
            between(r, r, tiles.stored, codes, block, k)
            for r, k in zip(radii, ks, strict=True)
        ]

    def fast(block: _Rows) -> tuple[list[Counts], Bool[Array, "rows"]]:
        value, arrays = tiles.view(flagged_from(block), columns, (d,))
        counts = [
            between(r, r, value, arrays, block, k)
            for r, k in zip(by_groups(value, arrays, block), ks, strict=True)
        ]
        return counts, _is_not_kth(counts)

    if d == 1:
        return [_along_axis(rows, k, metric) for k in ks]
    if searched:
        counts = [_searched(rows, k, metric) for k in ks]
        return tiles.redo(counts, _is_not_kth(counts), exact, rows, block_size)
    if not matmul.applies(d, metric):
        return tiles.map_rechecked(fast, exact, rows, block_size, axis)

    gram_rows, gram_columns = matmul.prepare(x, axis)
    gram_columns = collectives.spread((gram_columns, column_label), axis)

    def approximate(
        block: tuple[_Rows, matmul.Points],
    ) -> tuple[list[Counts], Bool[Array, "rows"]]:
        points, gram = block

        def flagged(
            tile: tuple[matmul.Points, Integer[Array, "m"]],
        ) -> UInt[Array, "rows m"]:
            codes = distances.code(matmul.squared_distances(gram, tile[0]))
            return distances.flagged(codes, points.label, tile[1])

        codes = collectives.everywhere(flagged, gram_columns)

        def about(
            radius: UInt[Array, "rows"], k: int
        ) -> tuple[Counts, Bool[Array, "rows"]]:
            r = distances.decode(radius)
            margin = 2 * matmul.error(gram, r)
            low = distances.code(jnp.maximum(r - margin, 0))
            high = distances.code(r + margin)
            counts = between(low, high, tiles.stored, codes, points, k)
            tied = (counts.same_tied > 1) | (counts.any_tied > 1) | (r <= 2 * margin)
            # Without an error ties are ties, as where all points coincide.
            return counts, tied & (margin > 0)

        radii = by_groups(tiles.stored, codes, points)
        found = [about(r, k) for r, k in zip(radii, ks, strict=True)]
        counts = [of_k for of_k, _ in found]
        doubtful = [doubtful for _, doubtful in found]
        return counts, reduce(jnp.logical_or, doubtful, _is_not_kth(counts))

    return tiles.map_rechecked(
        approximate, lambda block: exact(block[0]), (rows, gram_rows), block_size, axis
    )


def _along_axis(rows: _Rows, k: int, metric: Metric) -> Counts:
    """Counts in one feature."""
    values = rows.x[:, 0]
    within_class = sorting.axis(values, labels=rows.label)
    radius = sorting.kth_distances(within_class, rows.capped(k), k, metric)
    same = sorting.counts([within_class], radius, metric)
    any_class = sorting.counts([sorting.axis(values)], radius, metric)
    return _counts(radius, [*same, *any_class], rows, k)


def _searched(rows: _Rows, k: int, metric: Metric) -> Counts:
    """Counts in a few features."""
    x = Variable(rows.x)
    radius = boxes.kth_distances(x, rows.capped(k), k, metric, rows.label)

    def predicates(
        codes: UInt[Array, "*rows m"], limit: UInt[Array, "*rows #m"]
    ) -> list[Bool[Array, "*rows m"]]:
        return _closer_and_within(codes, limit, limit)

    counts = boxes.counts_within([x], radius, predicates, metric, rows.label)
    return _counts(radius, counts, rows, k)


def _closer_and_within(
    flagged: UInt[Array, "*rows m"],
    low: UInt[Array, "*rows #m"],
    high: UInt[Array, "*rows #m"],
) -> list[Bool[Array, "*rows m"]]:
    """Which codes are below low and which up to high: of the same class, of any."""
    any_class = flagged & ~distances.highest_bit(flagged)
    return [flagged < low, flagged <= high, any_class < low, any_class <= high]


def _counts(
    low: UInt[Array, "rows"],
    counts: Sequence[Int[Array, "rows"]],
    rows: _Rows,
    k: int,
) -> Counts:
    """Counts of other points, from those of `_closer_and_within`."""
    same_closer, same_within, any_closer, any_within = counts
    near = (
        *tiles.others(low, same_closer, same_within),
        *tiles.others(low, any_closer, any_within),
    )
    own_k = rows.capped(k)
    # A class of one member has no radius.
    return Counts(rows.class_size, own_k, *(jnp.where(own_k > 0, c, 0) for c in near))


def _is_not_kth(counts: Sequence[Counts]) -> Bool[Array, "n"]:
    """Whether a distance counted to is not that of the k-th of the same class.

    Too large, or rounded otherwise by the kernel that found it.
    """

    def wrong(c: Counts) -> Bool[Array, "n"]:
        within = c.same_closer + c.same_tied
        return (c.k > 0) & ((c.same_closer >= c.k) | (within < c.k))

    return reduce(jnp.logical_or, map(wrong, counts))


def _mutual_information(
    counts: Counts, dtype: Any, axis: AxisName, local: bool
) -> Float[Array, "*n"]:
    counted = counts.k > 0
    n = len(counts.k) * collectives.size(axis)
    # A class of one member has no radius; ones keep its unused terms finite.
    size, k_i, a, t_same, m0, t_any = (
        jnp.where(counted, c, 1).astype(dtype) for c in counts
    )
    rank = mean_digamma(m0, k_i - a, t_same, t_any)
    terms = digamma(k_i) - digamma(size) - rank
    mean = collectives.mean_or_each(terms, axis, local, where=counted)
    return digamma(jnp.asarray(n, dtype)) + mean
