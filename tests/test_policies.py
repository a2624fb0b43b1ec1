"""The policies against the paper's equations, worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measurements import PARAMS

import optax_mi


def decide(policy, mi, previous, lr=0.05, reference=2.0, value_only=False, jit=True):
    step = optax_mi.PolicyInput(
        learning_rate=jnp.float32(lr),
        mi=jnp.float32(mi),
        previous_mi=jnp.float32(previous),
        reference=jnp.float32(reference),
        lr_min=jnp.float32(0.001),
        lr_max=jnp.float32(0.1),
        value_only=jnp.asarray(value_only),
    )
    answer = (jax.jit(policy) if jit else policy)(step)
    assert answer.shape == ()
    assert answer.dtype == jnp.float32
    return float(answer)


CHANGE = {
    "grows: 0.05 + 0.1 * 0.1 / 1": (1.0, 0.9, 0.06),
    "falls by as much: raised too, the change is absolute": (1.0, 1.1, 0.06),
    "raised to lr_max at most": (1.0, 0.1, 0.1),
    "saturated: 0.05 - 1 * 0.01 / 2": (2.0, 1.99, 0.045),
    "no change at all: stays": (2.0, 2.0, 0.05),
    "zero information: stays": (0.0, 1.0, 0.05),
    "a negative estimate: stays": (-0.1, 1.0, 0.05),
    "a negative one before counts as zero": (1.0, -5.0, 0.1),
}


@pytest.mark.parametrize(("mi", "previous", "expected"), CHANGE.values(), ids=CHANGE)
def test_change_policy(mi, previous, expected):
    policy = optax_mi.change_policy()
    assert decide(policy, mi, previous) == pytest.approx(expected, rel=1e-4)


def test_change_policy_lowers_to_lr_min_at_most():
    policy = optax_mi.change_policy(gamma_down=100.0)
    assert decide(policy, 2.0, 1.99) == pytest.approx(0.001)


def test_a_negative_estimate_before_counts_as_zero():
    policy = optax_mi.change_policy(gamma_up=0.01)
    for previous in (0.0, -0.5, -5.0):
        assert decide(policy, 1.0, previous) == pytest.approx(0.05 + 0.01 * 1)


def test_a_change_of_just_epsilon_counts_as_none():
    policy = optax_mi.change_policy(gamma_down=0.02, epsilon=0.5)
    assert decide(policy, 1.0, 0.5) == pytest.approx(0.05 - 0.02 * 0.5)
    policy = optax_mi.reference_policy(gamma_down=0.02, epsilon=0.5)
    assert decide(policy, 1.0, 0.5) == pytest.approx(0.05 - 0.02 * 0.5)


REFERENCE = {
    "d1 > 0, d2 > eps: 0.05 + 0.1 * (1 - 1.5 / 2)": (1.5, 1.0, 0.075),
    "the same while it falls": (1.5, 2.0, 0.075),
    "raised to lr_max at most": (0.5, 0.1, 0.1),
    "d1 > 0, d2 <= eps: 0.05 - 0.1 * (1 - 1.5 / 2)": (1.5, 1.497, 0.025),
    "a change of two thirds of a percent is one": (1.5, 1.49, 0.075),
    "lowered to lr_min at most": (0.5, 0.501, 0.001),
    "d1 < 0, d2 > eps: 0.05 + 0.1 * (1 - 2.2 / 2)": (2.2, 2.0, 0.04),
    "d1 < 0, d2 <= eps: the same": (2.2, 2.199, 0.04),
    "far above: lr_min at most": (4.0, 2.0, 0.001),
    "d1 = 0: stays, whatever d2": (2.0, 1.0, 0.05),
    "zero information: stays": (0.0, 1.0, 0.05),
    "a negative estimate: stays": (-0.1, 1.0, 0.05),
    "a negative one before counts as zero": (1.5, -3.0, 0.075),
}


@pytest.mark.parametrize(
    ("mi", "previous", "expected"), REFERENCE.values(), ids=REFERENCE
)
def test_reference_policy(mi, previous, expected):
    policy = optax_mi.reference_policy()
    assert decide(policy, mi, previous) == pytest.approx(expected, rel=1e-4)


def test_reference_policy_has_a_rate_for_each_case():
    policy = optax_mi.reference_policy(0.01, 0.02, 0.03)
    assert decide(policy, 1.5, 1.0) == pytest.approx(0.05 + 0.01 * 0.25)
    assert decide(policy, 1.5, 1.5) == pytest.approx(0.05 - 0.02 * 0.25)
    assert decide(policy, 2.5, 1.0) == pytest.approx(0.05 - 0.03 * 0.25)


def test_reference_policy_ignores_the_change_in_value_only_mode():
    policy = optax_mi.reference_policy()
    assert decide(policy, 1.5, 1.5, value_only=True) == pytest.approx(0.075)
    assert decide(policy, 2.2, 2.2, value_only=True) == pytest.approx(0.04)


@pytest.mark.parametrize("reference", [0.0, -1.0, np.nan])
def test_reference_policy_stays_without_a_usable_reference(reference):
    policy = optax_mi.reference_policy()
    assert decide(policy, 1.5, 1.0, reference=reference) == pytest.approx(0.05)


def test_a_missing_reference_is_no_bound():
    # What a policy that does not insist on a reference is given.
    policy = optax_mi.reference_policy()
    assert decide(policy, 1.5, 1.0, reference=np.inf) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "policy", [optax_mi.change_policy(), optax_mi.reference_policy()]
)
def test_answers_are_finite_and_within_the_bounds(policy):
    values = [-1e30, -1.0, -1e-30, 0.0, 1e-30, 1e-3, 1.0, 2.0, 5.0, 1e30]
    for mi in values:
        for previous in values:
            assert 0.001 <= decide(policy, mi, previous) <= 0.1 + 1e-8


@pytest.mark.parametrize(
    "policy", [optax_mi.change_policy(), optax_mi.reference_policy()]
)
def test_nothing_is_divided_by_zero(policy):
    with jax.debug_nans(True), jax.debug_infs(True):
        for mi, previous, reference in [(0, 0, 2), (0, 1, 2), (1, 0, 0), (-1, 1, 0)]:
            assert decide(policy, mi, previous, reference=reference, jit=False) > 0


def test_any_function_of_a_step_is_a_policy():
    assert isinstance(optax_mi.change_policy(), optax_mi.Policy)
    assert not isinstance(0.1, optax_mi.Policy)


def test_only_the_second_policy_needs_a_reference():
    assert optax_mi.reference_policy().needs_reference  # pyright: ignore
    assert not hasattr(optax_mi.change_policy(), "needs_reference")


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (optax_mi.change_policy, "gamma_up"),
        (optax_mi.change_policy, "gamma_down"),
        (optax_mi.change_policy, "epsilon"),
        (optax_mi.reference_policy, "gamma_up"),
        (optax_mi.reference_policy, "gamma_down"),
        (optax_mi.reference_policy, "gamma_over"),
        (optax_mi.reference_policy, "epsilon"),
    ],
)
def test_bad_rates_are_refused_with_their_name(factory, name, bad):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and >= 0"):
        factory(**{name: bad})


@pytest.mark.parametrize("bad", [0.1, "warm-up", (), (None, None), (lambda: 0,)])
def test_what_is_no_policy_is_refused_with_its_name(bad):
    with pytest.raises(
        ValueError, match="`policy` must be a function of a PolicyInput"
    ):
        optax_mi.mi_dynamic_lr(0.1, 0.2, policy=bad)


PAIRS = {
    "a plain pair": lambda init, update: (init, update),
    "named": optax_mi.PolicyWithMemory,
}


@pytest.mark.parametrize("make", PAIRS.values(), ids=PAIRS)
def test_a_pair_remembers_from_the_first_measurement_on(make):
    def update(step, memory):
        total = memory["total"] + step.mi
        return total / 10, {"total": total, "first": memory["first"] | (step.mi < 1)}

    pair = make(lambda: {"total": jnp.zeros(()), "first": jnp.array(False)}, update)
    tx = optax_mi.mi_dynamic_lr(0.001, 1.0, policy=pair)
    state, rates = tx.init(jnp.ones(2)), []
    for mi in (0.5, None, np.nan, 1.0, 1.5):
        _, state = jax.jit(tx.update)(jnp.ones(2), state, mi=mi)
        rates.append(optax_mi.learning_rates(state)[""])
    np.testing.assert_allclose(rates, [0.05, 0.05, 0.05, 0.15, 0.3], rtol=1e-6)


def test_an_answer_that_is_not_finite_changes_no_rate_of_a_pair():
    pair = (lambda: (), lambda step, memory: (step.mi * np.nan, memory))
    tx = optax_mi.mi_dynamic_lr(0.001, 1.0, policy=pair, init_lr=0.02)
    _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), mi=1.0)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(0.02)


@pytest.mark.parametrize(
    "changed",
    [lambda memory: (memory, memory), lambda memory: jnp.ones(3)],
    ids=["structure", "shape"],
)
def test_a_memory_that_changes_its_form_is_refused(changed):
    pair = (lambda: jnp.zeros(()), lambda step, memory: (step.mi, changed(memory)))
    tx = optax_mi.mi_dynamic_lr(0.001, 1.0, policy=pair)
    with pytest.raises(ValueError, match="`policy` must be a pair whose memory keeps"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), mi=1.0)


def test_a_pair_may_need_a_reference():
    pair = optax_mi.PolicyWithMemory(lambda: (), lambda p, m: (p.lr_max, m), True)
    tx = optax_mi.mi_dynamic_lr(0.001, 1.0, policy=pair)
    with pytest.raises(ValueError, match="`reference` must be given"):
        optax_mi.record_mi(tx.init(jnp.ones(2)), 1.0)


def test_a_diverged_loss_asks_a_pair_and_not_without_one():
    pair = (lambda: (), lambda p, m: (jnp.where(p.diverged, 0.5, p.learning_rate), m))
    tx = optax_mi.mi_dynamic_lr(0.001, 1.0, policy=pair)
    _, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=1.0)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(0.001)
    _, state = tx.update(jnp.ones(2), state, value=jnp.inf)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(0.5)


def test_the_state_of_a_policy_without_a_memory_is_that_of_version_0_1_0():
    fields = "count learning_rate mi previous_mi reference value_only pending"
    state = optax_mi.mi_dynamic_lr(0.1, 0.2, policy=optax_mi.change_policy()).init({})
    assert type(state) is optax_mi.MIDynamicLRState
    assert " ".join(state._fields) == fields


DECAY = {
    "no change: 0.05 * (1 - 0.5)": (2.0, 2.0, 0.025),
    "half of epsilon: 0.05 * (1 - 0.25)": (2.0, 1.99, 0.0375),
    "epsilon or more: stays": (2.0, 1.9, 0.05),
    "a fall by as much: stays": (2.0, 2.1, 0.05),
    "zero information: stays": (0.0, 1.0, 0.05),
}


@pytest.mark.parametrize(("mi", "previous", "expected"), DECAY.values(), ids=DECAY)
def test_decay_policy(mi, previous, expected):
    policy = optax_mi.decay_policy(gamma=0.5)
    assert decide(policy, mi, previous) == pytest.approx(expected, rel=1e-4)


def test_decay_policy_lowers_to_lr_min_at_most():
    assert decide(optax_mi.decay_policy(1.0), 2.0, 2.0) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("argument", "value"), [("gamma", -0.1), ("gamma", 1.1), ("epsilon", 0.0)]
)
def test_bad_options_of_the_decay_are_refused_with_their_name(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be "):
        optax_mi.decay_policy(**{argument: value})


def test_gammas_are_the_upper_bound_where_they_are_not_given():
    # Policy B with bounds a tenth of the paper's: 0.005 + 0.01 * (1 - 1.5 / 2).
    numbers: Any = map(jnp.float32, (0.005, 1.5, 1.0, 2.0, 1e-4, 0.01))
    step = optax_mi.PolicyInput(*numbers, value_only=jnp.array(False))
    assert optax_mi.reference_policy()(step) == pytest.approx(0.0075)
    assert optax_mi.reference_policy(0.02)(step) == pytest.approx(0.01)
    # Policy A: 0.005 + 0.01 / 3, and ten times as fast down.
    assert optax_mi.change_policy()(step) == pytest.approx(0.005 + 0.01 / 3)
    still = step._replace(previous_mi=jnp.float32(1.4925))
    assert optax_mi.change_policy()(still) == pytest.approx(0.0045, rel=1e-3)


def layerwise(*args, **options):
    return optax_mi.layerwise_mi_dynamic_lr("auto", *args, **options)


OWN = [optax_mi.change_policy, optax_mi.reference_policy, optax_mi.decay_policy]
# Optax calls them with a count of steps, and hands on what comes out.
TAKEN_FOR_SCHEDULES = {
    **{make.__name__: make() for make in OWN},
    "a user's, of one of these": lambda p: OWN[0]()(p) / 2,
    "a user's, to a number": lambda p: 0.01,
    "a user's, of anything": lambda p: p * 2,
}


@pytest.mark.parametrize("make", [optax_mi.mi_dynamic_lr, layerwise])
@pytest.mark.parametrize("compiled", [False, True], ids=["", "jit"])
@pytest.mark.parametrize(
    "policy", TAKEN_FOR_SCHEDULES.values(), ids=TAKEN_FOR_SCHEDULES
)
def test_a_policy_that_is_taken_for_a_schedule_says_what_to_write(
    policy, compiled, make
):
    def factory(lr_min, lr_max, policy):
        return make(lr_min, lr_max, policy=policy)

    tx = optax.inject_hyperparams(factory)(1e-3, 0.1, policy)
    init = jax.jit(tx.init) if compiled else tx.init
    with pytest.raises(ValueError, match=r'`policy` must be .*static_args="policy"'):
        init(PARAMS)
    if policy is not TAKEN_FOR_SCHEDULES["a user's, of anything"]:
        optax.inject_hyperparams(factory, static_args="policy")(1e-3, 0.1, policy).init(
            PARAMS
        )


@pytest.mark.parametrize(
    "policy",
    [
        optax_mi.warmup_stable_decay_policy(),
        (lambda: jnp.zeros(()), lambda p, memory: (p.lr_max, memory)),
        {"dense": optax_mi.change_policy(), "head": optax_mi.decay_policy()},
    ],
    ids=["with a memory", "a pair", "a mapping"],
)
def test_pairs_and_mappings_are_not_taken_for_schedules(policy):
    make = layerwise if isinstance(policy, dict) else optax_mi.mi_dynamic_lr

    def factory(lr_min, lr_max, policy):
        return make(lr_min, lr_max, policy=policy, init_lr=0.05)

    injected, plain = optax.inject_hyperparams(factory), factory
    found = []
    for tx in (injected(1e-3, 0.1, policy), plain(1e-3, 0.1, policy)):
        state = tx.init(PARAMS)
        for mi in (1.0, 0.5):
            _, state = jax.jit(tx.update)(PARAMS, state, PARAMS, mi=mi)
        found.append(optax_mi.learning_rates(state))
    assert found[0] == pytest.approx(found[1])
    assert 0.05 not in found[0].values()
