"""Checks on arguments: they run at trace time and raise before anything is computed.

Every message reads "`argument` must be <expected>, got <received>". Shapes and dtypes
are known under tracing and always checked. Values are checked if they are known, so
traced hyperparameters pass.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Integer, Shaped

from optax_mi import _arrays

_LARGEST = float(np.finfo(np.float32).max)

_COMBINATIONS = "numpy.unique(y, axis=0, return_inverse=True)[1]"

# Outcomes on a device, by `id`: a loop that measures on them waits for them only once.
_LOOKED_AT: weakref.WeakValueDictionary[int, jax.Array] = weakref.WeakValueDictionary()

_SEVERAL = 10  # examples, enough to tell whether most are alone in their class

# Floats are probably classes if they are whole numbers with at most this share of
# different values among the examples.
_FEW = 0.1


def fail(argument: str, expected: str, received: object) -> NoReturn:
    """Raises the ValueError that all checks share."""
    raise ValueError(f"`{argument}` must be {expected}, got {received}.")


def one_of(argument: str, value: object, options: Collection[object]) -> None:
    """Checks that a value is among the named options."""
    if value not in options:
        fail(argument, f"one of {', '.join(map(repr, options))}", repr(value))


def nonnegative(argument: str, value: Any) -> None:
    """Checks for a number that is finite (as a float32) and >= 0, unless traced."""
    within(argument, value, 0)


def positive(argument: str, value: Any) -> None:
    """Checks for a number that is finite (as a float32) and > 0, unless traced."""
    known = _number(argument, value)
    if known is not None and not 0 < known <= _LARGEST:
        fail(argument, "finite and > 0", value)


def within(argument: str, value: Any, low: float, high: float | None = None) -> None:
    """Checks for a finite number from low to high, unless traced."""
    known = _number(argument, value)
    most = _LARGEST if high is None else high
    if known is not None and not low <= known <= most:
        expected = f"finite and >= {low}" if high is None else f"from {low} to {high}"
        fail(argument, expected, value)


def less_than_one(argument: str, value: Any) -> None:
    """Checks for a number < 1, unless traced."""
    known = _number(argument, value)
    if known is not None and known >= 1:
        fail(argument, "less than 1", value)


def at_most(argument: str, value: Any, bound_name: str, bound: Any) -> None:
    """Checks `value <= bound`, if neither is traced."""
    known, limit = _number(argument, value), _number(bound_name, bound)
    if known is None or limit is None:
        return
    # In the precision of the state, which holds both.
    held = np.dtype(jnp.result_type(float)).type
    if held(known) > held(limit):
        fail(argument, f"at most `{bound_name}` = {bound}", value)


def _number(argument: str, value: Any) -> float | None:
    """A scalar as a Python float, or None if it is traced.

    In a compiled step a comparison is traced even if its arrays are known.
    """
    if not is_scalar(value):
        fail(argument, "a number", described(value))
    return None if is_traced(value) else float(value)


def numbers(argument: str, values: Any) -> Any:
    """Returns values as an array, of NumPy or JAX, of real numbers or booleans."""
    try:
        values = _arrays.as_array(values)
    except ValueError:  # rows of different lengths
        fail(argument, "an array", repr(values)[:80])
    if not is_real(values.dtype):
        expected = "an array of real numbers"
        if values.dtype.kind in "USO" and values.ndim:
            expected += " (of names: numpy.unique(names, return_inverse=True)[1])"
        fail(argument, expected, f"dtype {values.dtype}")
    return values


def is_scalar(value: Any) -> bool:
    """Whether a value is one real number: Python's, NumPy's or an array's."""
    if isinstance(value, int | float):
        return True
    held = isinstance(value, np.generic | np.ndarray | jax.Array)
    held = held or hasattr(value, "__jax_array__")  # a variable of NNX
    return held and is_real(value.dtype) and value.ndim == 0


