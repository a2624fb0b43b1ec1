"""Distances from a block of points to others, held as integers with the same order.

A distance is held as its `code`, the integer with the same bits: for numbers >= 0 it
has the same order. Distances only ever meet distances taken by the same metric
within the same variable, so any increasing function of the metric will do, and the
Euclidean one stays squared. They are accumulated over the features in one fixed order:
rows that coincide are at exactly equal distances, and counts of `<` and `<=` against a
neighbour's distance need no tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Num, Shaped

from optax_mi import _checks
from optax_mi._estimators._neighbours import caches, collectives
from optax_mi._types import AxisName, Index, Metric

METRICS: tuple[Metric, ...] = ("euclidean", "chebyshev", "manhattan")

# Up to this many features the loop over them is written out, and distances are cheap
# enough to be taken again in every pass; a longer loop is unrolled by as many.
FEW_FEATURES = 16

# Columns are padded to a multiple of this many points.
ALIGNMENT = 1024

# Largest magnitude after `rescale`, as a power of two. Squares of differences, summed
# over 2^20 features and 2^20 samples, stay below the largest float32; differences down
# to 2e-31 of the largest value keep a square that does not underflow.
_LARGEST_EXPONENT = 40


class Variable(NamedTuple):
    """Points of a variable, and the factor of its distances."""

    x: Float[Array, "n d"]
    unit: Float[Array, ""] | float = 1.0


def check_options(metric: Metric, block_size: int | None) -> None:
    """Checks the options that every neighbour estimator takes."""
    _checks.one_of("metric", metric, METRICS)
    if block_size is not None:
        _checks.positive_integer("block_size", block_size)


def rescale(x: Float[Array, "n d"], axis: AxisName = None) -> Float[Array, "n d"]:
    """Multiplies x by the power of two that keeps squared distances representable.

    A power of two changes no mantissa: ties stay ties and every comparison of two
    distances comes out as before.
    """
    return times_power_of_two(x, scale_exponent(x, axis))


def times_power_of_two(
    x: Float[Array, "n d"], exponent: Int[Array, "*#shape"]
) -> Float[Array, "n d"]:
    """Multiplies x by 2 ** exponent, which may be beyond the largest float."""
    first, second = powers_of_two(exponent, x.dtype)
    return x * first * second


def powers_of_two(
    exponent: Int[Array, "*shape"], dtype: Any
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Two factors whose product is 2 ** exponent, as that may be out of range.

    They are written by their bits. `ldexp` of each number would take ten times as long;
    of the factors alone it compiles to powers, in several kernels.
    """
    info = jnp.finfo(dtype)
    signed = jnp.int64 if info.bits == 64 else jnp.int32
    exponent = exponent.astype(signed)
    first = jnp.clip(exponent, info.minexp, info.maxexp - 1)
    parts = first, jnp.clip(exponent - first, info.minexp, info.maxexp - 1)
    both = [(part + info.maxexp - 1) << info.nmant for part in parts]
    first, second = (jax.lax.bitcast_convert_type(bits, dtype) for bits in both)
    return first, second


def scale_exponent(x: Float[Array, "n d"], axis: AxisName = None) -> Int[Array, ""]:
    """The power of two by which `rescale` multiplies."""
    _, exponent = jnp.frexp(collectives.largest(jnp.max(jnp.abs(x)), axis))
    return _LARGEST_EXPONENT - exponent


def pad_points(values: Shaped[Array, "n *d"], fill: ArrayLike) -> Shaped[Array, "m *d"]:
    """Pads the first axis, the points, to a multiple of `ALIGNMENT`."""
    padding = [(0, -len(values) % ALIGNMENT)] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, padding, constant_values=fill)


