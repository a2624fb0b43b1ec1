"""Checks on arguments: they run at trace time and raise before anything is computed.

Every message reads "`argument` must be <expected>, got <received>". Shapes and dtypes
are known under tracing and always checked; values are checked only where they are
Python or NumPy numbers, so that traced hyperparameters pass.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Integer, Shaped


def fail(argument: str, expected: str, received: object) -> NoReturn:
    """Raises the ValueError that all checks share."""
    raise ValueError(f"`{argument}` must be {expected}, got {received}.")


def one_of(argument: str, value: object, options: Collection[object]) -> None:
    """Checks that a value is among the named options."""
    if value not in options:
        fail(argument, f"one of {', '.join(map(repr, options))}", repr(value))


def nonnegative(argument: str, value: Any) -> None:
    """Checks a number for being finite and >= 0, unless it is traced or an array."""
    if not isinstance(value, int | float | np.number | np.ndarray | jax.Array):
        fail(argument, "a number", f"{type(value).__name__} {value!r}")
    if isinstance(value, int | float | np.number) and not (
        math.isfinite(value) and value >= 0
    ):
        fail(argument, "finite and >= 0", value)


def positive(argument: str, value: Any) -> None:
    """Checks a number for being finite and > 0, unless it is traced or an array."""
    if isinstance(value, int | float | np.number) and not (
        math.isfinite(value) and value > 0
    ):
        fail(argument, "finite and > 0", value)


def at_most(argument: str, value: Any, bound_name: str, bound: Any) -> None:
    """Checks `value <= bound` where both are plain numbers."""
    numbers = int | float | np.number
    if isinstance(value, numbers) and isinstance(bound, numbers) and value > bound:
        fail(argument, f"at most `{bound_name}` = {bound}", value)


def as_array(values: Any) -> Any:
    """Returns a NumPy or JAX array as it is and anything else as a NumPy array."""
    return values if isinstance(values, jax.Array | np.ndarray) else np.asarray(values)


def points(argument: str, x: Any) -> Float[Array, "n d"]:
    """Returns samples as floating points.

    Trailing axes are flattened. Integers, booleans and half-precision floats become
    float32; float64 stays float64 where x64 is on.
    """
    x = jnp.asarray(x)
    if x.ndim == 0:
        fail(argument, "an array of samples, shape [n] or [n, ...]", "a scalar")
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        fail(argument, "real", f"dtype {x.dtype}")
    if x.size == 0:
        fail(argument, "non-empty", f"shape {x.shape}")
    dtype = x.dtype if x.dtype in (jnp.float32, jnp.float64) else jnp.float32
    return x.reshape(x.shape[0], -1).astype(dtype)


def class_labels(argument: str, labels: Any) -> Integer[Array, "n"]:
    """Returns class labels as an integer array."""
    labels = as_array(labels)
    held_integers(argument, labels)
    labels = jnp.asarray(labels)
    if not is_discrete(labels):
        fail(
            argument,
            "integer class labels (continuous outcomes go to `ksg`)",
            f"dtype {labels.dtype}",
        )
    if labels.ndim != 1 or labels.size == 0:
        fail(
            argument,
            "of shape [n] with n >= 1 (one-hot codes: take argmax over the last axis; "
            "a single column: take [:, 0])",
            f"shape {labels.shape}",
        )
    return labels.astype(jnp.int32) if labels.dtype == jnp.bool_ else labels


def held_integers(argument: str, values: Any) -> None:
    """Refuses NumPy integers that JAX without x64 would wrap, merging classes."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.size:
        held = jnp.iinfo(jax.dtypes.canonicalize_dtype(values.dtype))
        low, high = values.min(), values.max()
        if low < held.min or high > held.max:
            fail(argument, f"within the {held.dtype} range", f"{low} to {high}")


def is_traced(value: Any) -> bool:
    """Whether a value is abstract, so that it cannot be looked at."""
    return isinstance(value, Tracer)


def is_discrete(outcomes: Any) -> bool:
    """Whether outcomes are classes (integers, booleans) rather than real numbers."""
    return jnp.issubdtype(outcomes.dtype, jnp.integer) or outcomes.dtype == jnp.bool_


def not_one_hot(argument: str, outcomes: Shaped[np.ndarray, "n ..."]) -> None:
    """Refuses one-hot codes, which a joint-space estimator would misread."""
    if outcomes.ndim == 2 and outcomes.shape[1] > 1 and len(outcomes):
        binary = np.all((outcomes == 0) | (outcomes == 1))
        if binary and np.all(outcomes.sum(axis=1) == 1):
            fail(
                argument,
                "integer class labels (pass argmax over the last axis)",
                f"one-hot codes of shape {outcomes.shape}",
            )


def same_length(arrays: Iterable[tuple[str, Any]]) -> int:
    """Checks that named arrays agree on their number of samples, and returns it."""
    (first, reference), *others = arrays
    n = reference.shape[0]
    for name, array in others:
        if array.shape[0] != n:
            fail(name, f"as long as `{first}`, {n} samples", f"{array.shape[0]}")
    return n


def neighbours(k: Any, n: int) -> None:
    """Checks a neighbour count against the number of samples."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        fail("k", "a Python integer", f"{type(k).__name__} {k!r}")
    if k < 1:
        fail("k", "at least 1", k)
    if n <= k:
        fail("k", f"less than the number of samples, {n}", k)


def positive_integer(argument: str, value: Any) -> None:
    """Checks for a Python integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        fail(argument, "an integer >= 1", repr(value))
