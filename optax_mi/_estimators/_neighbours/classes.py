"""How many points are of each class, and the classes of several variables together."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Int, Integer

from optax_mi._estimators._neighbours import collectives
from optax_mi._types import AxisName


def sizes(labels: Integer[Array, "n"], axis: AxisName = None) -> Int[Array, "n"]:
    """The number of points of each point's class, itself included."""
    ordered = collectives.varying(jnp.sort(collectives.gather(labels, axis)), labels)
    first = jnp.searchsorted(ordered, labels, side="left")
    return jnp.searchsorted(ordered, labels, side="right") - first


def in_common(
    several: Sequence[Integer[Array, "n"]], axis: AxisName = None
) -> Integer[Array, "n"] | None:
    """Labels that are equal where those of all variables are; None of no variables."""
    if len(several) < 2:
        return several[0] if several else None
    return collectives.on_each(_numbered, several, axis)


def _numbered(*several: Integer[Array, "n"]) -> Int[Array, "n"]:
    order = jnp.lexsort(several)
    changes = [labels[order][1:] != labels[order][:-1] for labels in several]
    number = jnp.cumsum(jnp.any(jnp.stack(changes), axis=0))
    return jnp.zeros_like(order).at[order[1:]].set(number)
