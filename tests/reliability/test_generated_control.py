"""Policies, the transformation and its state on generated input, beside a slow twin."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from generated import generated
from hypothesis import strategies as st

import optax_mi

# Nats of any size, and none.
NATS = st.floats(-5, 5, width=32) | st.floats(width=32, allow_nan=False)
RATES = st.floats(0, 1, width=32, allow_subnormal=False)
GAMMAS = RATES


def step(learning_rate, mi, previous_mi, reference, lr_min, lr_max, value_only):
    values = (learning_rate, mi, previous_mi, reference, lr_min, lr_max)
    numbers: Any = map(np.float32, values)
    return optax_mi.PolicyInput(*numbers, value_only=value_only)


@st.composite
def steps(draw, **fixed):
    """A policy's input: a rate within bounds, finite measurements."""
    low, rate, high = sorted(draw(st.lists(RATES, min_size=3, max_size=3)))
    finite = st.floats(
        -(2.0**127), 2.0**127, width=32, allow_subnormal=False
    ) | st.floats(-3, 3, width=32)
    given = {
        "learning_rate": rate,
        "mi": draw(finite),
        "previous_mi": draw(finite),
        "reference": draw(st.floats(0, 5, width=32) | st.just(np.float32(3.4e38))),
        "lr_min": low,
        "lr_max": high,
        "value_only": draw(st.booleans()),
    }
    return step(**{**given, **fixed})


def change_twin(p, gamma_up, gamma_down, epsilon):
    """The paper's first policy, in Python's numbers; the change is what decides."""
    if p.mi <= 0:
        return p.learning_rate, None
    delta = abs(p.mi - max(p.previous_mi, 0)) / p.mi
    if delta > epsilon:
        return min(p.lr_max, p.learning_rate + gamma_up * delta), delta
    return max(p.lr_min, p.learning_rate - gamma_down * delta), delta


def reference_twin(p, gamma_up, gamma_down, gamma_over, epsilon):
    """The paper's second policy, likewise."""
    if p.mi <= 0 or p.reference <= 0:
        return p.learning_rate, None
    d1 = 1 - p.mi / p.reference
    d2 = abs(p.mi - max(p.previous_mi, 0)) / p.mi
    if d1 <= 0:
        return max(p.lr_min, p.learning_rate + gamma_over * d1), d2
    if d2 > epsilon or p.value_only:
        return min(p.lr_max, p.learning_rate + gamma_up * d1), d2
    return max(p.lr_min, p.learning_rate - gamma_down * d1), d2


@jax.jit
def change(p, *rates):
    return optax_mi.change_policy(*rates)(p)


@jax.jit
def reference(p, *rates):
    return optax_mi.reference_policy(*rates)(p)


POLICIES = {
    "change": (change, change_twin, 3),
    "reference": (reference, reference_twin, 4),
}
policies = pytest.mark.parametrize("name", POLICIES)


def exactly(p):
    """The same input in Python's numbers."""
    numbers: Any = map(float, p[:6])
    return optax_mi.PolicyInput(*numbers, value_only=p.value_only)


@policies
@generated(60, 1200, p=steps(), rates=st.lists(GAMMAS, min_size=4, max_size=4))
def test_policies_are_their_equations_and_stay_within_the_bounds(name, p, rates):
    policy, twin, number = POLICIES[name]
    rates = rates[:number]
    answer = float(policy(p, *map(np.float32, rates)))
    assert p.lr_min <= answer <= p.lr_max
    expected, change = twin(exactly(p), *rates)
    on_the_edge = change is not None and math.isclose(change, rates[-1], rel_tol=1e-4)
    if not on_the_edge:
        assert answer == pytest.approx(expected, rel=1e-4, abs=1e-5)


@policies
@generated(30, 400, p=steps(), other=RATES)
def test_policies_rise_with_the_rate_in_force(name, p, other):
    policy, _, number = POLICIES[name]
    rates = [np.float32(0.1)] * number
    low, high = sorted([p.learning_rate, np.clip(other, p.lr_min, p.lr_max)])
    below, above = (policy(p._replace(learning_rate=v), *rates) for v in (low, high))
    assert below <= above


@generated(
    30, 400, p=steps(value_only=True), other=st.floats(0.0009765625, 5, width=32)
)
def test_by_value_alone_more_information_never_raises_the_rate(p, other):
    rates = [np.float32(0.1)] * 4
    less, more = sorted([max(p.mi, np.float32(2**-10)), np.float32(other)])
    lower, higher = (reference(p._replace(mi=v), *rates) for v in (more, less))
    assert lower <= higher + 1e-6


@generated(30, 400, p=steps(mi=1.0), changes=st.lists(GAMMAS, min_size=2, max_size=2))
def test_a_larger_change_raises_the_rate_by_no_less(p, changes):
    rates = [np.float32(0.1), np.float32(1), np.float32(0)]
    small, large = (np.float32(1) - np.float32(c) for c in sorted(changes))
    lower, higher = (change(p._replace(previous_mi=v), *rates) for v in (small, large))
    assert lower <= higher or small == 1  # no change at all lowers by nothing


