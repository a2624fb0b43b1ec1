"""Outputs of the modules of a Flax NNX model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from flax import nnx

_OUTPUT = "output_of_call"  # what modules are made to sow


def intermediates(
    model: nnx.Module,
    inputs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wants: Callable[[str], bool],
    classes: dict[str, type],
) -> Iterator[tuple[str, Any]]:
    """Runs a copy of the model in evaluation mode and names what it stored.

    The classes of its modules are added to `classes`.
    """
    copy = nnx.clone(model)
    copy.eval()
    modules = {p: m for p, m in nnx.iter_graph(copy) if isinstance(m, nnx.Module)}
    del modules[()]  # what it returns needs no sowing
    for path, module in modules.items():
        # A recurrent network carries its cell through a scan, as it was before it.
        in_cell = any(
            isinstance(modules.get(path[:i]), nnx.RNN) for i in range(len(path))
        )
        classes[_name(path)] = type(module)
        if wants(_name(path)) and not in_cell:
            # Of this one module alone, and inherited calls too; `nnx.capture` would
            # rewrite the methods of the class, for everyone who uses it.
            object.__setattr__(module, "__class__", _sowing(type(module)))

    output, stored = _run(copy, inputs, args, kwargs)
    for path, sown in jax.tree_util.tree_leaves_with_path(
        stored, is_leaf=lambda node: isinstance(node, nnx.Variable)
    ):
        *module, last = (key.key for key in path)
        name = _name(module if last == _OUTPUT else [*module, last])
        yield name, sown.get_value() if hasattr(sown, "get_value") else sown.value
    yield "", output


def _run(model: nnx.Module, inputs: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    if hasattr(nnx, "capture"):
        return nnx.capture(model, nnx.Intermediate)(inputs, *args, **kwargs)
    # Flax before 0.12.5, where `sow` stored in the module itself.
    output = model(inputs, *args, **kwargs)
    return output, nnx.pop(model, nnx.Intermediate)


@functools.cache
def _sowing(cls: type[nnx.Module]) -> type[nnx.Module]:
    """A subclass of the same name, whose instances sow the output of each call."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = cls.__call__(self, *args, **kwargs)
        self.sow(nnx.Intermediate, _OUTPUT, output)
        return output

    return type(cls.__name__, (cls,), {"__call__": __call__})


def _name(path: Any) -> str:
    return "/".join(map(str, path))
