"""The activations of a Flax model's layers for the probe."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from optax_mi import _batches, _checks
from optax_mi._capture import linen
from optax_mi._positions import Positions
from optax_mi._selection import Layers, Selection

if TYPE_CHECKING:
    from flax import nnx

    Model: TypeAlias = nn.Module | nnx.Module
else:
    Model = Any  # a Linen user need not wait for NNX to be imported


def capture_activations(
    model: Model,
    variables: Mapping[str, Any] | None,
    inputs: Any,
    *args: Any,
    layers: Layers = None,
    max_features: int | None = None,
    batch_size: int | None = None,
    in_axes: Any = 0,
    positions: Positions | None = None,
    **kwargs: Any,
) -> dict[str, Shaped[Array, "n ..."]]:
    """Runs a Flax model once and returns the activations of its layers.

    The output of every submodule is captured, without a change to the model. So are
    values that the model itself stores with ``self.sow("intermediates", name, value)``
    (in NNX ``self.sow(nnx.Intermediate, name, value)``). Their names are these:

    - A layer: its path of module names, joined by "/" (``Conv_0``, ``block_1/Dense_0``,
      ``layers/0``). A sown value: its own name after that of its module.
    - The model's own output: "".
    - Several arrays returned by one module: their key, field or number after the
      module's name (``heads/logits``, ``Dense_0/1``), or alone if the model itself
      returns them (``logits``).
    - The outputs of a module called several times are numbered in order. So are the
      layers of a scan, stacked [layers, n, ...]. (``flax.linen.scan`` keeps what they
      store if ``variable_axes`` has ``"intermediates": 0``.)

    A Linen model runs as ``model.apply(variables, inputs, *args, **kwargs)``. Only the
    intermediates are mutable, so parameters and batch statistics do not change. Pass
    what makes the model deterministic, such as ``train=False``.

    Of an NNX model a copy in evaluation mode (``model.eval()``) runs, as ``copy(inputs,
    *args, **kwargs)``. Cells of recurrent networks are not captured. If modules are
    called within ``nnx.cond`` or ``nnx.fori_loop``, name only the others in `layers`.

    Both work within ``jax.jit``, where only the layers asked for are computed.

    Args:
      model: A ``flax.linen.Module`` or a ``flax.nnx.Module``.
      variables: The Linen model's variables, ``{"params": ..., ...}``; None for NNX.
      inputs: The probe's inputs, examples along the first axis.
      *args: Further positional arguments of the model, the same for all examples.
      layers: Which layers to return: one of the following, or a sequence of them.

        - a name;
        - a pattern, in which ``*`` stands for anything but "/" and ``**`` for anything
          (``"block_*/out"``);
        - a compiled regular expression, searched for in the name;
        - a class, for the outputs of its modules;
        - a number, for names of at most that many parts;
        - a predicate on the name.

        By default all; of more than 20, only the outermost blocks and the model's
        output, with a warning. Arrays without the examples along their first axis are
        left out, unless asked for by name.
      max_features: Layers of more features, such as convolutions' outputs of tens of
        thousands, are projected to this many random combinations of them (random
        signs, fixed seed). This keeps distances to a relative error of about
        ``1 / sqrt(2 max_features)`` (Achlioptas 2003), and the information as far as
        distances show it. That of a few features among many of pure noise is lost.
      batch_size: Examples that run through the model at a time, in a compiled loop that
        keeps only the layers returned. NumPy inputs stay on the host except for the
        current batch. By default all examples run at once. If the model takes several
        arrays, put all into `inputs` and give `method`, such as
        ``lambda model, x: model(x["tokens"], x["lengths"])``.
      in_axes: Which arrays of `inputs` hold examples, as in ``jax.vmap``: 0, or a
        pytree of 0 and None, such as ``{"x": 0, "anchors": None}`` if all examples
        share some. By default those as long as the model's output. With None for all,
        as for a graph, the model's output gives the number of examples. 1 is for
        recurrent networks whose first axis is time: layers [t, n, ...] are returned as
        [n, t, ...].
      positions: Positions of sequences or images, as `sample_positions` draws them. The
        rows of the result are then these, [size, ...], in place of the examples. Layers
        of images on a coarser grid give the cell that holds the position. Layers
        without the grid are left out, unless asked for by name, and so are those of one
        number for each position ([n, t]).
      **kwargs: Keyword arguments for ``model.apply``: the model's own, ``rngs``, and
        ``method``, whose output then has the name "". For NNX the model's own.

    Returns:
      ``{name: array [n, ...]}``, or ``[size, ...]`` with `positions`. In the order of
      `layers` if that is a sequence. Otherwise in the order in which Linen calls the
      modules (blocks of ``nn.remat`` and ``nn.jit`` come last), or in that of NNX's
      state. ``jax.jit`` sorts by name.

    Raises:
      ValueError: If the model is of neither kind, nothing was captured, a name is
        unknown, a pattern fits none, an array asked for by name does not have the
        examples along its first axis, or the number of examples cannot be determined.

    Cost: one forward pass over the probe; memory for the activations returned, and for
    all activations of the examples that run at a time.

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
    selection = Selection(layers)
    for name, number in (("max_features", max_features), ("batch_size", batch_size)):
        if number is not None:
            _checks.positive_integer(name, number)
    _check_model(model, variables, kwargs)
    run = _Run(model, variables, args, kwargs, max_features, positions)
    n, axes = _batches.examples(inputs, in_axes, run.output_shape)
    run = run._replace(second=1 in axes)
    if in_axes != 0 and 0 < axes.count(None) < len(axes):
        names = _batches.following(run, inputs, axes, n, n + 1, selection)
        selection = Selection(names)
    if batch_size is None or batch_size >= n:
        return run(inputs, n, selection)
    for leaf in jax.tree.leaves((args, kwargs)):
        if _has_examples(leaf, n):
            expected = "no array of examples where they run in batches: put all into "
            expected += "`inputs`, with method=lambda model, x: model(x[0], x[1])"
            _checks.fail("args", expected, f"shape {leaf.shape}")
    return _batches.captured(run, inputs, axes, n, selection, batch_size)