def described(value: Any) -> str:
    """How an error describes a value: an array by its shape, not its contents."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:80]


def is_real(dtype: Any) -> bool:
    """Whether a dtype is one of real numbers or booleans."""
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return any(jnp.issubdtype(dtype, kind) for kind in kinds)


def samples(
    argument: str, x: Any, *, units: bool = False, by_feature: bool = False
) -> Shaped[Array, "n ..."]:
    """Returns samples as a JAX array; see `_arrays.on_device`."""
    x = numbers(argument, x)
    x = _arrays.on_device(argument, x, units=units, by_feature=by_feature)
    if x.ndim == 0:
        fail(argument, "an array of samples, shape [n] or [n, ...]", "a scalar")
    if x.size == 0:
        fail(argument, "non-empty", f"shape {x.shape}")
    return x


def flat(x: Shaped[Array, "n ..."]) -> Float[Array, "n d"]:
    """Samples as floats, with trailing axes flattened.

    Integers, booleans and half-precision floats become float32; float64 stays float64
    if x64 is on.
    """
    dtype = x.dtype if x.dtype in (jnp.float32, jnp.float64) else jnp.float32
    return x.reshape(x.shape[0], -1).astype(dtype)


def points(
    argument: str, x: Any, *, units: bool = False, by_feature: bool = False
) -> Float[Array, "n d"]:
    """Returns samples as floats, see `samples` and `flat`."""
    return flat(samples(argument, x, units=units, by_feature=by_feature))


def class_labels(argument: str, labels: Any) -> Integer[Array, "n"]:
    """Returns class labels as an integer array."""
    labels = numbers(argument, labels)
    if not is_discrete(labels):
        fail(
            argument,
            "integer class labels (continuous outcomes go to `ksg`)",
            f"dtype {labels.dtype}",
        )
    held_integers(argument, labels)
    if labels.ndim != 1 or labels.size == 0:
        cure = f" ({_cure(labels)})" if labels.ndim > 1 else ""
        fail(argument, f"of shape [n] with n >= 1{cure}", f"shape {labels.shape}")
    labels = jnp.asarray(labels)
    return labels.astype(jnp.int32) if labels.dtype == jnp.bool_ else labels


def _cure(labels: Any) -> str:
    """What to write in place of classes with several axes."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        return "a single column: take [:, 0]"
    if labels.ndim == 2 and not is_traced(labels) and _is_one_hot(np.asarray(labels)):
        return "one-hot codes: take argmax over the last axis"
    return (
        "of each position: see `sample_positions`; of several labels: their "
        f"combinations are classes, {_COMBINATIONS}, or add the estimates of the "
        "columns; one-hot codes: take argmax"
    )


def outcomes(argument: str, values: Any, *, by_feature: bool = False) -> Any:
    """Returns classes as integers [n], or real numbers as floats [n, d]."""
    values = numbers(argument, values)
    if not is_discrete(values):
        no_coded_classes(argument, values, stacklevel=4)
        return points(argument, values, by_feature=by_feature)
    labels = class_labels(argument, values)
    # An array on a device is not waited for; a probe's was checked when it was drawn.
    if isinstance(values, np.ndarray):
        tell_of_amounts(argument, values, stacklevel=4)
    return labels


def tell_of_amounts(argument: str, outcomes: Any, stacklevel: int = 3) -> None:
    """Warns of integers of which most differ, if their values are known."""
    looked_at = is_known(outcomes) and is_discrete(outcomes)
    if not looked_at or outcomes.ndim != 1 or len(outcomes) < _SEVERAL:
        return
    _, counts = np.unique(np.asarray(outcomes), return_counts=True)
    alone = int(np.sum(counts == 1))
    if 2 * alone > len(outcomes):
        warnings.warn(
            f"`{argument}` holds integers, which are classes, and {alone} of "
            f"{len(outcomes)} examples are alone in theirs: they say nothing. If these "
            f"are amounts, pass floats: {argument}.astype(float).",
            stacklevel=stacklevel,
        )


