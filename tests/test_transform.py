import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from measurements import GRADS, MEASUREMENTS, PARAMS, RATES, transform

import optax_mi


def rates(tx, measurements, state=None):
    """The learning rate after each measurement given to `update`."""
    state = tx.init(PARAMS) if state is None else state
    seen = []
    for mi in measurements:
        _, state = tx.update(GRADS, state, PARAMS, mi=mi)
        seen.append(float(optax.tree.get(state, "learning_rate")))
    return seen


def test_the_rate_follows_the_measurements():
    np.testing.assert_allclose(rates(transform(), MEASUREMENTS), RATES, rtol=1e-5)


def test_updates_are_scaled_by_the_rate():
    tx, grads = transform(), {"w": jnp.array([-3.0, 0.0, 0.5, 2.0])}
    state = tx.init(grads)
    for mi, rate in zip(MEASUREMENTS, RATES, strict=True):
        updates, state = tx.update(grads, state, grads, mi=mi)
        expected = -rate * np.asarray(grads["w"])
        np.testing.assert_allclose(jax.tree.leaves(updates)[0], expected, rtol=1e-5)


def test_it_starts_at_lr_min_or_at_init_lr_and_waits_for_two_measurements():
    assert rates(transform(), [None, 1.0, None]) == pytest.approx([0.001] * 3)
    assert rates(transform(init_lr=0.02), [None, 1.0]) == pytest.approx([0.02] * 2)


@pytest.mark.parametrize("nothing", [None, np.nan, np.inf, -np.inf])
def test_no_measurement_keeps_the_rate_and_the_history(nothing):
    tx = transform()
    with_gaps = [0.5, nothing, nothing, 1.0, nothing, 1.5, 1.5, nothing, 2.2]
    seen = rates(tx, with_gaps)
    np.testing.assert_allclose([seen[i] for i in (0, 3, 5, 6, 8)], RATES, rtol=1e-5)
    assert seen[1] == seen[2] == seen[0]
    assert seen[7] == seen[6]


@pytest.mark.parametrize("policy", [optax_mi.change_policy, optax_mi.reference_policy])
def test_the_rate_never_leaves_its_bounds_nor_becomes_nan(policy):
    rng = np.random.default_rng(0)
    wild = np.concatenate([rng.normal(1, 2, 200), [0, -0.0, 1e-38, 1e30, -1e30, 1.0]])
    slow = policy(gamma_up=0.001)
    seen = rates(transform(policy=slow), rng.permutation(wild))
    assert np.all(np.isfinite(seen))
    assert min(seen) >= np.float32(1e-3)
    assert max(seen) <= np.float32(0.1)
    assert len(set(seen)) > 5


def test_a_user_written_policy_is_consulted_with_finite_values_and_clipped():
    def proportional(p):
        assert isinstance(p, optax_mi.PolicyInput)
        return p.lr_max * (p.mi - p.previous_mi)

    seen = rates(transform(policy=proportional), [0.5, 1.0, 3.0, 2.0])
    np.testing.assert_allclose(seen, [0.001, 0.05, 0.1, 0.001], rtol=1e-5)


def test_a_policy_that_answers_nan_keeps_the_rate():
    seen = rates(transform(policy=lambda p: p.mi * jnp.nan, init_lr=0.02), [1.0, 2.0])
    assert seen == pytest.approx([0.02, 0.02])


def test_a_mapping_gives_the_layer_named_or_the_whole_network_or_the_only_entry():
    many = [{"a": 9.0, "b": mi, "": 9.0} for mi in MEASUREMENTS]
    np.testing.assert_allclose(rates(transform(layer="b"), many), RATES, rtol=1e-5)
    whole = [{"a": 9.0, "": mi} for mi in MEASUREMENTS]
    np.testing.assert_allclose(rates(transform(), whole), RATES, rtol=1e-5)
    only = [{"a": mi} for mi in MEASUREMENTS]
    np.testing.assert_allclose(rates(transform(), only), RATES, rtol=1e-5)


def test_a_measurement_is_given_by_its_name_and_by_nothing_else():
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    state = tx.init(params=PARAMS)
    tx.update(updates=GRADS, state=state, params=PARAMS, mi=1.0)
    with pytest.raises(TypeError, match="positional"):
        tx.update(GRADS, state, PARAMS, 1.0)  # pyright: ignore


def test_record_mi_gives_the_same_rates_as_update():
    tx = transform()
    state, seen = tx.init(PARAMS), []
    for mi in MEASUREMENTS:
        state = optax_mi.record_mi(state, mi)
        state = optax_mi.record_mi(state, np.nan)  # says nothing, loses nothing
        state = optax_mi.record_mi(state, None)
        for _ in range(2):
            _, state = tx.update(GRADS, state, PARAMS)
        seen.append(optax_mi.learning_rates(state)[""])
    np.testing.assert_allclose(seen, RATES, rtol=1e-5)


