"""Positions of sequences and grids as the points of an estimate, not whole examples."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Int, PRNGKeyArray, Shaped

from optax_mi import _arrays, _checks
from optax_mi._types import Numeric


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["index", "outcomes"],
    meta_fields=["grid"],
)
@dataclasses.dataclass(frozen=True)
class Positions:
    """Positions drawn once and measured on throughout training."""

    index: Int[Array, "size axes"]  #: the example, and the place within it
    outcomes: Numeric[Array, "size ..."]  #: of the positions; integers are classes
    grid: tuple[int, ...]  #: how many places an example has along each axis

    def in_shape(self, shape: tuple[int, ...], scalars: bool) -> bool:
        """Whether an array [n, ...] has the positions, or coarser cells of them.

        Args:
          shape: Of the array.
          scalars: Whether it may hold one number for each position. That cannot be told
            from n vectors with as many features.
        """
        axes = len(self.grid)
        own = shape[1 : 1 + axes]
        if own == self.grid:
            return scalars or len(shape) > axes + 1
        # Of a sequence, an axis of another length need not be a coarser one.
        if axes < 2 or len(shape) != axes + 2 or 0 in own:
            return False
        scales = {divmod(g, o) for g, o in zip(self.grid, own, strict=True)}
        return len(scales) == 1 and scales.pop()[1] == 0

    def of(
        self, array: Shaped[Array, "n ..."], first: Any = 0
    ) -> Shaped[Array, "size ..."]:
        """The positions' rows of an array that begins with the example `first`.

        Rows of other examples are 0.
        """
        example, *places = self.index.T
        shape = array.shape[1 : 1 + len(self.grid)]
        cells = [
            place * have // of
            for place, have, of in zip(places, shape, self.grid, strict=True)
        ]
        here = self.within(first, len(array))
        rows = array[(jnp.where(here, example - first, 0), *cells)]
        return jnp.where(_column(here, rows), rows, jnp.zeros_like(rows))

    def within(self, first: Any, n: int) -> Bool[Array, "size"]:
        """Which positions lie in n examples from the `first` on."""
        example = self.index[:, 0]
        return (example >= first) & (example < first + n)

    def merged(self, known: Any, batch: Any, first: Any, n: int) -> Any:
        """Rows of a batch at the positions that lie in it, and known rows elsewhere."""
        here = self.within(first, n)
        return jax.tree.map(
            lambda old, new: jnp.where(_column(here, new), new, old), known, batch
        )


def _column(mask: Bool[Array, "size"], rows: Shaped[Array, "size ..."]) -> Any:
    return mask.reshape(-1, *[1] * (rows.ndim - 1))


def sample_positions(
    key: PRNGKeyArray,
    outcomes: Numeric[ArrayLike, "n ..."],
    size: int = 1000,
    *,
    mask: Shaped[ArrayLike, "n ..."] | None = None,
) -> Positions:
    """Draws positions of sequences or images, uniformly and without replacement.

    For outcomes of each position, not of each example: the next token, a tag, a
    pixel's class. Each position is then a point of the estimate, with its outcome and
    the layer's features there. Pass the result to
    ``capture_activations(..., positions=)`` and its outcomes to `estimate_mi`.

    Estimates assume independent points. Positions of one sequence are not independent,
    so draw few from each: rather from 200 sequences than from 10.

    Args:
      key: A JAX random key.
      outcomes: True outcomes of the probe's positions, [n, t] or [n, h, w], as
        ``probe.outcomes``. Integers are classes.
      size: Number of positions.
      mask: True (or not 0) at positions, False at padding, shape [n, t] or [n, h, w].
        If outcomes have a further axis (real vectors, [n, t, c]), the mask also says
        which axes are positions; by default all are.

    Returns:
      Positions(index, outcomes, grid), a pytree.

    Raises:
      ValueError: If outcomes have no axis of positions, the mask is traced or does not
        have the shape of their first axes, or there are fewer positions than `size`.

    Cost: the number of positions, for a permutation.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
      >>> import optax_mi
      >>> tokens = np.random.default_rng(0).integers(1, 5, (60, 12))
      >>> tokens[:, 8:] = 0                                     # padding
      >>> model = nn.Sequential([nn.Embed(5, 8), nn.Dense(8), nn.relu])
      >>> variables = model.init(jax.random.key(0), tokens)
      >>> positions = optax_mi.sample_positions(
      ...     jax.random.key(1), tokens, size=300, mask=tokens != 0)
      >>> layers = optax_mi.capture_activations(
      ...     model, variables, tokens, positions=positions)
      >>> {name: a.shape for name, a in layers.items()}
      {'layers_0': (300, 8), 'layers_1': (300, 8), '': (300, 8)}
      >>> mi = optax_mi.estimate_mi(layers, positions.outcomes)
      >>> bool(mi[""] > 1.3)                                        # log 4 = 1.39
      True
    """
    values = _checks.numbers("outcomes", outcomes)
    _checks.positive_integer("size", size)
    shape = jnp.shape(values if mask is None else _arrays.as_array(mask))
    if len(shape) < 2:
        expected = "with an axis of positions, [n, t] or [n, h, w]"
        name = "outcomes" if mask is None else "mask"
        _checks.fail(name, expected, f"shape {shape}")
    if shape != values.shape[: len(shape)]:
        expected = f"as the first axes of `outcomes`, {values.shape}"
        _checks.fail("mask", expected, f"shape {shape}")
    if _checks.is_traced(mask):
        _checks.fail("mask", "known when the positions are drawn", "a traced array")
    places = (
        np.arange(np.prod(shape)) if mask is None else np.flatnonzero(np.asarray(mask))
    )
    if size > len(places):
        expected = f"at most the number of positions, {len(places)}"
        _checks.fail("size", expected, size)
    chosen = jax.random.choice(key, jnp.asarray(places), (size,), replace=False)
    index = jnp.unravel_index(chosen, shape)
    if isinstance(values, np.ndarray) and not _checks.is_traced(index):
        values = values[tuple(map(np.asarray, index))]
        drawn = _arrays.outcomes_on_device("outcomes", values)
    else:
        drawn = jnp.asarray(values)[index]
    _checks.no_coded_classes("outcomes", drawn)
    return Positions(jnp.stack(index, axis=1), drawn, shape[1:])
