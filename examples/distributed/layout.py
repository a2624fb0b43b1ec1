"""Which device has what: examples spread along one mesh axis, parameters as asked."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def in_a_row(devices: Sequence[Any]) -> Mesh:
    """A mesh of one axis."""
    return jax.make_mesh(
        (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def spread(mesh: Mesh, arrays: Any) -> Any:
    """Arrays [n, ...] that every process has, spread over all devices along n."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))

    def put(array: Any) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    return jax.tree.map(put, arrays)


def gathered(mesh: Mesh, params: Any) -> Any:
    """Parameters, all of them on every device, within `jit`.

    Left to itself XLA would cut activations the way of the parameters that make them.
    """
    return jax.lax.with_sharding_constraint(
        params, NamedSharding(mesh, PartitionSpec())
    )


def of_state(mesh: Mesh, shapes: Any, *, fsdp: bool) -> Any:
    """A copy of everything on every device; or shards of what is large enough.

    Fully sharded, an array is cut along the longest of its axes that the devices
    divide, and `gathered` where it is used.
    """

    def of(leaf: Any) -> NamedSharding:
        axes = [i for i, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not fsdp or not axes:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))

    return jax.tree.map(of, shapes)
