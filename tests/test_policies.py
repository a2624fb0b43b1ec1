"""The policies against the paper's equations, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
