"""Points in order of place: a few consecutive ones, a leaf, lie in a compact box.

For a leaf of queries only those leaves are visited whose box comes within a bound of
the distances that matter. Boxes only tell which points need no look, with a tolerance
for rounding; points are looked at by the same operations as where all pairs are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from optax_mi._estimators._neighbours import distances, sorting
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._types import Metric

# How much closer than its points a box is taken to be, relatively.
_TOLERANCE = 1e-5


class Sizes(NamedTuple):
    """How much is done at a time."""

    leaf: int  # points of a leaf
    batch: int  # leaves of queries that are worked on at once
    visited: int  # leaves that each of them visits at a time


class Leaves(NamedTuple):
    """Points in L leaves, the last one empty. D is the number of all features."""

    position: Int[Array, "L leaf"]  # into the original order; n for padding
    points: Float[Array, "L D leaf"]  # padding infinite
    low: Float[Array, "L D"]  # the boxes
    high: Float[Array, "L D"]
    label: Integer[Array, "L leaf"] | None

    @property
    def empty(self) -> int:
        """The index of the empty leaf."""
        return len(self.position) - 1

    def of(self, values: Shaped[Array, "n"], fill: Any = 0) -> Shaped[Array, "L leaf"]:
        """Values of the points as those of leaves."""
        return jnp.append(values, jnp.asarray(fill, values.dtype))[self.position]


def build(
    variables: Sequence[Variable],
    size: int,
    labels: Integer[Array, "n"] | None = None,
) -> Leaves:
    """Orders the points of several variables, side by side, into leaves.

    With labels, points of equal ones come one after the other, and all but one leaf
    between two labels have a single one.
    """
    x = jnp.concatenate([v.x for v in variables], axis=1)
    n, d = x.shape
    position = _order(x, size, labels)
    leaves = -(-n // size) + 1
    position = jnp.pad(position, (0, leaves * size - n), constant_values=n)
    position = position.reshape(leaves, size)
    points = jnp.concatenate([x, jnp.full((1, d), jnp.inf, x.dtype)])[position]
    built = Leaves(
        position,
        points.transpose(0, 2, 1),
        low=jnp.min(points, axis=1),
        high=jnp.max(jnp.where(points < jnp.inf, points, -jnp.inf), axis=1),
        label=None,
    )
    return built if labels is None else built._replace(label=built.of(labels))


def _order(
    x: Float[Array, "n D"], size: int, labels: Integer[Array, "n"] | None
) -> Int[Array, "n"]:
    """Sorts by one feature after the other, each time within slices of the last one.

    A slice begins and ends between leaves, or where the label changes.
    """
    n, d = x.shape
    place = jnp.arange(n)
    if labels is None:
        # The order of this axis may be wanted elsewhere: it is then sorted once.
        position = sorting.order(x[:, 0])
        start, end = jnp.zeros_like(place), jnp.full_like(place, n)
    else:
        labels, position = sorting.order_within(labels, x[:, 0], place)
        start, end = sorting.groups_of(labels)
    for f in range(1, d):
        leaves = -(-(end - start) // size)
        slices = jnp.round(leaves ** (1 / (d - f + 1))).astype(place.dtype)
        length = -(-leaves // jnp.maximum(slices, 1)) * size
        first = start // size * size
        begin = first + (place - first) // length * length
        start, end = jnp.maximum(start, begin), jnp.minimum(end, begin + length)
        _, position = sorting.order_within(start, x[position, f], position)
    return position


class Distance(NamedTuple):
    """The distance in the space of several variables, as codes."""

    variables: Sequence[tuple[slice, Float[Array, ""] | float]]  # features, unit
    metric: Metric

    def codes(
        self,
        points: Float[Array, "rows D"],
        columns: Float[Array, "D m"],
        tolerance: float = 1.0,
    ) -> Int[Array, "rows m"]:
        """Codes of the distances of points from columns."""
        codes = [
            distances.codes_from(
                points[:, features], columns[features], self.metric, unit * tolerance
            )
            for features, unit in self.variables
        ]
        return reduce(jnp.maximum, codes)

    def between(
        self, leaves: Leaves, q: Int[Array, "B"], index: Int[Array, "B V"]
    ) -> Int[Array, "V B leaf leaf"]:
        """Codes of the points of leaves q from those of the leaves of an index.

        Where labels differ they are farther than all others.
        """

        def of_pair(own: Any, other: Any) -> Int[Array, "leaf leaf"]:
            codes = self.codes(own[0].T, other[0])
            if leaves.label is None:
                return codes
            return distances.among_label(codes, own[1], other[1])

        def of(index: Int[Array, "..."]) -> Any:
            return jax.tree.map(lambda a: a[index], (leaves.points, leaves.label))

        return jax.vmap(jax.vmap(of_pair), in_axes=(None, 0))(of(q), of(index.T))

    def least(self, leaves: Leaves, q: Int[Array, "B"]) -> Int[Array, "B L"]:
        """Codes no larger than those of the points of q from any leaf's."""

        def of_leaf(low: Float[Array, "D"], high: Float[Array, "D"]) -> Int[Array, "L"]:
            low, high = low[None], high[None]
            gap = jnp.maximum(jnp.maximum(leaves.low - high, low - leaves.high), 0)
            return self.codes(jnp.zeros_like(gap[:1]), gap.T, 1 - _TOLERANCE)[0]

        return jax.vmap(of_leaf)(leaves.low[q], leaves.high[q])


