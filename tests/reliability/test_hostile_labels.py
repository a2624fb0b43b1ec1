"""Hostile class labels: what every function that takes them makes of them."""

import functools

import jax
import numpy as np
import pytest
from rows import (
    NAN,
    NUMBER,
    SAME,
    ZERO,
    Outcome,
    Refused,
    check,
    error_table,
    naming,
    result_table,
)

import optax_mi

KEY = jax.random.key(0)
N = 60
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, N)
X = (RNG.normal(size=(N, 3)) + LABELS[:, None]).astype(np.float32)

FUNCTIONS = {
    "ksg_discrete": lambda y: optax_mi.ksg_discrete(X, y),
    "label_entropy": optax_mi.label_entropy,
    "plug_in_mi": lambda y: optax_mi.plug_in_mi(LABELS, y),
    "pairwise_distance_bounds": lambda y: optax_mi.pairwise_distance_bounds(
        X, y, noise=1.0
    ),
    "usable_points": optax_mi.usable_points,
    "estimate_mi": lambda y: optax_mi.estimate_mi({"": X}, y),
    "mi_with_error": lambda y: optax_mi.mi_with_error(KEY, X, y, permutations=9)[:2],
    "sample_probe": lambda y: optax_mi.sample_probe(KEY, X, y, size=20).outcomes,
}
CONTINUOUS = ("estimate_mi", "mi_with_error", "sample_probe")

TYPED = Refused(
    "must be integer class labels (continuous outcomes go to `ksg`), got dtype …"
)
VECTOR = "must be of shape [n] with n >= 1"
SHAPED = Refused(
    f"{VECTOR} (one-hot codes: take argmax over the last axis), got shape (60, 3)"
)
CODES = Refused(
    "must be integer class labels (pass argmax over the last axis), got one-hot codes …"
)
COLUMN = Refused(f"{VECTOR} (a single column: take [:, 0]), got shape (60, 1)")
EMPTY = Refused(f"{VECTOR}, got shape (0,)")
SCALAR = Refused(f"{VECTOR}, got shape ()")
NAMES = Refused(
    "must be an array of real numbers "
    "(of names: numpy.unique(names, return_inverse=True)[1]), got dtype …"
)
RANGE = Refused("must be within the int32 range, got 0 to 2000000000000")
LENGTH = Refused("must be as long as …, … samples, got …")
PROBED = Refused("must be an array of examples, shape [n, ...], … got a scalar")

SIZES = np.repeat(np.arange(5), [1, 2, 3, 4, N - 10])  # 1, 2, k, k + 1 and the rest

# The labels; what comes of them everywhere, and where something else does.
ROWS = {
    "one class": (
        np.zeros(N, int),
        ZERO,
        {"pairwise_distance_bounds": NUMBER, "usable_points": NUMBER},
    ),
    "every point its own class": (
        np.arange(N),
        NUMBER,
        {
            **dict.fromkeys(["ksg_discrete", "estimate_mi"], NAN),
            "mi_with_error": NAN,
        },
    ),
    "classes of 1, 2, k, k + 1 points": (SIZES, NUMBER, {}),
    "up to 2e8": (LABELS * 10**8, SAME, {"sample_probe": NUMBER}),
    "up to 2e12": (LABELS * 10**12, RANGE, {}),
    "negative": (LABELS - 2, SAME, {"sample_probe": NUMBER}),
    "the smallest and largest int32": (
        np.where(LABELS == 0, -(2**31), 2**31 - 1),
        NUMBER,
        {},
    ),
    "uint32 near its limit": (
        (LABELS + 2**32 - 5).astype(np.uint32),
        SAME,
        {"sample_probe": NUMBER},
    ),
    "int8": (LABELS.astype(np.int8), SAME, {}),
    "uint64": (LABELS.astype(np.uint64), SAME, {}),
    "booleans": (LABELS > 0, NUMBER, {}),
    "a list": (LABELS.tolist(), SAME, {}),
    "floats": (LABELS.astype(np.float32), TYPED, dict.fromkeys(CONTINUOUS, NUMBER)),
    "floats with NaN": (
        np.where(LABELS == 0, np.nan, LABELS),
        TYPED,
        {**dict.fromkeys(CONTINUOUS[:2], NAN), "sample_probe": None},
    ),
    "one-hot codes, floats": (
        np.eye(3)[LABELS],
        TYPED,
        {
            "estimate_mi": CODES,
            "mi_with_error": CODES,
            "sample_probe": CODES,
        },
    ),
    "one-hot codes, integers": (
        np.eye(3, dtype=int)[LABELS],
        SHAPED,
        {"sample_probe": CODES},
    ),
    "a column": (LABELS[:, None], COLUMN, {"sample_probe": NUMBER}),
    "text": (LABELS.astype(str), NAMES, {}),
    "one label too few": (
        LABELS[:-1],
        LENGTH,
        dict.fromkeys(["label_entropy", "usable_points"], NUMBER),
    ),
    "no labels": (LABELS[:0], EMPTY, {"sample_probe": LENGTH}),
    "a scalar": (3, SCALAR, {"sample_probe": PROBED}),
}


def outcome_of(row, name):
    _, everywhere, elsewhere = ROWS[row]
    return elsewhere.get(name, everywhere)


# Those that compile for long; a dtype of labels is another program.
CALLERS = ("estimate_mi", "mi_with_error")
ESTIMATORS = ("ksg_discrete", "pairwise_distance_bounds")
# `estimate_mi` hands classes on to `ksg_discrete`.
NOT_INT32 = ("uint32 near its limit", "uint64")


def answered():
    """Functions beside the rows that they answer, those that are not quick marked."""
    for name in FUNCTIONS:
        for row in ROWS:
            same_code = name == "estimate_mi" and row in NOT_INT32
            if isinstance(outcome_of(row, name), Outcome) and not same_code:
                slow = name in CALLERS or (name in ESTIMATORS and row in NOT_INT32)
                marks = pytest.mark.slow if slow else ()
                yield pytest.param(name, row, marks=marks)


@functools.cache
def plain(name):
    return FUNCTIONS[name](LABELS)


@pytest.mark.parametrize(("name", "row"), [*answered()])
def test_hostile_labels(name, row, tally):
    check(outcome_of(row, name), lambda: FUNCTIONS[name](ROWS[row][0]), plain(name))
    tally("hostile inputs")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_labels_that_are_refused(name, tally):
    for row, (labels, *_) in ROWS.items():
        outcome = outcome_of(row, name)
        if isinstance(outcome, Refused):
            with naming(row):
                check(outcome, lambda y=labels: FUNCTIONS[name](y))
            tally("hostile inputs")


def tables():
    names = [name for name in FUNCTIONS if name not in ("usable_points", "estimate_mi")]
    outcomes = {row: [outcome_of(row, name) for name in names] for row in ROWS}
    of_all = "labels", names, outcomes
    return {"labels": result_table(*of_all), "refused labels": error_table(*of_all)}
