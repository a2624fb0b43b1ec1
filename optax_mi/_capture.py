"""What each layer of a Flax model says about the probe."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from optax_mi import _checks

Layers: TypeAlias = str | Sequence[str] | Callable[[str], bool] | None

_COLLECTION = "intermediates"  # where Flax's own capture_intermediates writes
_CALL = "__call__"


def capture_activations(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Any,
    *args: Any,
    layers: Layers = None,
    **kwargs: Any,
) -> dict[str, jax.Array]:
    """Runs a Flax Linen model once and returns the activations of its layers.

    Every submodule's output is captured, with no change to the model, and so are the
    values that the model itself stores with ``self.sow("intermediates", name, value)``.
    A layer's name is its path of module names joined by "/" (``Conv_0``,
    ``block_1/Dense_0``); a sown value's name is appended to its module's. The model's
    own output has the name "". The outputs of a module called several times are
    numbered in order (``Dense_0/0``, ``Dense_0/1``), and so are the arrays of a module
    that returns several.

    The model runs as ``model.apply(variables, inputs, *args, **kwargs)`` with no
    collection but the intermediates mutable: parameters and batch statistics are not
    touched. Pass what makes the model deterministic, such as ``train=False``. It may
    be called within ``jax.jit``; there, only the layers asked for are computed.

    Args:
      model: A ``flax.linen.Module``.
      variables: The model's variables, ``{"params": ..., ...}``.
      inputs: The probe's inputs, examples along the first axis.
      *args: Further positional arguments of the model.
      layers: Which to return: a name, a sequence of names, or a predicate on the name.
        By default all whose first axis is the examples.
      **kwargs: Keyword arguments for ``model.apply``: the model's own, ``rngs``, and
        ``method``, whose output then has the name "".

    Returns:
      ``{name: array [n, ...]}``, in the order in which the model produced them; in the
      order of `layers` where that is a sequence.

    Raises:
      ValueError: If nothing was captured, a name is unknown, or an array asked for does
        not have the examples along its first axis.

    Cost: one forward pass over the probe; the memory of the activations returned.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> import optax_mi
      >>> model = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(10)])
      >>> x = jnp.ones((100, 4))
      >>> variables = model.init(jax.random.key(0), x)
      >>> acts = optax_mi.capture_activations(model, variables, x)
      >>> {name: a.shape for name, a in acts.items()}
      {'layers_0': (100, 16), 'layers_2': (100, 10), '': (100, 10)}
    """
    if not isinstance(model, nn.Module):
        _checks.fail("model", "a flax.linen.Module", type(model).__name__)
    for name in ("mutable", "capture_intermediates"):
        if name in kwargs:
            _checks.fail("kwargs", f"without {name!r}, which is set here", name)
    names = [layers] if isinstance(layers, str) else layers
    if isinstance(names, Sequence):
        names = list(names)
    found = _intermediates(model, variables, inputs, args, kwargs, _wanted(names))

    n = _examples(inputs)
    if names is None:
        found = {name: a for name, a in found.items() if _has_examples(a, n)}
    elif callable(names):
        found = {name: a for name, a in found.items() if names(name)}
    else:
        missing = [name for name in names if name not in found]
        if missing:
            everything = jax.eval_shape(
                lambda: _intermediates(model, variables, inputs, args, kwargs, _all)
            )
            _checks.fail("layers", f"among {sorted(everything)}", missing)
        found = {name: found[name] for name in names}
    if not found:
        _checks.fail(
            "layers",
            "satisfied by at least one array with the examples along its first axis "
            '(sown values are seen in the collection "intermediates" alone: `sow` '
            "stores nothing in a collection that is not mutable)",
            "an empty capture",
        )
    for name, array in found.items():
        if not _has_examples(array, n):
            _checks.fail(
                f"layers[{name!r}]",
                f"an array with the {n} examples along its first axis",
                f"shape {jnp.shape(array)}",
            )
    return found


def _all(name: str) -> bool:
    return True


def _wanted(names: list[str] | Callable[[str], bool] | None) -> Callable[[str], bool]:
    if names is None or callable(names):
        return _all
    # A numbered output ("Dense_0/1") is stored under its module's name ("Dense_0").
    numbered = (name.rpartition("/") for name in names)
    modules = {module for module, _, last in numbered if last.isdigit()}
    return lambda name: name in names or name in modules


def _intermediates(
    model: nn.Module,
    variables: Mapping[str, Any],
    inputs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wanted: Callable[[str], bool],
) -> dict[str, Any]:
    """Runs the model and names what it stored, keeping what is wanted."""
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
    named: dict[str, Any] = {}
    stored = dict(state.get(_COLLECTION) or {})
    if root_method in stored:
        stored[_CALL] = stored.pop(root_method)
    for name, sown in _stored(stored):
        if wanted(name):
            named.update(_numbered(name, sown))
    return named


def _stored(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Walks modules in the order in which they stored something (jax.tree sorts)."""
    for key, value in tree.items():
        name = path if key == _CALL else f"{path}/{key}".lstrip("/")
        if isinstance(value, Mapping):
            yield from _stored(value, name)
        else:
            yield name, value


def _numbered(name: str, sown: Any) -> dict[str, Any]:
    arrays = jax.tree.leaves(sown)
    if len(arrays) == 1:
        return {name: arrays[0]}
    return {f"{name}/{i}".lstrip("/"): array for i, array in enumerate(arrays)}


def _examples(inputs: Any) -> int:
    """The number of examples: the first axis of the first input that has one."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not any(shapes):
        _checks.fail("inputs", "arrays with examples along the first axis", shapes)
    return next(shape[0] for shape in shapes if shape)


def _has_examples(array: Any, n: int) -> bool:
    return getattr(array, "ndim", 0) > 0 and array.shape[0] == n