def held_integers(argument: str, values: Any) -> None:
    """Refuses NumPy integers that JAX without x64 would wrap, which merges classes."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.size:
        held = jnp.iinfo(jax.dtypes.canonicalize_dtype(values.dtype))
        low, high = values.min(), values.max()
        if low < held.min or high > held.max:
            fail(argument, f"within the {held.dtype} range", f"{low} to {high}")


def is_traced(value: Any) -> bool:
    """Whether a value is abstract, so that it cannot be read."""
    return isinstance(value, Tracer)


def is_known(values: Any) -> bool:
    """Whether an array can be read: neither abstract nor partly on other machines."""
    return not is_traced(values) and getattr(values, "is_fully_addressable", True)


def is_discrete(outcomes: Any) -> bool:
    """Whether outcomes are classes (integers, booleans) rather than real numbers."""
    return jnp.issubdtype(outcomes.dtype, jnp.integer) or outcomes.dtype == jnp.bool_


def classes_or_points(argument: str, values: Any, *, by_feature: bool) -> Any:
    """Returns integers [n] as classes, and all else as floats [n, d]."""
    values = numbers(argument, values)
    if is_discrete(values) and values.ndim == 1:
        return class_labels(argument, values)
    return points(argument, values, by_feature=by_feature)


def any_outcomes(argument: str, values: Any) -> Any:
    """Returns integers of any shape, or real numbers as floats [n, d]."""
    values = numbers(argument, values)
    if not is_discrete(values):
        return points(argument, values)
    if values.ndim < 2:
        return class_labels(argument, values)
    held_integers(argument, values)
    return jnp.asarray(values)


def no_coded_classes(argument: str, outcomes: Any, stacklevel: int = 3) -> None:
    """Refuses one-hot codes, and warns of few whole numbers held as floats.

    Both would be treated as real numbers. Values that are not known are not checked.
    """
    if not is_known(outcomes) or outcomes.ndim == 0 or outcomes.size == 0:
        return
    if _LOOKED_AT.get(id(outcomes)) is outcomes:
        return
    on_host = np.asarray(outcomes)
    if _is_one_hot(on_host):
        fail(
            argument,
            "integer class labels (pass argmax over the last axis)",
            f"one-hot codes of shape {on_host.shape}",
        )
    if isinstance(outcomes, jax.Array):
        _LOOKED_AT[id(outcomes)] = outcomes
    if is_discrete(on_host) or not np.all(on_host == np.rint(on_host)):
        return
    values = np.unique(on_host)
    if 1 < len(values) <= _FEW * len(on_host):
        shown = ", ".join(f"{value:g}" for value in values[:5])
        more = ", ..." if len(values) > 5 else ""
        cure = f"If these are classes, pass integers: {argument}.astype(int)."
        if on_host.size > len(on_host):
            cure = "Classes of positions: see `sample_positions`. Several labels: "
            cure += f"their combinations are classes, {_COMBINATIONS}."
        warnings.warn(
            f"`{argument}` holds floats, which are taken for real numbers, but only "
            f"the values {shown}{more}. {cure}",
            stacklevel=stacklevel,
        )


def _is_one_hot(values: Shaped[np.ndarray, "n ..."]) -> bool:
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        return False
    binary = np.all((values == 0) | (values == 1))
    return bool(binary and np.all(values.sum(axis=1) == 1))


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
        received = f"{type(k).__name__} {k!r}"
        fail("k", "a Python integer, or a sequence of several", received)
    if k < 1:
        fail("k", "at least 1", k)
    if n <= k:
        fail("k", f"less than the number of samples, {n}", k)


def several_neighbours(k: Any, n: int) -> tuple[int, ...]:
    """Returns one neighbour count or several as a tuple."""
    several = isinstance(k, Sequence) and not isinstance(k, str)
    several = several or (isinstance(k, np.ndarray) and k.ndim == 1)
    ks: tuple[Any, ...] = tuple(k) if several else (k,)
    if not ks:
        fail("k", "an integer or at least one of them", k)
    for one in ks:
        neighbours(one, n)
    return tuple(int(one) for one in ks)


def flag(argument: str, value: Any) -> None:
    """Checks for True or False."""
    if not isinstance(value, bool):
        fail(argument, "True or False", described(value))


def positive_integer(argument: str, value: Any) -> None:
    """Checks for a Python integer >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        fail(argument, "an integer >= 1", repr(value))