def test_a_recorded_measurement_comes_before_one_given_to_update():
    tx = transform()
    state = optax_mi.record_mi(tx.init(PARAMS), 0.5)
    assert rates(tx, [1.0], state) == pytest.approx([0.051])


def test_record_mi_and_track_value_only_run_compiled():
    tx = transform()
    state = jax.jit(optax_mi.record_mi)(tx.init(PARAMS), 0.5)
    state = jax.jit(optax_mi.track_value_only)(state)
    assert rates(tx, [1.0], state) == pytest.approx([0.051])


def test_track_value_only_counts_finite_measurements():
    tx = transform()
    state = optax_mi.track_value_only(tx.init(PARAMS), measurements=3)
    # 1.5 again and again has saturated; by value alone the rate rises by 0.025 each.
    seen = rates(tx, [1.5, None, np.nan, 1.5, 1.5, 1.5], state)
    expected = [0.001, 0.001, 0.001, 0.026, 0.051, 0.026]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_a_missing_reference_is_an_error_where_values_are_concrete():
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=optax_mi.reference_policy())
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="`reference` must be given"):
        optax_mi.record_mi(state, 1.0)
    with pytest.raises(ValueError, match="`reference` must be given"):
        tx.update(GRADS, state, PARAMS, mi=1.0)
    tx.update(GRADS, state, PARAMS)  # nothing measured, nothing needed


def test_a_missing_reference_keeps_the_rate_in_a_compiled_update():
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, init_lr=0.02, policy=optax_mi.reference_policy()
    )
    update = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for mi in (0.5, 1.0):
        _, state = update(GRADS, state, PARAMS, mi=mi)
        assert float(state.learning_rate) == pytest.approx(0.02)
    state = optax_mi.record_mi(state, 1.5, reference=2.0)
    _, state = update(GRADS, state, PARAMS)
    assert float(state.learning_rate) == pytest.approx(0.02 + 0.1 * 0.25)


def test_policies_without_a_need_run_without_a_reference():
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=optax_mi.change_policy())
    assert rates(tx, [0.5, 1.0]) == pytest.approx([0.001, 0.051])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_updates_keep_the_dtype_of_the_parameters(dtype):
    tx = transform()
    params = jax.tree.map(lambda p: p.astype(dtype), PARAMS)
    state = tx.init(params)
    for mi in (0.5, None, 1.0):
        updates, new_state = jax.jit(tx.update)(params, state, params, mi=mi)
        assert jax.tree.all(jax.tree.map(lambda u: u.dtype == dtype, updates))
        assert optax.tree.get(new_state, "learning_rate").dtype == jnp.float32
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(
            jnp.result_type, new_state
        )
        state = new_state


def test_the_state_is_arrays_of_fixed_dtypes_and_can_be_donated():
    tx = transform()
    state = tx.init(PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    step = jax.jit(
        lambda state, mi: tx.update(GRADS, state, PARAMS, mi=mi)[1], donate_argnums=0
    )
    for mi in MEASUREMENTS:
        state = step(state, mi)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(RATES[-1])


def test_updates_under_x64_keep_float32_parameters_float32(x64):
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)
    tx = transform()
    state = tx.init(params)
    updates, state = tx.update(params, state, params, mi=0.5)
    assert optax.tree.get(state, "learning_rate").dtype == jnp.float64
    assert jax.tree.all(jax.tree.map(lambda u: u.dtype == jnp.float32, updates))


def test_rates_that_share_a_label_are_told_apart_by_their_place():
    two = optax.chain(
        transform(),
        optax_mi.mi_dynamic_lr(
            0.5, 1.0, reference=1.0, policy=optax_mi.reference_policy()
        ),
    )
    found = optax_mi.learning_rates(two.init(PARAMS))
    assert list(found.values()) == pytest.approx([0.001, 0.5])


