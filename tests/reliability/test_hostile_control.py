"""Hostile measurements, bounds and states: what the rate makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rows import Outcome, Refused, cell, check, table

import optax_mi

PARAMS = {"w": jnp.ones(3)}
LOW, HIGH = 0.001, 0.1
NAN, INF = float("nan"), float("inf")
POLICIES = {
    "reference_policy": optax_mi.reference_policy,
    "change_policy": optax_mi.change_policy,
}
# One for all rows: another one is another program.
STEERING = {
    name: optax_mi.mi_dynamic_lr(LOW, HIGH, policy=make(), reference=2.0)
    for name, make in POLICIES.items()
}
PLAIN = STEERING["reference_policy"]
LAYERS = {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.ones(2)}}
LAYERWISE = optax_mi.layerwise_mi_dynamic_lr(
    "auto", LOW, HIGH, reference=2.0, policy=optax_mi.reference_policy()
)


def rates(*values):
    """These rates, one after each measurement."""
    text = ", ".join(f"{value:g}" for value in values)

    def holds(found, _):
        return np.isclose(found, values, rtol=1e-4, atol=1e-8)

    return Outcome(text, holds)


def run(tx, measurements, state=None, params=PARAMS, compiled=True, **extra):
    state = tx.init(params) if state is None else state
    update = jax.jit(tx.update) if compiled else tx.update
    found = []
    for mi in measurements:
        _, state = update(params, state, params, mi=mi, **extra)
        found.append(optax_mi.learning_rates(state)[""])
    return np.array(found)


# What is measured, one after the other; the rates by either policy, of which the first
# has a reference of 2.
SEQUENCES = {
    "falls to NaN": ([0.5, 1, NAN, NAN, 1.5], [1, 51, 51, 51, 76], [1, 51, 51, 51, 84]),
    "infinity in between": ([0.5, INF, 1], [1, 1, 51], [1, 1, 51]),
    "-infinity in between": ([0.5, -INF, 1], [1, 1, 51], [1, 1, 51]),
    "NaN and None only": ([NAN, None, NAN], [1, 1, 1], [1, 1, 1]),
    "never measured": ([None, None], [1, 1], [1, 1]),
    "the same twice": ([0.5, 1, 1], [1, 51, 1], [1, 51, 51]),
    "all 0": ([0.0, 0.0, 0.0], [1, 1, 1], [1, 1, 1]),
    "0 between": ([0.5, 1, 0.0, 1], [1, 51, 51, 100], [1, 51, 51, 100]),
    "negative": ([-0.5, -0.1, -0.2], [1, 1, 1], [1, 1, 1]),
    "negative, then positive": ([-1.0, 0.5], [1, 76], [1, 100]),
    "above the reference": ([0.5, 1, 2.2, 3], [1, 51, 41, 1], [1, 51, 100, 100]),
    "1e30, 1e38": ([1e30, 1e38, 1], [1, 1, 51], [1, 100, 100]),
    "1e-30 and subnormal": ([1e-30, 1e-38, 1e-45], [1, 1, 1], [1, 1, 1]),
    "the lowest float32": (
        [-3.4028235e38, 0.5, 1],
        [1, 1, 51],
        [1, 1, 51],
    ),
    "in bfloat16": (
        [jnp.bfloat16(0.5), jnp.bfloat16(1), np.float16(1.5)],
        [1, 51, 76],
        [1, 51, 84],
    ),
    "Python's and NumPy's integers": ([1, np.int32(2)], [1, 1], [1, 51]),
}


def thousandths(values):
    exact = {84: 0.051 + 0.1 / 3, 76: 0.076}
    return rates(*(exact.get(value, value / 1000) for value in values))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", SEQUENCES)
def test_hostile_measurements(row, policy, compiled, tally):
    measurements, *expected = SEQUENCES[row]
    outcome = thousandths(expected[list(POLICIES).index(policy)])
    check(outcome, lambda: run(STEERING[policy], measurements, compiled=compiled))
    tally("hostile inputs")


@pytest.mark.parametrize("row", SEQUENCES)
def test_hostile_measurements_of_one_layer_leave_the_other_alone(row, tally):
    measurements, expected, _ = SEQUENCES[row]
    state, plain = LAYERWISE.init(LAYERS), [0.5, 1, 1, 1.5, 1.9]
    update = jax.jit(LAYERWISE.update)
    for mi, other in zip(measurements, plain, strict=False):
        _, state = update(LAYERS, state, LAYERS, mi={"a": mi, "b": other})
    found = optax_mi.learning_rates(state)
    undisturbed = run(PLAIN, plain[: len(measurements)])
    last = thousandths(expected[-1:])
    assert last.holds(found["a"], None), found
    assert found["b"] == pytest.approx(undisturbed[-1])
    tally("hostile inputs")


FIVE = [0.5, 1, 1.5, 1.5, 3]
STEERED = rates(0.001, 0.051, 0.076, 0.051, 0.001)


def with_bounds(*bounds, **options):
    policy = optax_mi.reference_policy(0.1, 0.1, 0.1)
    options = {"reference": 2.0, "policy": policy, **options}
    return run(optax_mi.mi_dynamic_lr(*bounds, **options), FIVE)


def given_as_arguments(lr_min, lr_max, smoothing):
    return optax_mi.mi_dynamic_lr(
        lr_min,
        lr_max,
        smoothing=smoothing,
        reference=2.0,
        policy=optax_mi.reference_policy(0.1, 0.1, 0.1),
    )


@jax.jit
def traced_init(*arguments):
    return given_as_arguments(*arguments).init(PARAMS)


@jax.jit
def traced_update(arguments, state, mi):
    return given_as_arguments(*arguments).update(PARAMS, state, mi=mi)[1]


def traced(*bounds, smoothing=0.0):
    """As arguments of a compiled step, which `optax.inject_hyperparams` makes them."""
    arguments, found = (*bounds, smoothing), []
    state = traced_init(*arguments)
    for mi in FIVE:
        state = traced_update(arguments, state, mi)
        found.append(state.learning_rate)
    return np.array(found)


FINITE = "must be finite and >= 0, got"
BOUNDS = {
    "0 and 0": (lambda: with_bounds(0, 0), rates(0, 0, 0, 0, 0)),
    "equal": (lambda: with_bounds(0.1, 0.1), rates(*[0.1] * 5)),
    "1e-45 and 1e-40": (lambda: with_bounds(1e-45, 1e-40), rates(*[0] * 5)),
    "1e-30 and 1e30": (
        lambda: with_bounds(1e-30, 1e30),
        rates(0, 0.05, 0.075, 0.05, 0),
    ),
    "beyond float32": (
        lambda: with_bounds(0, 1e39),
        Refused(f"`lr_max` {FINITE} 1e+39"),
    ),
    "NaN": (lambda: with_bounds(NAN, 0.1), Refused(f"`lr_min` {FINITE} nan")),
    "an array of NaN": (
        lambda: with_bounds(0.001, jnp.float32(NAN)),
        Refused(f"`lr_max` {FINITE} nan"),
    ),
    "infinite": (lambda: with_bounds(0, INF), Refused(f"`lr_max` {FINITE} inf")),
    "negative": (lambda: with_bounds(-0.1, 0.1), Refused(f"`lr_min` {FINITE} -0.1")),
    "the wrong way round": (
        lambda: with_bounds(0.2, 0.1),
        Refused("`lr_min` must be at most `lr_max` = 0.1, got 0.2"),
    ),
    "arrays the wrong way round": (
        lambda: with_bounds(jnp.float32(0.2), 0.1),
        Refused("`lr_min` must be at most `lr_max` = 0.1, got 0.2…"),
    ),
    "an array with an axis": (
        lambda: with_bounds(np.array([0.1]), 0.2),
        Refused("`lr_min` must be a number, got float64 of shape (1,)"),
    ),
    "a schedule": (
        lambda: with_bounds(optax.constant_schedule(0.1), 0.2),
        Refused("`lr_min` must be a number, got function …"),
    ),
    "complex": (
        lambda: with_bounds(0.1, 1j),
        Refused("`lr_max` must be a number, got complex 1j"),
    ),
    "traced NaN above": (lambda: traced(0.001, NAN), rates(*[0.001] * 5)),
    "traced NaN below": (lambda: traced(NAN, 0.1), rates(0, 0.05, 0.075, 0.05, 0)),
    "traced, negative above": (lambda: traced(0.001, -0.1), rates(*[0.001] * 5)),
    "traced, negative below": (
        lambda: traced(-0.1, 0.1),
        rates(0, 0.05, 0.075, 0.05, 0),
    ),
    "traced, infinite above": (lambda: traced(0.001, INF), rates(*[0.001] * 5)),
    "traced, the wrong way round": (lambda: traced(0.2, 0.1), rates(*[0.1] * 5)),
    "reference 0": (lambda: with_bounds(LOW, HIGH, reference=0), rates(*[LOW] * 5)),
    "reference 1e-45": (
        lambda: with_bounds(LOW, HIGH, reference=1e-45),
        rates(*[LOW] * 5),
    ),
    "reference 3e38": (
        lambda: with_bounds(LOW, HIGH, reference=3e38),
        rates(LOW, HIGH, HIGH, LOW, HIGH),
    ),
    "reference NaN": (
        lambda: with_bounds(LOW, HIGH, reference=NAN),
        Refused(f"`reference` {FINITE} nan"),
    ),
    "reference negative": (
        lambda: with_bounds(LOW, HIGH, reference=-1),
        Refused(f"`reference` {FINITE} -1"),
    ),
    "no reference, compiled": (
        lambda: with_bounds(LOW, HIGH, reference=None),
        rates(*[LOW] * 5)._replace(text="0.001, and a warning"),
    ),
    "no reference, eager": (
        lambda: run(
            optax_mi.mi_dynamic_lr(LOW, HIGH, policy=optax_mi.reference_policy()),
            FIVE,
            compiled=False,
        ),
        Refused("`reference` must be given…"),
    ),
    "smoothing of 1": (
        lambda: with_bounds(LOW, HIGH, smoothing=1),
        Refused("`smoothing` must be less than 1, got 1"),
    ),
    "smoothing of NaN": (
        lambda: with_bounds(LOW, HIGH, smoothing=NAN),
        Refused(f"`smoothing` {FINITE} nan"),
    ),
    "traced smoothing of NaN: taken as 0": (
        lambda: traced(LOW, HIGH, smoothing=NAN),
        STEERED,
    ),
    "traced smoothing of infinity: taken as 0": (
        lambda: traced(LOW, HIGH, smoothing=INF),
        STEERED,
    ),
    "a policy that returns NaN": (
        lambda: with_bounds(LOW, HIGH, policy=lambda p: p.mi * NAN),
        rates(*[LOW] * 5),
    ),
    "a policy that returns infinity": (
        lambda: with_bounds(LOW, HIGH, policy=lambda p: p.mi / 0),
        rates(*[LOW] * 5),
    ),
    "a policy that returns -1": (
        lambda: with_bounds(LOW, HIGH, policy=lambda p: -p.mi),
        rates(*[LOW] * 5),
    ),
    "a policy that returns an array with an axis": (
        lambda: with_bounds(LOW, HIGH, policy=lambda p: jnp.ones(1)),
        Refused("`policy` must be a function to a scalar, got (1,)"),
    ),
}


@pytest.mark.parametrize("row", BOUNDS)
def test_hostile_bounds_references_and_policies(row, tally):
    call, outcome = BOUNDS[row]
    check(outcome, call)
    tally("hostile inputs")


# A state that a checkpoint was damaged to: the rates after 0.5, 1, 1.5, 1.5, 3.
STATES = {
    ("learning_rate", NAN): STEERED,
    ("learning_rate", INF): STEERED,
    ("learning_rate", -INF): STEERED,
    ("learning_rate", -1.0): STEERED,
    ("learning_rate", 1e30): rates(0.1, 0.1, 0.1, 0.075, 0.025),
    ("mi", NAN): STEERED,
    ("mi", INF): STEERED,
    ("mi", -INF): STEERED,
    ("mi", -1.0): rates(0.076, 0.1, 0.1, 0.075, 0.025),
    ("previous_mi", NAN): STEERED,
    ("previous_mi", INF): STEERED,
    ("reference", NAN): rates(*[LOW] * 5),
    ("reference", INF): rates(*[LOW] * 5),
    ("reference", -1.0): rates(*[LOW] * 5),
    ("pending", NAN): STEERED,
    ("pending", INF): STEERED,
    ("pending", -1.0): rates(0.076, 0.1, 0.1, 0.075, 0.025),
    ("value_only", -3): STEERED,
    ("count", -1): STEERED,
}


@pytest.mark.parametrize(("field", "value"), STATES)
def test_damaged_states(field, value, tally):
    state = PLAIN.init(PARAMS)
    wrong = jnp.asarray(value, getattr(state, field).dtype)
    damaged = state._replace(**{field: wrong})
    check(STATES[field, value], lambda: run(PLAIN, FIVE, damaged))
    if field not in ("reference", "count"):
        check(rates(*[LOW] * 2), lambda: run(PLAIN, [NAN, NAN], state))
    tally("hostile inputs")


def test_layers_that_vanish_and_come_back(tally):
    tx, params = LAYERWISE, LAYERS
    state = tx.init(params)
    for mi in ({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 1.0}):
        _, state = tx.update(params, state, params, mi=mi)
    check(
        Refused("`mi` must be a mapping from layers that the labels of parameters…"),
        lambda: tx.update(params, state, params, mi={"a": 1.5}),
    )
    _, state = tx.update(params, state, params, mi={"a": 1.5, "b": None})
    assert optax_mi.learning_rates(state) == pytest.approx({"a": 0.076, "b": 0.051})
    _, state = tx.update(params, state, params, mi={"b": 1.5, "a": 1.9})
    assert optax_mi.learning_rates(state) == pytest.approx({"a": 0.081, "b": 0.076})
    tally("hostile inputs", 4)


def test_measurements_out_of_order_are_taken_as_they_come(tally):
    """A measurement has no time: the same again, or an old one, is a new one."""
    tx = PLAIN
    in_order, state = tx.init(PARAMS), tx.init(PARAMS)
    for mi in (0.5, 1.0):
        in_order = optax_mi.record_mi(in_order, mi)
        _, in_order = tx.update(PARAMS, in_order, PARAMS)
    for mi in (1.0, 0.5):  # two before one update: the later replaces the earlier
        state = optax_mi.record_mi(state, mi)
    _, state = tx.update(PARAMS, state, PARAMS, mi=1.0)  # and comes before this one
    assert jax.tree.map(float, state._replace(count=0)) == pytest.approx(
        jax.tree.map(float, in_order._replace(count=0))
    )
    tally("hostile inputs")


def tables():
    lines = [
        [row, *(thousandths(e).text for e in expected)]
        for row, (_, *expected) in SEQUENCES.items()
    ]
    states = [
        [f"`{field}` is {value:g}", cell(outcome)]
        for (field, value), outcome in STATES.items()
    ]
    return {
        "measurements": table(
            ["measurements", *(f"rates by `{p}`" for p in POLICIES)], lines
        ),
        "bounds": table(
            ["bounds, reference, policy", "rates"],
            [[row, cell(outcome)] for row, (_, outcome) in BOUNDS.items()],
        ),
        "states": table(["state", "rates"], states),
    }
