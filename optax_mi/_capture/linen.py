"""Outputs of the modules of a Flax Linen model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn

_COLLECTION = "intermediates"  # where models sow by themselves
_CALL = "__call__"


def intermediates(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wants: Callable[[str], bool],
    classes: dict[str, type],
) -> Iterator[tuple[str, Any]]:
    """Runs the model and names what it stored and what it returned.

    The classes of the modules that were called are added to `classes`.
    """
    running = set()

    def keep(
        call: Callable[..., Any],
        args: Any,
        kwargs: Any,
        context: nn.module.InterceptorContext,
    ) -> Any:
        module, path = context.module, context.module.path
        # Of nested calls, as by `super().__call__`, only the outermost is captured.
        is_call = context.method_name == _CALL and path and path not in running
        name = "/".join(path)
        if not (is_call and wants(name)):
            return call(*args, **kwargs)
        classes[name] = type(module)
        running.add(path)
        try:
            output = call(*args, **kwargs)
        finally:
            running.discard(path)
        module.sow(_COLLECTION, _CALL, output)
        return output

    # Where an earlier run's intermediates lie among the variables, `sow` would append
    # to them.
    variables = {name: v for name, v in variables.items() if name != _COLLECTION}
    with nn.intercept_methods(keep):
        output, state = model.apply(
            variables, inputs, *args, mutable=[_COLLECTION], **kwargs
        )
    yield from _stored(state.get(_COLLECTION) or {})
    yield "", output


def _stored(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Walks modules in the order in which they stored something (jax.tree sorts)."""
    for key, value in tree.items():
        name = path if key == _CALL else f"{path}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            yield from _stored(value, name)
        else:
            yield name, value