def test_updates_are_counted_and_the_count_saturates():
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    state = tx.init(PARAMS)
    for count in (1, 2):
        state = tx.update(GRADS, state)[1]
        assert state.count == count
    state = tx.init(PARAMS)._replace(count=jnp.int32(2**31 - 1))
    assert tx.update(GRADS, state)[1].count == 2**31 - 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(lr_min=0.2, lr_max=0.1), "`lr_min` must be at most `lr_max` = 0.1"),
        (dict(lr_min=-0.1, lr_max=0.1), "`lr_min` must be finite and >= 0, got -0.1"),
        (dict(lr_min=0.1, lr_max=np.inf), "`lr_max` must be finite and >= 0, got inf"),
        (dict(lr_min=np.nan, lr_max=1), "`lr_min` must be finite and >= 0, got nan"),
        (dict(lr_min=0.1, lr_max=1, init_lr=2), "`init_lr` must be at most `lr_max`"),
        (dict(lr_min=0.1, lr_max=1, init_lr=0), "`lr_min` must be at most `init_lr`"),
        (dict(lr_min=0, lr_max=1, reference=-1), "`reference` must be finite"),
    ],
)
def test_bad_hyperparameters_are_refused_with_their_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.mi_dynamic_lr(**arguments)


@pytest.mark.parametrize(
    ("mi", "message"),
    [
        (jnp.ones(3), r"`mi` must be a scalar or .* got float32 of shape \(3,\)"),
        ("1", "`mi` must be a scalar or a mapping of scalars, got str '1'"),
        ({"": "x"}, "`mi` must be a scalar or a mapping of scalars, got str 'x'"),
        (1j, "`mi` must be a scalar or a mapping of scalars, got complex 1j"),
        ({}, "`mi` must be a mapping with "),
    ],
)
def test_bad_measurements_are_refused_on_either_way(mi, message):
    tx = transform()
    with pytest.raises(ValueError, match=message):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, mi=mi)
    with pytest.raises(ValueError, match=message):
        optax_mi.record_mi(tx.init(PARAMS), mi)


def layerwise(*args, **options):
    return optax_mi.layerwise_mi_dynamic_lr("auto", *args, **options)


def test_several_layers_without_the_networks_own_are_refused():
    tx = transform()
    state, mi = tx.init(PARAMS), {"a": 1.0, "b": 1.0}
    with pytest.raises(ValueError, match=r"`mi` .* whole network.* got \['a', 'b'\]"):
        tx.update(GRADS, state, PARAMS, mi=mi)
    with pytest.raises(ValueError, match=r"`mi` .* whole network.* got \['a', 'b'\]"):
        optax_mi.record_mi(state, mi)


def test_an_unknown_layer_is_refused_with_the_known_ones():
    tx = transform(layer="head")
    with pytest.raises(ValueError, match=r"`mi` .* 'head' in it, .* got \['a', 'b'\]"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, mi={"a": 1.0, "b": 2.0})


@pytest.mark.parametrize(
    "call",
    [
        functools.partial(optax_mi.record_mi, mi=1.0),
        optax_mi.track_value_only,
        optax_mi.learning_rates,
    ],
)
def test_a_state_without_the_transformation_is_refused(call):
    with pytest.raises(ValueError, match="`opt_state` must be the state of an opt"):
        call(optax.adam(1e-3).init(PARAMS))


