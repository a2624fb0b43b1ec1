"""Which layer a rate follows, as its state carries it.

`record_mi` sees the state alone, so the state carries the names that its rates were
given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax  # pyright: ignore[reportMissingTypeStubs]

from optax_mi import _checks
from optax_mi._state import DefaultLayerState, LayerState

(_OF_LAYER,), (_BY_DEFAULT,) = LayerState._fields, DefaultLayerState._fields


def partition_labels(path: Sequence[Any]) -> tuple[str, ...]:
    """The labels of the `optax.partition`s around a state, the outermost first."""
    return tuple(key for _, key in _keys(path, "inner_states"))


def _keys(path: Sequence[Any], field: str) -> list[tuple[int, str]]:
    """The keys of dictionaries in a field of that name, and their positions."""
    return [
        (i, str(inner.key))
        for i, (outer, inner) in enumerate(zip(path, path[1:], strict=False))
        if getattr(outer, "name", None) == field
        and isinstance(inner, jax.tree_util.DictKey)
    ]


class Place(NamedTuple):
    """Where a rate's state lies, which tells what the rate follows."""

    partition: tuple[Any, ...]  # the way to the innermost `optax.partition`
    labels: tuple[str, ...]  # see `partition_labels`
    layer: str | None  # that `mi_dynamic_lr` was given
    default: str | None  # that `layerwise_mi_dynamic_lr` was given


def place(path: Sequence[Any]) -> Place:
    """The place of a state, from the path to it."""
    partition = max((i for i, _ in _keys(path, "inner_states")), default=0)
    layers, defaults = (
        [key for _, key in _keys(path, field)] for field in (_OF_LAYER, _BY_DEFAULT)
    )
    return Place(
        partition=tuple(path[:partition]),
        labels=partition_labels(path),
        layer=layers[-1] if layers else None,
        default=defaults[-1] if defaults else None,
    )


def carrying(
    kind: type[LayerState] | type[DefaultLayerState],
    name: Any,
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """A transformation whose state carries the name of a layer, if there is one.

    The name is the key of a dictionary: whatever stores or compiles a state can handle
    that.
    """
    if name is None:
        return inner
    (field,) = kind._fields
    argument = {_OF_LAYER: "layer", _BY_DEFAULT: "default"}[field]
    if not isinstance(name, str):
        _checks.fail(argument, "a string", _checks.described(name))

    def init_fn(params: optax.Params) -> Any:
        return kind({name: inner.init(params)})

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        names = list(state[0]) if isinstance(state, kind) else []
        if names != [name]:
            got = f"{argument}={names[0]!r}" if names else f"no {argument}"
            expected = f"of a transformation with {argument}={name!r}"
            _checks.fail("state", expected, f"that of one with {got}")
        held = state[0][name]
        updates, held = inner.update(updates, held, params, **extra_args)
        return updates, kind({name: held})

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
