"""Estimators of points that may be spread over the devices of a mesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from optax_mi import _checks
from optax_mi._estimators._neighbours import collectives
from optax_mi._types import AxisName


class Placement(NamedTuple):
    """Where points are: here, in the shards of a manual axis, or along a mesh's."""

    axis: AxisName = None
    mesh: Any = None  # None where the axis is one of `shard_map`


def over_points(estimate: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles an estimator, and runs it on every device that has some of the points.

    Args:
      estimate: From arrays [n / devices, ...] and keywords, `axis` among them, to what
        is the same on all devices; with `local`, to arrays [n / devices].

    Returns:
      The same of arrays [n, ...], `axis_name` in the place of `axis`.
    """

    def compiled(
        arrays: Sequence[Shaped[Array, "n ..."]],
        *,
        placement: Placement,
        options: tuple[tuple[str, Any], ...],
    ) -> Any:
        axis, mesh = placement
        own = partial(estimate, axis=axis, **dict(options))
        if mesh is None:
            return own(*arrays)
        by_rows = PartitionSpec(axis)
        out = by_rows if dict(options).get("local") else PartitionSpec()
        on_devices = jax.shard_map(own, mesh=mesh, in_specs=by_rows, out_specs=out)
        return on_devices(*_laid_out(arrays, NamedSharding(mesh, by_rows)))

    compiled.__name__ = estimate.__name__  # in what is traced and profiled
    compiled = jax.jit(compiled, static_argnames=("placement", "options"))

    @wraps(estimate)
    def run(
        *arrays: Shaped[Array, "n ..."], axis_name: AxisName, **options: Any
    ) -> Any:
        placement = place(arrays, axis_name)
        _check_even(len(arrays[0]), placement)
        return compiled(arrays, placement=placement, options=tuple(options.items()))

    return run


def place(arrays: Sequence[Shaped[Array, "n ..."]], axis_name: AxisName) -> Placement:
    """Finds out where points are, from the name of an axis or from their sharding."""
    known = [p for p in map(_sharded, arrays) if p.axis]
    if axis_name is None:
        return known[0] if known else Placement()
    if _is_manual(axis_name):
        return Placement(axis_name)
    meshes = [jax.sharding.get_abstract_mesh(), *(p.mesh for p in known)]
    for mesh in meshes:
        if set(_names(axis_name)) <= set(mesh.axis_names):
            return Placement(axis_name, mesh)
    names = sorted({name for mesh in meshes for name in mesh.axis_names})
    return _checks.fail(
        "axis_name",
        "an axis of `jax.shard_map` or of the mesh in force (`jax.set_mesh`)",
        f"{axis_name!r}; there are {names}" if names else f"{axis_name!r}; none is",
    )


def number_of_points(own: int, axis_name: AxisName) -> int:
    """The points of all devices, of which this one may have only its own."""
    return own * collectives.size(axis_name) if _is_manual(axis_name) else own


def _check_even(n: int, placement: Placement) -> None:
    axis, mesh = placement
    if mesh is not None:
        devices = math.prod(mesh.shape[name] for name in _names(axis))
        if n % devices:
            what = f"an axis of devices that divide the {n} samples"
            _checks.fail("axis_name", what, f"{axis!r}, of {devices}")


def _names(axis: AxisName) -> tuple[str, ...]:
    return (axis,) if isinstance(axis, str) else axis or ()


def _is_manual(axis: AxisName) -> bool:
    if axis is None:
        return False
    try:
        collectives.size(axis)
    except NameError:
        return False
    return True


def _sharded(array: Shaped[Array, "n ..."]) -> Placement:
    """Along which axes of which mesh the points of an array lie, as far as it says.

    Under `jit` only explicit axes of a mesh are known.
    """
    traced = _checks.is_traced(array)
    sharding = jax.typeof(array).sharding if traced else array.sharding
    if not isinstance(sharding, NamedSharding) or not sharding.spec:
        return Placement()
    axis = sharding.spec[0]
    if not axis or axis is PartitionSpec.UNCONSTRAINED:
        return Placement()
    return Placement(axis, sharding.mesh)


def _laid_out(
    arrays: Sequence[Shaped[Array, "n ..."]], sharding: NamedSharding
) -> list[Shaped[Array, "n ..."]]:
    """Lays arrays out as `shard_map` wants them where that does not do so itself."""
    explicit = all(kind == AxisType.Explicit for kind in sharding.mesh.axis_types)
    return [jax.sharding.reshard(a, sharding) if explicit else a for a in arrays]