def as_columns(x: Float[Array, "n d"]) -> Float[Array, "d m"]:
    """Points as features; the m - n points of padding lie at infinity."""
    padded = pad_points(x, jnp.inf)
    if x.shape[1] > FEW_FEATURES:
        return padded.T
    # Of a transpose XLA would leave the numbers where they are and call rows columns;
    # the values of a feature would not lie side by side. So they are looked up.
    m, d = padded.shape
    return padded.reshape(-1)[np.arange(d)[:, None] + d * np.arange(m)[None]]


def distances(
    points: Float[Array, "rows d"], columns: Float[Array, "d m"], metric: Metric
) -> Float[Array, "rows m"]:
    """Distances of points from columns; Euclidean ones come squared."""
    d = len(columns)

    def of(part: Float[Array, "d part"]) -> Float[Array, "rows part"]:
        def add_feature(
            f: Index, total: Num[Array, "rows part"]
        ) -> Num[Array, "rows part"]:
            difference = part[None, f] - points[:, f, None]
            if metric == "euclidean":
                return total + difference * difference
            if metric == "manhattan":
                return total + jnp.abs(difference)
            # The larger of two codes is twice as fast as the larger of two floats,
            # which must look out for NaN.
            return jnp.maximum(total, code(jnp.abs(difference)))

        zeros = jnp.zeros((len(points), part.shape[1]), part.dtype)
        total = collectives.varying(zeros, (points, part))
        total = code(total) if metric == "chebyshev" else total
        if d <= FEW_FEATURES:
            for f in range(d):
                total = add_feature(f, total)
        else:
            total = jax.lax.fori_loop(0, d, add_feature, total, unroll=FEW_FEATURES)
        return decode(total) if metric == "chebyshev" else total

    # Features that are added at a time stay in the first cache (docs/performance.md).
    size = caches.first() // FEW_FEATURES
    return of(columns) if d <= FEW_FEATURES else _in_parts(of, columns, size)


def _in_parts(
    of: Callable[[Float[Array, "d part"]], Float[Array, "rows part"]],
    columns: Float[Array, "d m"],
    size: int,
) -> Float[Array, "rows m"]:
    """Applies a function to so many columns at a time, where they can be divided."""
    m = columns.shape[1]
    if m % size or m == size:
        return of(columns)

    def put(i: Index, carry: Any) -> Any:
        part, found = carry
        found = jax.lax.dynamic_update_slice_in_dim(found, of(part), i * size, axis=1)
        return jax.lax.dynamic_slice_in_dim(columns, (i + 1) * size, size, 1), found

    shape = jax.eval_shape(of, columns)
    nothing = collectives.varying(jnp.zeros(shape.shape, shape.dtype), columns)
    return jax.lax.fori_loop(0, m // size, put, (columns[:, :size], nothing))[1]


def code(distance: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """The integer with the bits of a distance, which has the same order."""
    signed = jnp.int64 if distance.dtype == jnp.float64 else jnp.int32
    return jax.lax.bitcast_convert_type(distance, signed)


def decode(codes: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The distance of a code."""
    floating = jnp.float64 if codes.dtype == jnp.int64 else jnp.float32
    return jax.lax.bitcast_convert_type(codes, floating)


def farthest(codes: Any) -> np.signedinteger:
    """A code beyond that of any distance, infinity included."""
    return codes.dtype.type(np.iinfo(codes.dtype).max)


def among_label(
    codes: Int[Array, "rows m"],
    label: Integer[Array, "rows"],
    other: Integer[Array, "m"],
) -> Int[Array, "rows m"]:
    """Codes of points with the label; others are farther than all of them."""
    return jnp.where(label[:, None] == other[None], codes, farthest(codes))


def codes_from(
    points: Float[Array, "rows d"],
    columns: Float[Array, "d m"],
    metric: Metric,
    unit: Float[Array, ""] | float = 1.0,
) -> Int[Array, "rows m"]:
    """Codes of the distances of points from columns.

    Scaling the distances by a unit, rather than the data, keeps tied distances tied.
    """
    distance = distances(points, columns, metric)
    return code(distance * unit)
