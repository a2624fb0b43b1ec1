"""What each layer of a Flax model says about the probe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from optax_mi import _capture_linen, _checks

if TYPE_CHECKING:
    from flax import nnx

    Model: TypeAlias = nn.Module | nnx.Module
else:
    Model = Any  # a Linen user need not wait for NNX to be imported

Layers: TypeAlias = str | Sequence[str] | Callable[[str], bool] | None


def capture_activations(
    model: Model,
    variables: Mapping[str, Any] | None,
    inputs: Any,
    *args: Any,
    layers: Layers = None,
    max_features: int | None = None,
    **kwargs: Any,
) -> dict[str, Shaped[Array, "n ..."]]:
    """Runs a Flax model once and returns the activations of its layers.

    Every submodule's output is captured, with no change to the model, and so are the
    values that the model itself stores with ``self.sow("intermediates", name, value)``
    (in NNX ``self.sow(nnx.Intermediate, name, value)``). A layer's name is its path of
    module names joined by "/" (``Conv_0``, ``block_1/Dense_0``, ``layers/0``); a sown
    value's name is appended to its module's. The model's own output has the name "".
    The outputs of a module called several times are numbered in order (``Dense_0/0``,
    ``Dense_0/1``), and so are the arrays of a module that returns several, and the
    layers of a scan, stacked [layers, n, ...]. (``flax.linen.scan`` keeps what they
    store if ``variable_axes`` has ``"intermediates": 0``.)

    A Linen model runs as ``model.apply(variables, inputs, *args, **kwargs)`` with no
    collection but the intermediates mutable: parameters and batch statistics are not
    touched. Pass what makes it deterministic, such as ``train=False``. Of an NNX model
    a copy in evaluation mode (``model.eval()``) runs, ``copy(inputs, *args,
    **kwargs)``; cells of recurrent networks are not captured, and of modules called
    within ``nnx.cond`` or ``nnx.fori_loop`` name the others in `layers`. Either may be
    called within ``jax.jit``; there, only the layers asked for are computed.

    Args:
      model: A ``flax.linen.Module`` or a ``flax.nnx.Module``.
      variables: The Linen model's variables, ``{"params": ..., ...}``; None for NNX.
      inputs: The probe's inputs, examples along the first axis.
      *args: Further positional arguments of the model.
      layers: Which to return: a name, a sequence of names, or a predicate on the name.
        By default all whose first axis is the examples.
      max_features: Replaces a layer of more features by so many random combinations of
        them (signs at random, from a fixed seed), which keeps distances to a relative
        error of about ``1 / sqrt(2 max_features)`` (Achlioptas 2003). For convolutions'
        outputs of tens of thousands of features. Information is kept as far as it shows
        in distances: what a few features hold among many of pure noise is lost.
      **kwargs: Keyword arguments for ``model.apply``: the model's own, ``rngs``, and
        ``method``, whose output then has the name "". For NNX the model's own.

    Returns:
      ``{name: array [n, ...]}``, in the order of `layers` where that is a sequence, and
      otherwise in that in which Linen calls modules (blocks of ``nn.remat`` and
      ``nn.jit`` come last), or in that of NNX's state. ``jax.jit`` sorts by name.

    Raises:
      ValueError: If the model is of neither kind, nothing was captured, a name is
        unknown, or an array asked for does not have the examples along its first axis.

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
    names = [layers] if isinstance(layers, str) else layers
    if isinstance(names, Sequence):
        names = list(names)
    if max_features is not None:
        _checks.positive_integer("max_features", max_features)

    _check_model(model, variables, kwargs)
    n = _examples(inputs)

    def intermediates(wanted: Callable[[str], bool]) -> dict[str, Any]:
        if isinstance(model, nn.Module):
            stored = _capture_linen.intermediates(
                model, variables or {}, inputs, args, kwargs, wanted
            )
        else:
            from optax_mi import _capture_nnx

            stored = _capture_nnx.intermediates(model, inputs, args, kwargs, wanted)
        named: dict[str, Any] = {}
        for name, sown in stored:
            if wanted(name):
                named.update(_numbered(name, sown, n))
        return named

    found = intermediates(_wanted(names))
    if names is None:
        found = {name: a for name, a in found.items() if _has_examples(a, n)}
    elif callable(names):
        found = {name: a for name, a in found.items() if names(name)}
    else:
        missing = [name for name in names if name not in found]
        if missing:
            everything = jax.eval_shape(lambda: intermediates(_all))
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
    if max_features is None:
        return found
    return {name: _project(array, max_features) for name, array in found.items()}


def _check_model(model: Any, variables: Any, kwargs: Mapping[str, Any]) -> None:
    is_nnx = _is_nnx(model)
    if not is_nnx and not isinstance(model, nn.Module):
        _checks.fail(
            "model", "a flax.linen.Module or flax.nnx.Module", type(model).__name__
        )
    if is_nnx != (variables is None):
        expected = "None for an NNX model" if is_nnx else "a Linen model's variables"
        _checks.fail("variables", expected, type(variables).__name__)
    for name in ("mutable", "capture_intermediates"):
        if name in kwargs and not is_nnx:
            _checks.fail("kwargs", f"without {name!r}, which is decided here", name)


def _is_nnx(model: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")  # not imported: there is no such model
    return nnx is not None and isinstance(model, nnx.Module)


def _project(array: Shaped[Array, "n ..."], features: int) -> Shaped[Array, "n ..."]:
    """Projects examples to so many features where they have more."""
    flat = jnp.asarray(array).reshape(len(array), -1)
    if flat.shape[1] <= features:
        return array
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        flat = flat.astype(jnp.float32)
    shape = (flat.shape[1], features)
    signs = jax.random.rademacher(jax.random.key(0), shape, flat.dtype)
    product = jnp.matmul(flat, signs, precision=jax.lax.Precision.HIGHEST)
    return product / jnp.sqrt(jnp.asarray(features, flat.dtype))


def _all(name: str) -> bool:
    return True


def _wanted(names: list[str] | Callable[[str], bool] | None) -> Callable[[str], bool]:
    if names is None or callable(names):
        return _all
    # A numbered output ("Dense_0/1") is stored under its module's name ("Dense_0").
    numbered = (name.rpartition("/") for name in names)
    modules = {module for module, _, last in numbered if last.isdigit()}
    return lambda name: name in names or name in modules


def _numbered(name: str, sown: Any, n: int) -> dict[str, Any]:
    arrays = []
    for array in jax.tree.leaves(sown):
        # A scan over layers has stacked what each of them said.
        stacked = jnp.ndim(array) > 1 and not _has_examples(array, n)
        arrays.extend(array if stacked and array.shape[1] == n else [array])
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
