"""Outputs of the modules of a Flax Linen model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn

_COLLECTION = "intermediates"  # where Flax's own capture_intermediates writes
_CALL = "__call__"


def intermediates(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wanted: Callable[[str], bool],
) -> Iterator[tuple[str, Any]]:
    """Runs the model and names what it stored."""
    root_method = kwargs.get("method") or _CALL
    root_method = getattr(root_method, "__name__", root_method)

    def is_wanted_call(module: nn.Module, method: str) -> bool:
        called = _CALL if module.path else root_method
        return method == called and wanted("/".join(module.path))

    # Where an earlier run's intermediates lie among the variables, `sow` would append
    # to them.
    variables = {name: v for name, v in variables.items() if name != _COLLECTION}
    _, state = model.apply(
        variables,
        inputs,
        *args,
        capture_intermediates=is_wanted_call,
        mutable=[_COLLECTION],
        **kwargs,
    )
    stored = dict(state.get(_COLLECTION) or {})
    if root_method in stored:
        stored[_CALL] = stored.pop(root_method)
    yield from _stored(stored)


def _stored(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Walks modules in the order in which they stored something (jax.tree sorts)."""
    for key, value in tree.items():
        name = path if key == _CALL else f"{path}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            yield from _stored(value, name)
        else:
            yield name, value
