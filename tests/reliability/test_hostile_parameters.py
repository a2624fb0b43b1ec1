"""Hostile parameters, and what is no measurement."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import Refused, cell, check, table

import optax_mi

PARAMS = {"w": jnp.ones(3)}
NAN, INF = float("nan"), float("inf")
PLAIN = optax_mi.mi_dynamic_lr(
    0.001, 0.1, reference=2.0, policy=optax_mi.reference_policy()
)

SCALARS = "`mi` must be a scalar or a mapping of scalars"
MAPPING = "`mi` must be a mapping with the whole network, '', in it,"
GIVEN = {
    "a vector": (jnp.ones(3), f"{SCALARS}, got float32 of shape (3,)"),
    "an empty mapping": ({}, f"{MAPPING} … got []"),
    "text": ("1", f"{SCALARS}, got str '1'"),
    "text in a mapping": ({"": "1"}, f"{SCALARS}, got str '1'"),
    "a mapping in a mapping": ({"": {"a": 1.0}}, f"{SCALARS}, got dict {{'a': 1.0}}"),
    "a list": ([1.0], f"{SCALARS}, got list [1.0]"),
    "complex": (1j, f"{SCALARS}, got complex 1j"),
    "two layers, neither the network": (
        {"a": 1.0, "b": 1.0},
        f"{MAPPING} … got ['a', 'b']",
    ),
}


@pytest.mark.parametrize("give", ["update", "record_mi"])
@pytest.mark.parametrize("row", GIVEN)
def test_what_is_no_measurement(row, give, tally):
    mi, message = GIVEN[row]
    state = PLAIN.init(PARAMS)
    calls = {
        "update": lambda: PLAIN.update(PARAMS, state, PARAMS, mi=mi),
        "record_mi": lambda: optax_mi.record_mi(state, mi),
    }
    check(Refused(message), calls[give])
    tally("hostile inputs")


TREES = {
    "an empty dictionary": {},
    "an empty tuple": (),
    "None": None,
    "a dictionary in a dictionary": {"a": {}},
    "arrays of no elements": {"w": jnp.ones((0, 3))},
    "a masked node": {"w": optax.MaskedNode()},
    "a weakly typed scalar": {"w": jnp.asarray(1.0)},
    "a Python float": {"w": 1.0},
    "bfloat16": {"w": jnp.ones(3, jnp.bfloat16)},
    "float16": {"w": jnp.ones(3, jnp.float16)},
    "complex": {"w": jnp.ones(3, jnp.complex64)},
    "NumPy's float64": {"w": np.ones(3)},
    "a layer with the name of the network": {"": {"w": jnp.ones(3)}},
}
FORMS = {
    "mi_dynamic_lr": optax_mi.mi_dynamic_lr,
    "layerwise_mi_dynamic_lr": functools.partial(
        optax_mi.layerwise_mi_dynamic_lr, "auto"
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", TREES)
def test_hostile_parameters(row, form, tally):
    params, tx = TREES[row], FORMS[form](0.5, 0.5, reference=2.0)
    state = tx.init(params)
    for mi in (1.0, None, NAN):
        updates, after = tx.update(params, state, params, mi=mi)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for have, given in zip(
            jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
        ):
            half = np.asarray(given) * 0.5
            np.testing.assert_array_equal(np.asarray(have), half.astype(have.dtype))
        state = after
    tally("hostile inputs")


@pytest.mark.parametrize("value", [-1, NAN, INF, 1.5, "3", None, 2**40])
def test_track_value_only_counts_whole_measurements(value, tally):
    state = PLAIN.init(PARAMS)
    if value == 2**40:
        kept = optax_mi.track_value_only(state, value).value_only
        assert kept == 2**31 - 1
    else:
        check(
            Refused("`measurements` must be …"),
            lambda: optax_mi.track_value_only(state, value),
        )
    tally("hostile inputs")


def tables():
    given = [[row, cell(Refused(message))] for row, (_, message) in GIVEN.items()]
    return {
        "given": table(["given as a measurement", "result"], given),
        "parameters": table(
            ["parameters", "updates"],
            [[row, "half the gradients, same dtype and structure"] for row in TREES],
        ),
    }
