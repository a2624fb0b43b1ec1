"""One compiled body for all layers of a shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from optax_mi._estimators._neighbours.distances import FEW_FEATURES

# Layers share a body with wider ones where that adds no more than this share to them:
# one is compiled in about a second, which pays for many measurements.
_WIDER = 1.5


def map_layers(
    estimate: Callable[[Float[Array, "n d"]], Any],
    layers: Sequence[Float[Array, "n _d"]],
    *,
    pad: bool = False,
) -> list[Any]:
    """Estimates of layers, in a loop over those that share a shape.

    What is compiled grows with the number of shapes, and not with that of layers. The
    loops run one after the other: what devices tell each other for one layer must not
    meet what they tell for another.

    Args:
      estimate: From a layer to a scalar, or to any array.
      layers: Arrays [n, d], of any numbers of features.
      pad: Whether features of zeros may be added to make shapes equal. Distances are
        the same to the last bit.
    """
    estimates: list[Any] = [None] * len(layers)
    done: Any = ()
    for shape, members in _groups(layers, pad).items():
        alike = [_padded(layers[i], shape[1]) for i in members]
        alike, done = jax.lax.optimization_barrier((alike, done))
        if len(alike) == 1:
            found = [estimate(alike[0])]
        else:
            found = list(_one_by_one(estimate, alike))
        done = found
        for i, value in zip(members, found, strict=True):
            estimates[i] = value
    return estimates


def _one_by_one(
    estimate: Callable[[Float[Array, "n d"]], Any], alike: Sequence[Float[Array, "n d"]]
) -> Any:
    """Estimates in a loop that copies a layer at a time, where a stack copies all."""

    def of(i: Any) -> Any:
        return estimate(jax.lax.switch(i, [lambda a=a: a for a in alike]))

    return jax.lax.map(of, jnp.arange(len(alike)))


def _groups(layers: Sequence[Float[Array, "n _d"]], pad: bool) -> dict[Any, list[int]]:
    """The layers of each shape, by number, the widest first."""
    groups: dict[Any, list[int]] = {}
    for i in sorted(range(len(layers)), key=lambda i: -layers[i].shape[1]):
        n, d = layers[i].shape
        wider = [
            shape
            for shape in groups
            if pad and d > FEW_FEATURES and shape[1] <= _WIDER * d
        ]
        width = wider[-1][1] if wider else d
        groups.setdefault((n, width, layers[i].dtype), []).append(i)
    return groups


def _padded(layer: Float[Array, "n d"], width: int) -> Float[Array, "n width"]:
    return jnp.pad(layer, [(0, 0), (0, width - layer.shape[1])])