class _Run(NamedTuple):
    """A model with all its arguments except the inputs."""

    model: Any
    variables: Mapping[str, Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    max_features: int | None
    positions: Positions | None
    second: bool = False  # whether examples lie along the second axis

    def __call__(
        self, inputs: Any, n: int, selection: Selection, first: Any = 0
    ) -> dict[str, Shaped[Array, "n ..."]]:
        """The layers of a selection, in its order, for n examples from `first` on."""
        # Otherwise XLA would compute with a closed-over probe while it compiles.
        inputs = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, inputs))
        found, classes = self.named(inputs, n, selection)
        if missing := [name for name in selection.names if name not in found]:
            everything = Selection(None)
            known = jax.eval_shape(lambda: self.named(inputs, n, everything)[0])
            expected = f"among {sorted(known)}"
            if "" in missing:
                own = jax.eval_shape(lambda: self.named(inputs, n, Selection(()))[0])
                expected += f"; the model has several outputs, {list(own)}"
            _checks.fail("layers", expected, missing)
        for name in selection.names:
            if not self._is_wanted(found[name], n, scalars=True):
                grid = "" if self.positions is None else f" x {self.positions.grid}"
                _checks.fail(
                    f"layers[{name!r}]",
                    f"an array with the {n}{grid} examples along its first axis",
                    f"shape {jnp.shape(found[name])}",
                )
        found = {
            name: a
            for name, a in found.items()
            if self._is_wanted(a, n, scalars=name in selection.names)
        }
        chosen = selection.of(found, classes)
        if not chosen:
            _checks.fail(
                "layers",
                "satisfied by at least one array with the examples along its first "
                'axis (sown values are seen in the collection "intermediates" alone: '
                "`sow` stores nothing in a collection that is not mutable)",
                "an empty capture",
            )
        if self.positions is not None:
            chosen = {name: self.positions.of(a, first) for name, a in chosen.items()}
        if self.max_features is None:
            return chosen
        return {name: _project(a, self.max_features) for name, a in chosen.items()}

    def named(
        self, inputs: Any, n: int, selection: Selection
    ) -> tuple[dict[str, Any], dict[str, type]]:
        """All arrays that are stored for a selection, and the classes of modules."""
        named: dict[str, Any] = {}
        stored, classes = self._stored(inputs, selection)
        for name, value in stored.items():
            named.update(_by_key(name, value, n, self.second))
        return named, classes

    def _is_wanted(self, array: Any, n: int, scalars: bool) -> bool:
        if not _has_examples(array, n):
            return False
        return self.positions is None or self.positions.in_shape(array.shape, scalars)

    def split(self) -> tuple[Hashable, Any]:
        """What is compiled in, and the arrays that are given to what is compiled."""
        model, variables = self.model, self.variables
        if not isinstance(model, nn.Module):
            from flax import nnx

            model, variables = nnx.split(model)
        leaves, structure = jax.tree.flatten((self.args, self.kwargs))
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        rest = tuple(
            None if a else _batches.hashable(leaf)
            for a, leaf in zip(is_array, leaves, strict=True)
        )
        given = [leaf for a, leaf in zip(is_array, leaves, strict=True) if a]
        model = _batches.hashable(model)
        static = model, structure, rest, self.max_features, self.second
        return static, (variables, given, self.positions)

    @classmethod
    def merged(cls, static: Any, arrays: Any) -> "_Run":
        """The inverse of `split`."""
        model, structure, rest, max_features, second = static
        model, *rest = (
            a.held if isinstance(a, _batches.Same) else a for a in (model, *rest)
        )
        variables, given, positions = arrays
        if not isinstance(model, nn.Module):
            from flax import nnx

            model, variables = nnx.merge(model, variables), None
        arrays = iter(given)
        leaves = [next(arrays) if leaf is None else leaf for leaf in rest]
        args, kwargs = structure.unflatten(leaves)
        return cls(model, variables, args, kwargs, max_features, positions, second)

    def output_shape(self, inputs: Any) -> tuple[int, ...]:
        """The shape of the first array of the model's output."""
        output = jax.eval_shape(lambda: self._stored(inputs, Selection(()))[0][""])
        return jax.tree.leaves(output)[0].shape

    def _stored(
        self, inputs: Any, selection: Selection
    ) -> tuple[dict[str, Any], dict[str, type]]:
        classes: dict[str, type] = {}
        rest = self.args, self.kwargs, selection.wants, classes
        if isinstance(self.model, nn.Module):
            known = self.variables or {}
            stored = linen.intermediates(self.model, known, inputs, *rest)
        else:
            from optax_mi._capture import nnx

            stored = nnx.intermediates(self.model, inputs, *rest)
        return dict(stored), classes


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
    """Projects examples with more features to so many."""
    flat = jnp.asarray(array).reshape(len(array), -1)
    if flat.shape[1] <= features:
        return array
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        flat = flat.astype(jnp.float32)
    shape = (flat.shape[1], features)
    signs = jax.random.rademacher(jax.random.key(0), shape, flat.dtype)
    product = jnp.matmul(flat, signs, precision=jax.lax.Precision.HIGHEST)
    return product / jnp.sqrt(jnp.asarray(features, flat.dtype))


def _by_key(name: str, stored: Any, n: int, second: bool) -> dict[str, Any]:
    """The arrays that a module has stored, by its name and their own keys."""
    if name and isinstance(stored, tuple) and len(stored) == 1:
        stored = stored[0]  # of the only call
    leaves = jax.tree_util.tree_leaves_with_path(stored)
    named: dict[str, Any] = {}
    for path, array in leaves:
        keys = [str(_key(part)) for part in path] if len(leaves) > 1 else []
        own = "/".join([name, *keys]).lstrip("/")
        in_second = jnp.ndim(array) > 1 and array.shape[1] == n
        if second and in_second:
            named[own] = jnp.swapaxes(array, 0, 1)
        elif in_second and not _has_examples(array, n):
            # A scan over layers has stacked what each of them returned.
            named |= {f"{own}/{i}".lstrip("/"): a for i, a in enumerate(array)}
        else:
            named[own] = array
    return named


def _key(part: Any) -> Any:
    """A key of a mapping, the name of a field, or a number."""
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return part


def _has_examples(array: Any, n: int) -> bool:
    return getattr(array, "ndim", 0) > 0 and array.shape[0] == n
