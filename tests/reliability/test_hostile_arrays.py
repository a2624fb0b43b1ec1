"""Hostile numbers: what every estimator makes of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiers
from rows import (
    MINUS_INFINITY,
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
N, K = 60, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, N)
X = (RNG.normal(size=(N, 3)) + LABELS[:, None]).astype(np.float32)
# As wide as X, so that `ksg` of the two has one program either way.
Y = (X + 2 * RNG.normal(size=(N, 3))).astype(np.float32)
Z = RNG.normal(size=(N, 1)).astype(np.float32)
SHORT = dict(steps=20, batch_size=16, hidden=8)


def along(array, x):
    """As many samples of an array as x has, and one where it has none."""
    return array[: max(len(x), 1)] if hasattr(x, "__len__") else array


# Families of estimators that the tables have a column for.
FAMILIES = {
    "ksg": {
        "ksg": lambda x: optax_mi.ksg(x, along(Y, x)),
        "ksg 2": lambda x: optax_mi.ksg(x, along(Y, x), algorithm=2),
        "ksg euclidean": lambda x: optax_mi.ksg(x, along(Y, x), metric="euclidean"),
        "ksg margins": lambda x: optax_mi.ksg(x, along(Y, x), margins="gaussian"),
        "ksg_mixed": lambda x: optax_mi.ksg_mixed(x, along(Y, x)),
        "ksg_conditional": lambda x: optax_mi.ksg_conditional(
            x, along(Y, x), along(Z, x)
        ),
        "y": lambda x: optax_mi.ksg(along(Y, x), x),
        "estimate_mi": lambda x: optax_mi.estimate_mi({"": x}, along(Y, x)),
    },
    "ksg_discrete": {
        "ksg_discrete": lambda x: optax_mi.ksg_discrete(x, along(LABELS, x)),
        "manhattan": lambda x: optax_mi.ksg_discrete(
            x, along(LABELS, x), metric="manhattan"
        ),
        "layer beside": lambda x: optax_mi.estimate_mi(
            {"hostile": x, "plain": along(X, x)}, along(LABELS, x)
        )["hostile"],
    },
    "bounds": {
        "pairwise_distance_bounds": lambda x: optax_mi.pairwise_distance_bounds(
            x, along(LABELS, x), noise=1.0
        )
    },
    "neural": {
        "mine": lambda x: optax_mi.mine(KEY, x, along(Y, x), **SHORT).mi,
        "info_nce": lambda x: optax_mi.info_nce(KEY, x, along(Y, x), **SHORT).mi,
    },
    "knn_entropy": {"knn_entropy": optax_mi.knn_entropy},
}


def changed(index, value):
    x = X.copy()
    x[index] = value
    return x


def donated():
    x = jnp.asarray(X)
    x.delete()  # as a compiled step does with what it was given to reuse
    return x


def up_to(largest):
    return X / np.abs(X).max() * np.float32(largest)


SHAPED = Refused("must be an array of samples, shape [n] or [n, ...], got a scalar")
TYPED = "must be an array of real numbers, got dtype"
NAMES = Refused(
    "must be an array of real numbers "
    "(of names: numpy.unique(names, return_inverse=True)[1]), got dtype …"
)

# The input; then a column for each family.
ROWS = {
    "NaN in one element": (changed((7, 1), np.nan), NAN, NAN, NAN, NAN, NAN),
    "infinity in one element": (changed((7, 1), np.inf), NAN, NAN, NAN, NAN, NAN),
    "-infinity in one element": (changed((7, 1), -np.inf), NAN, NAN, NAN, NAN, NAN),
    "a row of NaN": (changed(7, np.nan), NAN, NAN, NAN, NAN, NAN),
    "a row of infinities": (changed(7, np.inf), NAN, NAN, NAN, NAN, NAN),
    "all NaN": (X * np.nan, NAN, NAN, NAN, NAN, NAN),
    "all infinite": (X * 0 + np.inf, NAN, NAN, NAN, NAN, NAN),
    "constant": (X * 0, ZERO, ZERO, ZERO, ZERO, MINUS_INFINITY),
    "constant, 1e30": (X * 0 + 1e30, ZERO, ZERO, ZERO, ZERO, MINUS_INFINITY),
    "nearly constant, 1e6 + x / 10": (
        (1e6 + X / 10).astype(np.float32),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "every row twice": (
        X[np.repeat(np.arange(N // 2), 2)],
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "rounded": (np.round(X), NUMBER, NUMBER, NUMBER, NUMBER, MINUS_INFINITY),
    "times 1e-30": (X * np.float32(1e-30), SAME, SAME, ZERO, SAME, NUMBER),
    "times 1e-42, subnormal": (
        X * np.float32(1e-42),
        *(ZERO, ZERO, ZERO, ZERO, MINUS_INFINITY),
    ),
    "times 1e30": (X * np.float32(1e30), SAME, SAME, NUMBER, SAME, NUMBER),
    "up to 3e38": (up_to(3e38), SAME, SAME, NUMBER, SAME, NUMBER),
    "one outlier of 1e10": (
        changed((7, 1), 1e10),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "one outlier of 1e30": (
        changed((7, 1), 1e30),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "float16, up to 6e4": (
        up_to(6e4).astype(np.float16),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "float16, times 6e-8": (
        (X * 6e-8).astype(np.float16),
        *(NUMBER, NUMBER, ZERO, NUMBER, MINUS_INFINITY),
    ),
    "bfloat16": (
        jnp.asarray(X, jnp.bfloat16),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "bfloat16, up to 3e38": (
        jnp.asarray(up_to(3e38), jnp.bfloat16),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "int8": (
        np.round(X * 20).astype(np.int8),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "uint8": (
        np.round(np.abs(X) * 20).astype(np.uint8),
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "int64 beyond int32": (
        (X.astype(np.float64) * 2**40).astype(np.int64),
        *(SAME, SAME, NUMBER, SAME, NUMBER),
    ),
    "booleans": (X > 0, NUMBER, NUMBER, NUMBER, NUMBER, MINUS_INFINITY),
    "float64 beyond float32": (
        X.astype(np.float64) * 1e200,
        *(SAME, SAME, NAN, NUMBER, NAN),
    ),
    "not contiguous": (
        np.asfortranarray(np.repeat(X, 2, axis=0))[::2],
        *(SAME, SAME, SAME, SAME, SAME),
    ),
    "lists": (X.tolist(), SAME, SAME, SAME, SAME, SAME),
    "more axes": (X[:, None, :, None], SAME, SAME, SAME, SAME, SAME),
    "100,000 features": (
        np.tile(X[:40], 33_334)[:, :100_000],
        *(NUMBER, NUMBER, NUMBER, NUMBER, NUMBER),
    ),
    "n = k + 1": (X[: K + 1], NUMBER, NUMBER, NUMBER, None, NUMBER),
    "n = k": (
        X[:K],
        *(Refused("`k` must be less than the number of samples, 3, got 3"),) * 2,
        *(None, None),
        Refused("`k` must be less than the number of samples, 3, got 3"),
    ),
    "no samples": (X[:0], *(Refused("must be non-empty, got shape (0, 3)"),) * 5),
    "no features": (X[:, :0], *(Refused("must be non-empty, got shape (60, 0)"),) * 5),
    "a scalar": (np.float32(1), *(SHAPED,) * 5),
    "donated": (donated(), *(Refused("Array has been deleted…"),) * 5),
    "complex": (X.astype(np.complex64), *(Refused(f"{TYPED} complex64"),) * 5),
    "text": (X.astype(str), *(NAMES,) * 5),
    "objects": (X.astype(object), *(NAMES,) * 5),
    "nothing, None": (None, *(Refused(f"{TYPED} object"),) * 5),
    "rows of different lengths": (
        [[1.0], [1.0, 2.0]],
        *(Refused("must be an array, got [[1.0], [1.0, 2.0]]"),) * 5,
    ),
}
SUBJECTS = {
    name: (column, call)
    for column, family in enumerate(FAMILIES.values(), start=1)
    for name, call in family.items()
}


# One of each family is quick. Points of another number or width are another program:
# there one of all is, and those are left out that are another's code by another way.
QUICK = ("ksg", "y", "ksg_discrete", "pairwise_distance_bounds", "mine", "knn_entropy")
QUICK_SHAPED = "pairwise_distance_bounds"
SHAPED_ROWS = ("100,000 features", "n = k + 1")
SAME_CODE = ("y", "ksg euclidean", "manhattan", "estimate_mi", "layer beside")


def reaches(row, outcome):
    """Whether an estimator is compiled: what was donated is missed when that runs."""
    return isinstance(outcome, Outcome) or row == "donated"


def estimated():
    """Subjects beside the rows that reach them, those that are not quick marked."""
    for subject, (column, _) in SUBJECTS.items():
        for row, cells in ROWS.items():
            shaped = row in SHAPED_ROWS
            left_out = shaped and subject in SAME_CODE
            if reaches(row, cells[column]) and not left_out:
                kept = subject == QUICK_SHAPED if shaped else subject in QUICK
                marks = () if kept else pytest.mark.slow
                yield pytest.param(subject, row, marks=marks)


@functools.cache
def plain(subject):
    return SUBJECTS[subject][1](X)


@pytest.mark.parametrize(("subject", "row"), [*estimated()])
def test_hostile_numbers(subject, row, tally):
    column, call = SUBJECTS[subject]
    x, outcome = ROWS[row][0], ROWS[row][column]
    check(outcome, lambda: call(x), plain(subject))
    tally("hostile inputs")


@pytest.mark.parametrize("subject", SUBJECTS)
def test_numbers_that_are_refused(subject, tally):
    column, call = SUBJECTS[subject]
    for row, cells in ROWS.items():
        outcome = cells[column]
        if outcome is not None and not reaches(row, outcome):
            with naming(row):
                check(outcome, lambda x=cells[0]: call(x))
            tally("hostile inputs")


# Quick are the rows of float64.
DOUBLE = ("float64 beyond float32", "int64 beyond int32", "times 1e-42, subnormal")


@pytest.mark.parametrize("row", tiers.quick(ROWS, *DOUBLE))
def test_hostile_numbers_in_double_precision(row, x64, tally):
    x, *outcomes = ROWS[row]
    if row == "float64 beyond float32":
        outcomes[1] = SAME
    if row.startswith("times 1e-42"):
        outcomes[1] = SAME  # in float64 these are normal numbers
        x = X.astype(np.float64) * 1e-42
    call = SUBJECTS["ksg_discrete"][1]
    check(outcomes[1], lambda: call(x), plain("ksg_discrete"))
    tally("hostile inputs")


@pytest.mark.slow
def test_an_outlier_hides_its_column_or_the_layer_but_neither_classes_nor_ranks():
    x = ROWS["one outlier of 1e10"][0]
    families = {name: call for name, (_, call) in SUBJECTS.items()}
    for name in ("ksg", "ksg_discrete"):  # each column by its own spread
        rest = families[name](np.delete(X, 1, axis=1))
        assert families[name](x) == pytest.approx(float(rest), abs=0.1)
    whole = optax_mi.ksg(x, Y, scaling="variable")
    assert abs(whole) < 0.05 < float(plain("ksg")) - 0.15
    for name in ("layer beside", "ksg margins"):
        assert families[name](x) == pytest.approx(float(plain(name)), abs=0.1)


def tables():
    outcomes = {row: list(found) for row, (_, *found) in ROWS.items()}
    of_all = "numbers", list(FAMILIES), outcomes
    return {"numbers": result_table(*of_all), "refused numbers": error_table(*of_all)}
