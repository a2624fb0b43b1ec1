"""The number of examples, and running a model on some of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from optax_mi import _checks
from optax_mi._selection import Selection

Axes: TypeAlias = tuple[int | None, ...]


def examples(
    inputs: Any, in_axes: Any, output_shape: Callable[[Any], tuple[int, ...]]
) -> tuple[int, Axes]:
    """The number of examples, and the axis that holds them in each array.

    Args:
      inputs: Arrays.
      in_axes: 0 or 1, or a prefix of inputs with 0, 1 and None.
      output_shape: Gives the shape of the model's output for these inputs, if needed.
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
        axes = [0 if shape and shape[0] in lengths else None for shape in shapes]
    else:
        axes = _axes(inputs, in_axes)
        own = [(s, a) for s, a in zip(shapes, axes, strict=True) if a is not None]
        lengths = {shape[axis] for shape, axis in own if axis < len(shape)}
        if len(lengths) > 1 or not all(axis < len(shape) for shape, axis in own):
            expected = "the axes of arrays with as many examples"
            _checks.fail("in_axes", expected, f"{in_axes} for shapes {shapes}")
        lengths = lengths or set(output_shape(inputs)[:1])
    if not lengths:
        _checks.fail("inputs", "arrays with examples along the first axis", shapes)
    return next(iter(lengths)), tuple(axes)


def _axes(inputs: Any, in_axes: Any) -> list[int | None]:
    def is_none(node: Any) -> bool:
        return node is None

    try:
        axes = jax.tree.broadcast(in_axes, inputs, is_leaf=is_none)
    except ValueError:
        _checks.fail("in_axes", "0, 1 or a prefix of `inputs` with 0, 1, None", in_axes)
    found = jax.tree.leaves(axes, is_leaf=is_none)
    if any(axis not in (None, 0, 1) for axis in found):
        _checks.fail("in_axes", "0, 1 or None for each array of `inputs`", in_axes)
    return found


def following(
    run: Any,
    inputs: Any,
    axes: Axes,
    n: int,
    others: int,
    selection: Selection,
) -> list[str]:
    """The layers of a selection whose length is the number of examples.

    Something that all examples share can have that length by chance. It is left out: it
    does not follow when there are `others` in place of the n examples.
    """
    leaves, structure = jax.tree.flatten(inputs)

    def shape(leaf: Any, axis: int | None) -> jax.ShapeDtypeStruct:
        lengths = list(jnp.shape(leaf))
        if axis is not None:
            lengths[axis] = others
        return jax.ShapeDtypeStruct(tuple(lengths), jnp.result_type(leaf))

    of_others = structure.unflatten(map(shape, leaves, axes))
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
    run: Any, inputs: Any, axes: Axes, n: int, selection: Selection, size: int
) -> dict[str, Shaped[Array, "n ..."]]:
    """The layers of all examples, `size` of which run through the model at a time."""
    names = tuple(following(run, inputs, axes, n, size, selection))
    leaves, structure = jax.tree.flatten(inputs)
    pairs = list(zip(leaves, axes, strict=True))
    # Of NumPy arrays a view.
    own = [leaf.swapaxes(0, axis) for leaf, axis in pairs if axis is not None]
    rest = [leaf for leaf, axis in pairs if axis is None]
    static, arrays = run.split()
    given = (arrays, rest), own
    options = _Options(type(run), static, structure, axes, names, size)
    traced = any(map(_checks.is_traced, jax.tree.leaves(given)))
    if not traced and all(isinstance(leaf, np.ndarray) for leaf in own):
        found = _from_host(*given, n, run.positions, options)
    else:
        found = _in_a_loop(*given, run.positions, options=options)
    return {name: found[name] for name in names}


class Same:
    """Something that cannot be hashed, such as a model with a list; equal to itself."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.held is other.held


def hashable(value: Any) -> Hashable:
    """A value that is compiled in, or a stand-in if it has no hash."""
    try:
        hash(value)
    except TypeError:
        return Same(value)
    return value


class _Options(NamedTuple):
    """What a batch is compiled for."""

    kind: Any
    static: Hashable
    structure: Hashable
    axes: Axes
    names: tuple[str, ...]
    size: int


@partial(jax.jit, static_argnames="options")
def _one(
    given: Any, own: list[Any], start: Any, *, options: _Options
) -> dict[str, Any]:
    """The layers of the batch that begins at `start`; compiled once for all batches."""
    arrays, rest = given
    of_examples, shared = iter(own), iter(rest)
    structure: Any = options.structure
    inputs = structure.unflatten(
        [
            next(shared) if axis is None else next(of_examples).swapaxes(0, axis)
            for axis in options.axes
        ]
    )
    run = options.kind.merged(options.static, arrays)
    return run(inputs, options.size, Selection(options.names), start)


def _from_host(
    given: Any, own: list[Any], n: int, positions: Any, options: _Options
) -> dict[str, Shaped[Array, "n ..."]]:
    """Sends one batch after the other to the device."""
    found: list[dict[str, Any]] = []
    at_positions: Any = None
    for first in range(0, n, options.size):
        # The last batch begins earlier, to be as long, and that part is dropped.
        start = min(first, n - options.size)
        batch = [leaf[start : start + options.size] for leaf in own]
        layers = _one(given, batch, np.int32(start), options=options)
        if positions is None:
            found.append({name: a[first - start :] for name, a in layers.items()})
        else:
            known = layers if at_positions is None else at_positions
            at_positions = positions.merged(known, layers, start, options.size)
    if positions is not None:
        return at_positions
    return {name: jnp.concatenate([each[name] for each in found]) for name in found[0]}


@partial(jax.jit, static_argnames="options")
def _in_a_loop(
    given: Any, own: list[Any], positions: Any, *, options: _Options
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

    def one(batch: list[Any], start: Any) -> dict[str, Any]:
        return _one(given, batch, start, options=options)

    starts = size * jnp.arange(batches)
    inputs = [split(leaf) for leaf in own]
    if positions is None:
        return jax.tree.map(
            join, jax.lax.map(lambda pair: one(*pair), (inputs, starts))
        )

    def merge(known: Any, pair: Any) -> tuple[Any, None]:
        return positions.merged(known, one(*pair), pair[1], size), None

    first = jax.eval_shape(one, [leaf[0] for leaf in inputs], starts[0])
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), first)
    return jax.lax.scan(merge, nothing, (inputs, starts))[0]
