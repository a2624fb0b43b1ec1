"""Points that are spread over the devices along a mesh axis.

Each device has rows of its own. The columns that it compares them with come to it from
one device after the other, round a ring, so that none ever holds all of them. With an
axis of None the points are all here, and everything leaves them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, Real, Shaped

from optax_mi._types import AxisName, Index


class Shards(NamedTuple):
    """Columns of which each device has its own, a tree of arrays [..., m]."""

    own: Any
    axis: AxisName


def spread(columns: Any, axis: AxisName) -> Any:
    """Says of columns that they are this device's, where there are others."""
    return columns if axis is None else Shards(columns, axis)


def size(axis: AxisName) -> int:
    """The number of devices."""
    return 1 if axis is None else jax.lax.axis_size(axis)


def around(
    look: Callable[[Any], Any],
    columns: Any,
    combine: Callable[[Any, Any], Any],
    nothing: Callable[[Any], Any],
) -> Any:
    """Combines what `look` finds in the columns of each device, array by array.

    `nothing` gives the value of an array, of its dtype, before anything is found.
    """
    if not isinstance(columns, Shards):
        return look(columns)

    def step(_: Any, found: Any, shard: Any) -> Any:
        return jax.tree.map(combine, found, look(shard))

    shapes = jax.eval_shape(look, columns.own)
    start = jax.tree.map(lambda a: jnp.full(a.shape, nothing(a), a.dtype), shapes)
    return _pass_round(step, start, columns)


def everywhere(value: Callable[[Any], Any], columns: Shards) -> Any:
    """A function of columns at all of them, a tree of arrays [rows, m of all].

    Their order is another one on every device.
    """

    def step(i: Index, found: Any, shard: Any) -> Any:
        def put(
            values: Shaped[Array, "rows all"], own: Shaped[Array, "rows m"]
        ) -> Shaped[Array, "rows all"]:
            start = i * own.shape[1]
            return jax.lax.dynamic_update_slice_in_dim(values, own, start, axis=1)

        return jax.tree.map(put, found, value(shard))

    devices = size(columns.axis)
    shapes = jax.eval_shape(value, columns.own)
    start = jax.tree.map(
        lambda a: jnp.zeros((a.shape[0], devices * a.shape[1]), a.dtype), shapes
    )
    return _pass_round(step, start, columns)


def _pass_round(
    step: Callable[[Index, Any, Any], Any], state: Any, columns: Shards
) -> Any:
    """Folds the columns of each device onto a state, one's own first."""
    devices = size(columns.axis)
    to_next = [(i, (i + 1) % devices) for i in range(devices)]

    def pass_on(i: Index, carry: Any) -> Any:
        state, shard = carry
        # Nothing waits for what comes next, which can be on its way meanwhile. The last
        # sends for nothing, rather than be compiled once more.
        following = jax.lax.ppermute(shard, columns.axis, to_next)
        return step(i, state, shard), following

    carry = (varying(state, columns.own), columns.own)
    return jax.lax.fori_loop(0, devices, pass_on, carry)[0]


def varying(constants: Any, like: Any) -> Any:
    """Constants that count as different on devices where other arrays do.

    What a loop carries must be so from the start (`check_vma` of `jax.shard_map`), and
    a choice between equals is. Only there: it makes XLA compile a kernel otherwise, and
    under `vmap` distances were then rounded in two ways.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return constants
    corners = [a[(0,) * a.ndim] for a in jax.tree.leaves(like)]
    either = reduce(jnp.logical_and, [corner == corner for corner in corners])
    return jax.tree.map(lambda c: jnp.where(either, c, c), constants)


def total(values: Num[Array, "*shape"], axis: AxisName) -> Num[Array, "*shape"]:
    """The sum over the devices, elementwise."""
    return values if axis is None else jax.lax.psum(values, axis)


def largest(values: Real[Array, "*shape"], axis: AxisName) -> Real[Array, "*shape"]:
    """The maximum over the devices, elementwise."""
    return values if axis is None else jax.lax.pmax(values, axis)


def all_finite(values: Float[Array, "..."], axis: AxisName) -> Bool[Array, ""]:
    """Whether all numbers on all devices are finite."""
    finite = jnp.all(jnp.isfinite(values))
    return finite if axis is None else total((~finite).astype(int), axis) == 0


def mean(
    values: Float[Array, "n *d"],
    axis: AxisName,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, "*d"]:
    """The mean over the points of all devices, or those of a mask."""
    if axis is None:
        return jnp.mean(values, axis=0, where=where)
    number = jnp.asarray(len(values)) if where is None else jnp.sum(where)
    sums = total(jnp.sum(values, axis=0, where=where), axis)
    return sums / total(number, axis).astype(values.dtype)


def mean_or_each(
    terms: Float[Array, "n"],
    axis: AxisName,
    local: bool,
    where: Bool[Array, "n"] | None = None,
) -> Float[Array, "*n"]:
    """The mean of the points' terms, or each of them, NaN beyond the mask."""
    if not local:
        return mean(terms, axis, where)
    return terms if where is None else jnp.where(where, terms, jnp.nan)


def gather(values: Shaped[Array, "n *d"], axis: AxisName) -> Shaped[Array, "all *d"]:
    """The values of all devices on each of them."""
    if axis is None:
        return values
    n = len(values)
    nothing = jnp.zeros((n * size(axis), *values.shape[1:]), values.dtype)
    at = jax.lax.axis_index(axis) * n
    placed = jax.lax.dynamic_update_slice_in_dim(
        varying(nothing, values), values, at, 0
    )
    # A sum, unlike `all_gather`, counts as the same on all devices.
    return jax.lax.psum(placed, axis)


def on_each(
    fn: Callable[..., Any], arrays: Sequence[Shaped[Array, "n ..."]], axis: AxisName
) -> Any:
    """Applies fn to all points on every device, and keeps the results of its own.

    For what looks at few pairs of points of few features: there is little to send, and
    little to share out.
    """
    if axis is None:
        return fn(*arrays)

    def part(values: Shaped[Array, "all *d"]) -> Shaped[Array, "n *d"]:
        n = len(values) // size(axis)
        return jax.lax.dynamic_slice_in_dim(values, jax.lax.axis_index(axis) * n, n)

    return jax.tree.map(part, fn(*(gather(values, axis) for values in arrays)))
