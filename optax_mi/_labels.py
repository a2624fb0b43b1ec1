"""Which layer's measurement a group of parameters follows.

Layers are named by the path of their module, its names joined by "/". The label of a
group is such a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax

from optax_mi import _checks


def match(
    labels: Iterable[str],
    layers: Iterable[str],
    *,
    default: str | None = None,
    argument: str,
    every_layer: bool,
) -> dict[str, str]:
    """The layer that each group of parameters follows, by label.

    The first rule that applies decides:

    1. The layer whose path is the label.
    2. The layer whose path is the longest beginning of the label.
    3. The default layer, if one is given.
    4. The model's own output, "", if other groups have a layer by rule 1 or 2, or if it
       is the only layer. (The last layer cannot be used in its place, as the order is
       unknown: ``jax.jit`` sorts the keys of a mapping.)

    Args:
      labels: Of the groups.
      layers: The measured layers, or the names of another mapping.
      default: The layer for groups without one of their own.
      argument: The name of the argument that holds the layers.
      every_layer: Whether each layer must have a group, except the one of rule 3 or 4.

    Raises:
      ValueError: If no rule applies to a group, a layer that must have a group has
        none, the default layer is missing, or layers are numbered whose parameters are
        shared (stacked by a scan, or called several times).
    """
    labels, layers = sorted(set(labels)), list(layers)
    if default is not None and default not in layers:
        expected = f"a mapping with the layer of `default`, {default!r}, in it"
        _checks.fail(argument, expected, layers)
    own = {label: _longest_prefix(label, layers) for label in labels}
    for label in labels:
        if own[label] is None and (stacks := _stacks(label, layers)):
            stack, *_ = stacks  # the outermost
            _checks.fail(
                argument,
                f"a mapping with one value for {stack!r}, whose layers share their "
                f"parameters (stacked by a scan, or called several times): give "
                f"{argument}[{stack!r}], such as their mean, and leave out what is "
                "numbered",
                sorted(name for s in stacks for name in stacks[s]),
            )
    fallback = "" if default is None else default
    without_layer = [n for n in labels if own[n] is None and fallback not in layers]
    without_group = [
        n
        for n in layers
        if n != fallback and not any(_is_prefix(n, label) for label in labels)
    ]
    if default is None and len(layers) > 1 and not any(own.values()):
        without_layer = labels  # by mistake: all would follow the model's output
    if without_layer or (every_layer and without_group):
        _checks.fail(
            argument,
            f"a mapping from layers that the labels of parameters, {labels}, belong to "
            "(`default` names the layer that the others follow; for a mi_dynamic_lr "
            "within optax.partition `layer` names its own)",
            f"{layers} ({without_layer or without_group} without a counterpart)",
        )
    return {label: fallback if name is None else name for label, name in own.items()}


def _longest_prefix(label: str, layers: Iterable[str]) -> str | None:
    prefixes = (name for name in layers if _is_prefix(name, label))
    return max(prefixes, key=len, default=None)


def _stacks(label: str, layers: Iterable[str]) -> dict[str, list[str]]:
    """Layers named by a beginning of a label and a number that the label does not have.

    By that beginning, the shortest first.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(layers, key=len):
        stack, _, number = name.rpartition("/")
        if number.isdecimal() and stack and _is_prefix(stack, label):
            rest = label[len(stack) + 1 :].partition("/")[0]
            if not rest.isdecimal():
                found.setdefault(stack, []).append(name)
    return found


def module_paths(params: Any) -> Any:
    """A tree like params, with the paths of the modules that hold them."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(_module_path(path)), params
    )


def _module_path(path: Sequence[Any]) -> list[str]:
    # The last of the keys is the parameter's own name. Around it NNX has the variable
    # that holds the value, and Linen the collection of all parameters.
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    return names[1 if names[:1] == ["params"] else 0 : -1]


def _is_prefix(name: str, label: str) -> bool:
    return label == name or label.startswith(name + "/")
