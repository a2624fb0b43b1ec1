"""Euclidean distances as one matrix product, and the rows where that is not enough.

|a - b|^2 = |a|^2 + |b|^2 - 2 ab is a matrix product: many times faster than differences
where features are many, and what accelerators are made for. Its rounding error is in
proportion to |a|^2 + |b|^2 however close a and b are, so that ties come out unequal.
The estimators therefore treat it as approximate: a row in which more points than the
k-th neighbour itself lie within the error of the k-th distance is doubtful, and
`blocks.redo` counts it again with direct distances.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from optax_mi._estimators._neighbours import collectives, distances
from optax_mi._types import AxisName, Metric


def applies(features: int, metric: Metric) -> bool:
    """Whether a variable of so many features is measured by a product."""
    return metric == "euclidean" and features > distances.FEW_FEATURES


class Points(NamedTuple):
    """Points of a matrix product."""

    x: Float[Array, "n d"]  # centred
    squared: Float[Array, "n"]  # |x|^2
    largest: Float[Array, "n"]  # the largest |x|^2 of all


def prepare(x: Float[Array, "n d"], axis: AxisName = None) -> tuple[Points, Points]:
    """Points as rows, and padded as columns, far from everything.

    Columns that a product is taken with stay rows of numbers: it takes all of them at
    once, and for a transposed array XLA would copy it back in every block.
    """
    # The error is in proportion to the norms, so they are kept as small as they can be.
    highest = collectives.largest(jnp.max(x, axis=0), axis)
    lowest = -collectives.largest(jnp.max(-x, axis=0), axis)
    # A mean of equal numbers is rounded; without it those of a dead unit are zeros.
    x = jnp.where(highest == lowest, 0, x - collectives.mean(x, axis)[None])
    squared = jnp.sum(x * x, axis=1)
    # Not infinite: differences of it would be NaN.
    far = float(jnp.finfo(x.dtype).max) / 4
    largest = jnp.full_like(squared, collectives.largest(jnp.max(squared), axis))
    rows = Points(x, squared, largest)
    columns = Points(
        distances.pad_points(x, 0),
        distances.pad_points(squared, far),
        distances.pad_points(largest, 0),
    )
    return rows, columns


def squared_distances(rows: Points, columns: Points) -> Float[Array, "rows m"]:
    """Approximate squared distances, never negative."""
    product = jax.lax.dot_general(
        rows.x,
        columns.x,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
    )
    norms = rows.squared[:, None] + columns.squared[None]
    return jnp.maximum(norms - 2 * product, 0)


def error(rows: Points, squared: Float[Array, "rows"]) -> Float[Array, "rows"]:
    """Bounds the error of the squared distances near a given one, per row.

    A point at distance r from a has a norm of at most |a| + r, and of at most the
    largest of all. Rounding errors add up like a random walk over the features. On
    an AMD EPYC they came to 0.46 of this for 784 of them; `tests/test_matmul.py` holds
    what is measured to half.
    """
    other = (jnp.sqrt(rows.squared) + jnp.sqrt(squared)) ** 2
    scale = rows.squared + jnp.minimum(other, rows.largest)
    return jnp.finfo(scale.dtype).eps * (16 + rows.x.shape[1] ** 0.5 / 2) * scale