def distance(variables: Sequence[Variable], metric: Metric) -> Distance:
    """The distance in the space of the variables that leaves were built of."""
    ends = np.cumsum([v.x.shape[1] for v in variables])
    features = [
        slice(int(end) - v.x.shape[1], int(end))
        for end, v in zip(ends, variables, strict=True)
    ]
    units = [v.unit for v in variables]
    return Distance(list(zip(features, units, strict=True)), metric)


def in_batches(
    fn: Callable[[Int[Array, "B"]], Any],
    leaves: Leaves,
    order: Int[Array, "queries"],
    size: int,
) -> Any:
    """Applies fn to indices of leaves, so many of them at a time."""
    batches = jnp.pad(order, (0, -len(order) % size), constant_values=leaves.empty)
    found = jax.lax.map(fn, batches.reshape(-1, size))

    def join(values: Shaped[Array, "batches B *d"]) -> Shaped[Array, "queries *d"]:
        return values.reshape(-1, *values.shape[2:])[: len(order)]

    return jax.tree.map(join, found)


def visiting(
    fn: Callable[[Int[Array, "B"]], Any],
    near: Callable[[Int[Array, "B"]], Bool[Array, "B L"]],
    leaves: Leaves,
    n: int,
    size: int,
) -> Any:
    """Applies fn, which visits the leaves in a mask, to all points.

    Args:
      fn: From indices of leaves [B] to values [B, leaf].
      near: From indices of leaves [B] to the leaves that they visit, a mask [B, L].
      leaves: All of them.
      n: Number of points.
      size: Leaves of a batch.

    Returns:
      Values [n], in the original order of the points.
    """
    ones = jnp.ones(leaves.empty + 1)
    # By a product, since XLA sums along the last axis one by one on a CPU.
    numbers = in_batches(
        lambda q: jnp.matmul(near(q), ones), leaves, jnp.arange(leaves.empty), size
    )
    # A batch takes as long as the one of its leaves that visits most others.
    order = jnp.argsort(numbers)
    position = leaves.position[order].reshape(-1)

    def unordered(values: Shaped[Array, "leaves leaf"]) -> Shaped[Array, "n"]:
        padding_last = jnp.zeros(n + 1, values.dtype)
        return padding_last.at[position].set(values.reshape(-1))[:n]

    return jax.tree.map(unordered, in_batches(fn, leaves, order, size))


def visit(
    mask: Bool[Array, "B L"],
    look: Callable[[Int[Array, "B V"]], Any],
    step: Callable[[Any, Any], Any],
    state: Any,
    at_a_time: int,
) -> Any:
    """Folds what `look` finds in the leaves of a mask, some at a time."""
    index = jax.vmap(lambda own: _members(own, at_a_time))(mask)
    most = jnp.max(jnp.sum(mask, axis=1))

    def fold(carry: Any) -> Any:
        start, state = carry
        visited = jax.lax.dynamic_slice_in_dim(index, start, at_a_time, axis=1)
        return start + at_a_time, step(state, look(visited))

    carry = (jnp.zeros_like(most), state)
    return jax.lax.while_loop(lambda carry: carry[0] < most, fold, carry)[1]


def _members(mask: Bool[Array, "L"], more: int) -> Int[Array, "members"]:
    """The indices in a mask, then some of the last, empty leaf."""
    empty = len(mask) - 1
    # Sums of the ones before each by products with a triangle, far faster on a CPU than
    # `jnp.cumsum` and so than `jnp.nonzero`.
    width = int(len(mask) ** 0.5) + 1
    groups = jnp.pad(mask, (0, width * width - len(mask))).reshape(width, width)
    upto = jnp.asarray(np.triu(np.ones((width, width), np.float32)))
    precision = jax.lax.Precision.HIGHEST
    within = jnp.matmul(groups.astype(upto.dtype), upto, precision=precision)
    size = within[:, -1]
    before = jnp.matmul(size, upto, precision=precision) - size
    rank = (before[:, None] + within).astype(jnp.int32).reshape(-1)[: len(mask)] - 1
    room = len(mask) + more
    index = jnp.full(room, empty)
    return index.at[jnp.where(mask, rank, room)].set(jnp.arange(len(mask)), mode="drop")
