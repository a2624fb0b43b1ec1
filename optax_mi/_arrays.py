"""Arrays of the host, prepared for devices whose numbers have fewer bits."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

# Values count as merged if this share of the different rows is lost. A few of very many
# merge in any case: float32 has 2^24 numbers of one size.
_LOST = 0.01
# Outcomes stay as they are if rounding takes less than this share of their spread.
_HELD = 1e-3


def as_array(values: Any) -> Any:
    """Returns a NumPy or JAX array as it is, and anything else as a NumPy array.

    NumPy arrays get this machine's byte order, the only one that JAX accepts.
    """
    if hasattr(values, "__jax_array__"):
        return jnp.asarray(values)
    if isinstance(values, jax.Array):
        return values
    values = values if isinstance(values, np.ndarray) else np.asarray(values)
    native = values.dtype.isnative or values.dtype.names is not None
    return values if native else values.astype(values.dtype.newbyteorder("="))


def inputs(values: Any) -> Any:
    """A model's inputs as a JAX array; floats wider than float64 become float64."""
    if isinstance(values, np.ndarray) and values.dtype == np.longdouble:
        values = values.astype(np.float64)
    return jnp.asarray(values)


def is_wide(values: Any) -> bool:
    """Whether a NumPy array may hold numbers that a device's floats would merge."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        return False
    if values.dtype.kind == "f":
        return values.dtype.itemsize > _float().itemsize
    return values.dtype.itemsize >= _float().itemsize


def on_device(
    argument: str, values: Any, *, units: bool, by_feature: bool = False
) -> Any:
    """Samples as a JAX array, moved towards zero before they lose precision.

    Args:
      argument: The name of the argument.
      values: [n, ...]; what is not wide stays as it is.
      units: Whether the result depends on the unit. If not, numbers that are too large
        or too small for a device's float are scaled as well.
      by_feature: Whether the units of single features do not matter either, so that
        each may be scaled by itself.
    """
    if not is_wide(values) or not values.size or not values.ndim:
        return jnp.asarray(values)
    with np.errstate(all="ignore"):  # what is not finite stays so
        moved = _moved(values)
        if not units:
            moved = _scaled(moved, 0 if by_feature else None)
        narrow = moved.astype(_float())
    if _different(narrow) < (1 - _LOST) * _different(moved):
        warnings.warn(
            f"`{argument}` has different values that {narrow.dtype} cannot tell apart, "
            "which are now equal. Set JAX_ENABLE_X64=1, or pass them as their "
            "differences or logarithms.",
            stacklevel=5,
        )
    return jnp.asarray(narrow)


def outcomes_on_device(argument: str, values: Any) -> Any:
    """Continuous outcomes as they are, or moved towards zero if that is needed."""
    if not is_wide(values) or values.dtype.kind != "f" or not values.size:
        return jnp.asarray(values)
    with np.errstate(all="ignore"):  # what is not finite stays so
        spread = np.ptp(values, axis=0)
        step = np.abs(values).max(axis=0) * np.finfo(_float()).eps
        if not np.any((spread > 0) & (step > _HELD * spread)):
            return jnp.asarray(values.astype(_float()))
    warnings.warn(
        f"`{argument}` has differences too small for {_float()} beside its values, so "
        "a constant was subtracted. Mutual information is the same without it.",
        stacklevel=3,
    )
    return on_device(argument, values, units=True)


def _float() -> Any:
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def _moved(values: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "n ..."]:
    """Values minus a constant for each feature.

    The constant is a multiple of a power of two that is as large as the spread. So
    values on a grid stay on it, and equal distances stay equal. Near zero it is 0.
    """
    lowest = values.min(axis=0, keepdims=True)
    if values.dtype.kind in "iu":
        # Exact, as differences of integers of any size are in unsigned arithmetic.
        unsigned = np.dtype(f"u{values.dtype.itemsize}")
        above = (values.astype(unsigned) - lowest.astype(unsigned)).astype(np.float64)
        lowest = lowest.astype(np.float64)
        constant = _constant(lowest, lowest + above.max(axis=0, keepdims=True))
        return above + (lowest - constant)
    return values - _constant(lowest, values.max(axis=0, keepdims=True))


def _constant(lowest: Any, highest: Any) -> Any:
    spread = highest - lowest
    known = np.isfinite(spread) & (spread > 0)
    power = np.exp2(np.ceil(np.log2(np.where(known, spread, 1))))
    middle = np.where(np.isfinite(spread), lowest / 2 + highest / 2, 0)
    return np.where(known, np.rint(middle / power) * power, middle)


def _scaled(
    values: Shaped[np.ndarray, "n ..."], axis: int | None
) -> Shaped[np.ndarray, "n ..."]:
    """Values times a power of two for each feature (axis 0), or one for all."""
    sizes = np.where(np.isfinite(values), np.abs(values), 0)
    largest = sizes.max(axis=axis, keepdims=True)
    info = np.finfo(_float())
    held = (largest > float(info.tiny) ** 0.5) & (largest < float(info.max) ** 0.5)
    if np.all(held | (largest == 0)):
        return values
    _, exponent = np.frexp(largest)
    return np.ldexp(values, np.where(held, 0, -exponent))


def _different(values: Shaped[np.ndarray, "n ..."]) -> int:
    """How many rows differ, judged by a random sum of each."""
    rows = np.nan_to_num(values.reshape(len(values), -1).astype(np.float64))
    weights = np.random.default_rng(0).normal(size=rows.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        return len(np.unique(rows @ weights))