EVENTS = st.one_of(
    st.tuples(st.just("update"), NATS | st.just(math.nan)),
    st.tuples(st.just("record"), NATS | st.just(math.nan)),
    st.tuples(st.just("loss"), st.sampled_from([1.0, math.nan, math.inf])),
    st.tuples(st.just("value only"), st.integers(0, 3)),
)
LOW, HIGH, REFERENCE = 0.001, 0.1, 2.0
PARAMS = {"w": jnp.ones(2)}
SMOOTHINGS = {
    smoothing: optax_mi.mi_dynamic_lr(
        LOW,
        HIGH,
        policy=optax_mi.reference_policy(),
        reference=REFERENCE,
        smoothing=smoothing,
    )
    for smoothing in (0.0, 0.75)
}
UPDATES = {smoothing: jax.jit(tx.update) for smoothing, tx in SMOOTHINGS.items()}


class Twin:
    """The transformation's state machine, in Python's numbers."""

    def __init__(self, smoothing):
        self.rate, self.mi, self.pending = LOW, None, None
        self.value_only, self.smoothing = 0, smoothing
        self.doubtful = False

    def measure(self, mi):
        if mi is None or not math.isfinite(mi) or mi <= -3.4028234e38:
            return
        if self.mi is not None:
            mi = self.smoothing * self.mi + (1 - self.smoothing) * mi
            p = optax_mi.PolicyInput(
                *(self.rate, mi, self.mi, REFERENCE, LOW, HIGH),  # pyright: ignore
                value_only=self.value_only > 0,  # pyright: ignore
            )
            self.rate, change = reference_twin(p, 0.1, 0.1, 0.1, 0.003)
            # Too near to a threshold for float32 to agree on the side.
            near = change is not None and math.isclose(change, 0.003, rel_tol=1e-2)
            self.doubtful |= near or abs(mi) < 1e-30 or abs(mi) > 1e30
        self.mi = mi
        self.value_only = max(self.value_only - 1, 0)

    def update(self, mi=None, loss=1.0):
        self.measure(self.pending)
        self.pending = None
        self.measure(mi)
        if not math.isfinite(loss):
            self.rate = LOW


@generated(
    60,
    2500,
    events=st.lists(EVENTS, min_size=1, max_size=12),
    smoothing=st.sampled_from(list(SMOOTHINGS)),
)
def test_whatever_happens_the_rate_is_that_of_the_twin_and_within_the_bounds(
    events, smoothing
):
    twin, state = Twin(smoothing), SMOOTHINGS[smoothing].init(PARAMS)
    update, dtypes = UPDATES[smoothing], jax.tree.map(jnp.result_type, state)
    for what, value in events:
        mi, loss = math.nan, 1.0
        if what == "record":
            state = optax_mi.record_mi(state, value)
            known = math.isfinite(value) and value > -3.4028234e38
            twin.pending = value if known else twin.pending
        elif what == "value only":
            state = optax_mi.track_value_only(state, value)
            twin.value_only = value
        else:
            mi = value if what == "update" else math.nan
            loss = value if what == "loss" else 1.0
            twin.update(mi, loss)
            _, state = update(PARAMS, state, PARAMS, mi=mi, value=loss)
        assert np.float32(LOW) <= state.learning_rate <= np.float32(HIGH)
        assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(state))
        assert jax.tree.map(jnp.result_type, state) == dtypes
        if twin.doubtful:
            return
        assert float(state.learning_rate) == pytest.approx(twin.rate, rel=1e-3)
        assert int(state.value_only) == twin.value_only


LAYERS = {name: {"kernel": jnp.ones(1)} for name in "abcd"}
BY_LAYER = optax_mi.layerwise_mi_dynamic_lr(
    "auto", LOW, HIGH, reference=2.0, policy=optax_mi.reference_policy()
)


@generated(
    10,
    200,
    order=st.permutations("abcd"),
    values=st.lists(st.floats(0.125, 3, width=32), min_size=8, max_size=8),
)
def test_the_order_of_keys_does_not_matter(order, values):
    states = []
    for keys in ("abcd", order):
        state = BY_LAYER.init(LAYERS)
        for half in (values[:4], values[4:]):
            mi = dict(zip("abcd", half, strict=True))
            state = optax_mi.record_mi(state, {key: mi[key] for key in keys})
            _, state = BY_LAYER.update(LAYERS, state, LAYERS)
        states.append(state)
    assert_same(*states)


@st.composite
def states(draw):
    """States of one rate and of several, of any numbers."""
    fields = optax_mi.MIDynamicLRState._fields
    integers = ("count", "value_only")

    def state():
        return optax_mi.MIDynamicLRState(
            *(
                jnp.asarray(draw(st.integers(0, 2**31 - 1)), jnp.int32)
                if field in integers
                else jnp.asarray(draw(NATS), jnp.float32)
                for field in fields
            )
        )

    return {"plain": state(), "chained": (optax.EmptyState(), state())}


def assert_same(have, want):
    assert jax.tree.structure(have) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@generated(30, 800, state=states())
def test_states_survive_flattening_and_msgpack(state):
    leaves, structure = jax.tree.flatten(state)
    assert_same(jax.tree.unflatten(structure, leaves), state)
    fresh = jax.tree.map(jnp.zeros_like, state)
    assert_same(serialization.from_bytes(fresh, serialization.to_bytes(state)), state)


@generated(5, 100, state=states())
def test_states_survive_npz_without_pickle_and_orbax(tmp_path_factory, state):
    folder = tmp_path_factory.mktemp("state")
    leaves, structure = jax.tree.flatten(state)
    np.savez(folder / "state.npz", *leaves)
    with np.load(folder / "state.npz", allow_pickle=False) as stored:
        assert_same(jax.tree.unflatten(structure, [*stored.values()]), state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(folder / "orbax", state)
    assert_same(restored, state)
