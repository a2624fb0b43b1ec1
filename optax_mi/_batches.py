"""How many examples there are, and models run on some of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from optax_mi import _checks
from optax_mi._selection import Selection


def examples(
    inputs: Any, in_axes: Any, output_shape: Callable[[Any], tuple[int, ...]]
) -> tuple[int, list[bool]]:
    """The number of examples, and for each array whether all examples share it.

    Args:
      inputs: Arrays.
      in_axes: 0, or a prefix of inputs with 0 and None.
      output_shape: What the model returns for these inputs, where that is needed.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if isinstance(in_axes, int) and in_axes == 0:
        lengths = {shape[0] for shape in shapes if shape}
        if len(lengths) > 1:
            found = output_shape(inputs)
            lengths = lengths & set(found[:1])
            if not lengths:
                _checks.fail(
                    "in_axes",
                    "given, such as {'x': 0, 'anchors': None}: no input is as long as "
                    f"the model's output of shape {found}",
                    f"inputs of shapes {shapes}",
                )
        shared = [not shape or shape[0] not in lengths for shape in shapes]
    else:
        shared = _shared(inputs, in_axes)
        own = [shape for shape, s in zip(shapes, shared, strict=True) if not s]
        lengths = {shape[0] for shape in own if shape}
        if len(lengths) > 1 or not all(own):
            _checks.fail("in_axes", "0 for arrays of one length alone", own)
    if not lengths:
        _checks.fail("inputs", "arrays with examples along the first axis", shapes)
    return next(iter(lengths)), shared


def _shared(inputs: Any, in_axes: Any) -> list[bool]:
    def is_none(node: Any) -> bool:
        return node is None

    try:
        axes = jax.tree.broadcast(in_axes, inputs, is_leaf=is_none)
    except ValueError:
        _checks.fail("in_axes", "0 or a prefix of `inputs` with 0 and None", in_axes)
    found = jax.tree.leaves(axes, is_leaf=is_none)
    if any(axis is not None and axis != 0 for axis in found):
        _checks.fail("in_axes", "0 or None for each array of `inputs`", in_axes)
    return [axis is None for axis in found]


def following(
    run: Any,
    inputs: Any,
    shared: list[bool],
    n: int,
    others: int,
    selection: Selection,
) -> list[str]:
    """The layers of a selection that are as long as there are examples.

    What is as long by chance, as something that all examples share, is not so where
    the examples are fewer or more.
    """
    leaves, structure = jax.tree.flatten(inputs)

    def shape(leaf: Any, is_shared: bool) -> jax.ShapeDtypeStruct:
        kept = jnp.shape(leaf) if is_shared else (others, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(kept, jnp.result_type(leaf))

    of_others = structure.unflatten(map(shape, leaves, shared))
    stored = jax.eval_shape(lambda x: run.named(x, others, selection)[0], of_others)
    lengths = {name: array.shape[:1] for name, array in stored.items()}
    names: list[str] = []

    def chosen(inputs: Any) -> None:
        names.extend(run(inputs, n, selection))  # in their order

    jax.eval_shape(chosen, inputs)
    by_chance = {name for name in names if lengths.get(name) != (others,)}
    if asked := by_chance & set(selection.names):
        expected = "arrays of examples, and not of what all examples share"
        _checks.fail("layers", expected, sorted(asked))
    return [name for name in names if name not in by_chance]


def captured(
    run: Any,
    inputs: Any,
    shared: list[bool],
    n: int,
    selection: Selection,
    size: int,
) -> dict[str, Shaped[Array, "n ..."]]:
    """The layers of all examples, of which `size` run through the model at a time."""
    names = tuple(following(run, inputs, shared, n, size, selection))
    leaves, structure = jax.tree.flatten(inputs)
    own = [leaf for leaf, s in zip(leaves, shared, strict=True) if not s]
    rest = [leaf for leaf, s in zip(leaves, shared, strict=True) if s]
    static, arrays = run.split()
    given = (arrays, rest), own
    options = _Options(type(run), static, structure, tuple(shared), names, size)
    traced = any(map(_checks.is_traced, jax.tree.leaves(given)))
    if not traced and all(isinstance(leaf, np.ndarray) for leaf in own):
        found = _from_host(*given, n, options)
    else:
        found = _in_a_loop(*given, options=options)
    return {name: found[name] for name in names}


class _Options(NamedTuple):
    """What a batch is compiled for."""

    kind: Any
    static: Hashable
    structure: Hashable
    shared: tuple[bool, ...]
    names: tuple[str, ...]
    size: int


@partial(jax.jit, static_argnames="options")
def _one(given: Any, own: list[Any], *, options: _Options) -> dict[str, Any]:
    """The layers of one batch; compiled once for all batches and measurements."""
    arrays, rest = given
    parts = {True: iter(rest), False: iter(own)}
    structure: Any = options.structure
    inputs = structure.unflatten([next(parts[s]) for s in options.shared])
    run = options.kind.merged(options.static, arrays)
    return run(inputs, options.size, Selection(options.names))


def _from_host(
    given: Any, own: list[Any], n: int, options: _Options
) -> dict[str, Shaped[Array, "n ..."]]:
    """Sends one batch after the other to the device."""
    found: list[dict[str, Any]] = []
    for first in range(0, n, options.size):
        # The last batch begins earlier, to be as long, and that part is dropped.
        start = min(first, n - options.size)
        batch = [leaf[start : start + options.size] for leaf in own]
        layers = _one(given, batch, options=options)
        found.append({name: a[first - start :] for name, a in layers.items()})
    return {name: jnp.concatenate([each[name] for each in found]) for name in found[0]}


@partial(jax.jit, static_argnames="options")
def _in_a_loop(
    given: Any, own: list[Any], *, options: _Options
) -> dict[str, Shaped[Array, "n ..."]]:
    """Runs one batch after the other in a compiled loop.

    The last is filled up with copies of the first example, whose activations are
    dropped.
    """
    n, size = len(own[0]), options.size
    batches = -(-n // size)

    def split(leaf: Any) -> Shaped[Array, "batches size ..."]:
        whole = jnp.concatenate([leaf, leaf[:1].repeat(batches * size - n, axis=0)])
        return whole.reshape(batches, size, *leaf.shape[1:])

    def join(stacked: Any) -> Shaped[Array, "n ..."]:
        return stacked.reshape(batches * size, *stacked.shape[2:])[:n]

    one = partial(_one, given, options=options)
    return jax.tree.map(join, jax.lax.map(one, [split(leaf) for leaf in own]))