def test_a_callers_array_outlives_donation_of_the_state():
    low = jnp.float32(1e-3)
    tx = optax_mi.mi_dynamic_lr(
        low, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    step = jax.jit(lambda s: tx.update(GRADS, s)[1], donate_argnums=0)
    step(step(tx.init(PARAMS)))
    assert not low.is_deleted()


def test_record_mi_takes_the_entry_that_the_rate_follows_or_the_output():
    mi = {"h": 1.0, "": 2.0}
    for layer, value in (("h", 1.0), ("", 2.0), (None, 2.0)):
        recorded = optax_mi.record_mi(transform(layer=layer).init(PARAMS), mi)
        assert optax.tree.get(recorded, "pending") == value
    with pytest.raises(ValueError, match="a mapping with 'g' in it"):
        optax_mi.record_mi(transform(layer="g").init(PARAMS), mi)


def test_a_reference_that_is_nan_changes_nothing_and_a_negative_one_is_refused():
    state = transform().init(PARAMS)
    recorded = optax_mi.record_mi(state, None, np.nan)
    assert optax.tree.get(recorded, "reference") == 2.0
    with pytest.raises(ValueError, match="`reference` must be >= 0, got -2"):
        optax_mi.record_mi(state, None, -2.0)


def test_a_policy_only_ever_sees_finite_numbers():
    seen = []

    def policy(step):
        seen.append((float(step.mi), float(step.previous_mi), float(step.reference)))
        return step.learning_rate

    rates(transform(policy=policy, reference=None), [None, 1.0, np.nan, 2.0])
    assert np.all(np.isfinite(np.array(seen)[:, :2]))
    # Nor zeros where there is nothing to judge yet, as policies divide by them.
    assert np.all(np.array(seen)[:-1] > 0)


def test_a_policy_must_answer_with_a_scalar():
    tx = transform(policy=lambda step: jnp.ones(1))
    with pytest.raises(ValueError, match="`policy` must be a function to a scalar"):
        rates(tx, [1.0])


@pytest.mark.parametrize("argument", ["lr_min", "lr_max", "reference", "init_lr"])
@pytest.mark.parametrize("value", [optax.constant_schedule(0.1), "0.1", {"": 2.0}])
def test_what_is_no_number_is_refused_with_its_name(argument, value):
    options = {"lr_min": 0.1, "lr_max": 0.2, argument: value}
    with pytest.raises(ValueError, match=f"`{argument}` must be a number, got "):
        optax_mi.mi_dynamic_lr(**options)


def test_updates_that_numpy_holds_in_double_precision_are_scaled_without_a_warning():
    tx = optax_mi.mi_dynamic_lr(
        0.25, 0.5, reference=2.0, policy=optax_mi.reference_policy()
    )
    updates, _ = tx.update({"w": np.ones(3)}, tx.init({"w": np.ones(3)}))
    np.testing.assert_allclose(np.asarray(updates["w"]), 0.25)


def test_a_measurement_may_lie_in_a_variable_of_nnx():
    tx = transform()
    state = tx.init(PARAMS)
    for nats in (0.5, 1.0):
        mi: Any = nnx.Variable(jnp.float32(nats))
        _, state = tx.update(GRADS, optax_mi.record_mi(state, mi), PARAMS)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(0.051)


def test_bounds_that_are_arrays_are_taken_in_a_compiled_step():
    low, high, reference = map(jnp.float32, (1e-3, 0.1, 2.0))

    @jax.jit
    def two_updates(params):
        tx = optax_mi.mi_dynamic_lr(
            low,
            high,
            init_lr=low,
            reference=reference,
            policy=optax_mi.reference_policy(),
        )
        state = tx.init(params)
        for mi in (0.5, 1.0):
            _, state = tx.update(params, state, params, mi=mi)
        return state.learning_rate

    assert two_updates(PARAMS) == pytest.approx(0.051)


def test_an_upper_bound_that_falls_to_zero_stops_training():
    make = optax.inject_hyperparams(optax_mi.mi_dynamic_lr, static_args="policy")
    tx = make(
        lr_min=1e-3,
        lr_max=lambda count: jnp.where(count < 1, 0.1, 0.0),
        policy=optax_mi.reference_policy(),
    )
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for expected in (1e-3, 0.0):
        updates, state = update(PARAMS, state)
        np.testing.assert_allclose(updates["head"]["kernel"], expected)


def test_no_gradient_goes_through_a_measurement():
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    _, state = tx.update({}, tx.init({}), mi=0.5)

    def updated(w):
        updates, _ = tx.update(w, state, mi=w)
        return updates

    rate = updated(jnp.float32(1.0))
    assert rate == pytest.approx(0.051)
    assert jax.grad(updated)(jnp.float32(1.0)) == rate


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf, jnp.array([1.0, np.nan])])
def test_a_loss_that_is_not_finite_brings_the_rate_to_lr_min_in_that_step(loss):
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, init_lr=0.05, policy=optax_mi.reference_policy()
    )
    update, w = jax.jit(tx.update), jnp.float32(1)
    updates, state = update(w, tx.init(w), value=1e30)
    assert updates == pytest.approx(0.05)
    updates, state = update(w, state, value=loss)
    assert updates == pytest.approx(1e-3)
    assert state.learning_rate == pytest.approx(1e-3)
    for mi, rate in ((0.5, 1e-3), (1.0, 0.051)):  # and measurements raise it again
        updates, state = update(w, state, value=1.0, mi=mi)
        assert updates == pytest.approx(rate)


@pytest.mark.parametrize("make", [optax_mi.mi_dynamic_lr, layerwise])
def test_a_rate_on_its_bound_is_within_it_in_the_precision_of_the_state(make):
    for rate in (np.float32(0.1), float(np.float32(0.1)), jnp.float32(0.1), 0.1):
        tx = make(1e-3, 0.1, init_lr=rate)
        assert set(optax_mi.learning_rates(tx.init(PARAMS)).values()) == {
            float(np.float32(0.1))
        }
    for rate in (np.float32(0.01), float(np.float32(0.01)), 0.01):
        make(0.01, 0.1, init_lr=rate)
    make(np.float32(0.1), 0.1)
    with pytest.raises(ValueError, match="`init_lr` must be at most `lr_max` = 0.1"):
        make(1e-3, 0.1, init_lr=float(np.nextafter(np.float32(0.1), np.float32(1))))
