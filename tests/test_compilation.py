"""What compiled programs and JAX's strict flags ask of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from measurements import GRADS, PARAMS, forms, transform

import optax_mi

RNG = np.random.default_rng(0)
LABELS = jnp.asarray(np.arange(120) % 3)
X = jnp.asarray(RNG.normal(size=(120, 8)) + 1.5 * np.eye(8)[LABELS], jnp.float32)
WEIGHTS = jnp.asarray(RNG.normal(0, 0.1, size=(8, 3)), jnp.float32)


def cross_entropy(weights, x, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(x @ weights, labels)
    return losses.mean()


@jax.jit
def measure(weights):
    return optax_mi.ksg_discrete(X @ weights, LABELS)


def trained():
    policy = optax_mi.reference_policy(0.1, 0.1, 0.1, epsilon=0.1)
    rate = optax_mi.mi_dynamic_lr(0.1, 1.0, policy=policy, reference=np.log(3.0))
    tx = optax.chain(optax.sgd(1.0), rate)

    def step(weights, state, mi=None, batch=slice(None)):
        gradients = jax.grad(cross_entropy)(weights, X[batch], LABELS[batch])
        updates, state = tx.update(gradients, state, weights, mi=mi)
        return jax.tree.map(jnp.add, weights, updates), state

    return tx.init(WEIGHTS), step


def rate(state):
    return optax.tree.get(state, "learning_rate")


def test_a_run_that_measures_within_one_scan_has_the_rates_of_the_same_loop():
    state, step = trained()

    def scan_step(carry, i):
        weights, state = carry
        mi = jax.lax.cond(i % 5 == 0, measure, lambda _: jnp.nan, weights)
        weights, state = step(weights, state, mi)
        return (weights, state), rate(state)

    scan = jax.jit(lambda carry: jax.lax.scan(scan_step, carry, jnp.arange(40)))
    (scanned, _), found = scan((WEIGHTS, state))

    weights, expected = WEIGHTS, []
    step = jax.jit(step)
    for i in range(40):
        weights, state = step(weights, state, measure(weights) if i % 5 == 0 else None)
        expected.append(rate(state))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(scanned, weights, rtol=1e-4)
    changes = np.flatnonzero(np.diff(found)) + 1
    assert len(changes) >= 3
    assert not np.any(changes % 5)


def test_measurements_between_scanned_epochs_set_the_rates_of_the_same_loop():
    state, step = trained()
    scan_step = lambda carry, _: (step(*carry), None)  # noqa: E731
    epoch = jax.jit(lambda carry: jax.lax.scan(scan_step, carry, length=5)[0])
    looped = scanned = (WEIGHTS, state)
    loop_step, found = jax.jit(step), []
    for _ in range(6):
        weights, state = scanned
        scanned = epoch((weights, optax_mi.record_mi(state, measure(weights))))
        looped = loop_step(*looped, measure(looped[0]))
        for _ in range(4):
            looped = loop_step(*looped)
        np.testing.assert_allclose(rate(scanned[1]), rate(looped[1]), rtol=1e-5)
        found.append(float(rate(scanned[1])))
    assert len(set(found)) >= 4


def test_a_change_of_batch_size_compiles_no_estimator_and_is_counted_in_measurements():
    state, step = trained()
    step = jax.jit(step)
    rng, weights, rates, left = np.random.default_rng(0), WEIGHTS, [], []
    for epoch in range(12):
        if epoch == 5:
            state = optax_mi.track_value_only(state, measurements=5)
        state = optax_mi.record_mi(state, measure(weights))
        for batch in np.split(rng.integers(0, 120, 192), 12 if epoch < 5 else 3):
            weights, state = step(weights, state, None, batch)
        rates.append(float(rate(state)))
        left.append(int(optax.tree.get(state, "value_only")))
    assert left == [0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0]
    # The information has saturated, yet the rate rises while the window lasts.
    assert rates[4] == np.float32(0.1)
    assert np.all(np.diff(rates[4:10]) > 0)
    assert np.all(np.diff(rates[9:]) < 0)
    assert measure._cache_size() == 1
    assert step._cache_size() == 2


@forms
@pytest.mark.parametrize(
    "wide", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["x32", "x64"]
)
def test_it_runs_under_strict_flags(wide, form, request):
    # Not with adam nor within MultiSteps: Optax itself promotes dtypes there.
    if wide:
        request.getfixturevalue("x64")
    tx, updates = transform(form.make, optax.sgd(1.0, momentum=0.9)), None
    update = jax.jit(tx.update)
    with jax.checking_leaks(), jax.numpy_dtype_promotion("strict"):
        given = recorded = tx.init(PARAMS)
        recorded = optax_mi.track_value_only(recorded, measurements=0)
        for mi, expected in zip(form.measurements, form.rates, strict=True):
            updates, given = update(GRADS, given, PARAMS, mi=mi)
            recorded = optax_mi.record_mi(recorded, mi)
            _, recorded = update(GRADS, recorded, PARAMS)
            for state in (given, recorded):
                assert optax_mi.learning_rates(state) == pytest.approx(expected, 1e-5)
        tx.update(GRADS, recorded, PARAMS, mi=form.measurements[0])  # and by itself
    assert jax.tree.all(jax.tree.map(lambda u: u.dtype == jnp.float32, updates))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(given))


@forms
@pytest.mark.parametrize("reference", [2.0, None], ids=["reference", "given later"])
def test_it_runs_under_debug_nans_and_infs(form, reference):
    with jax.debug_nans(True), jax.debug_infs(True):
        tx = transform(form.make, reference=reference)
        state, update = tx.init(PARAMS), jax.jit(tx.update)
        _, state = update(GRADS, state, PARAMS)
        for mi, expected in zip(form.measurements, form.rates, strict=True):
            state = optax_mi.record_mi(state, mi, reference=2.0)
            _, state = update(GRADS, state, PARAMS)
            _, state = tx.update(GRADS, state, PARAMS)
            assert optax_mi.learning_rates(state) == pytest.approx(expected, 1e-5)


@forms
def test_a_second_call_compiles_nothing(form):
    tx, traces = transform(form.make), []

    @jax.jit
    def step(state, mi):
        traces.append(mi)
        return tx.update(GRADS, state, PARAMS, mi=mi)[1]

    state = tx.init(PARAMS)
    for mi in form.measurements:
        state = step(state, jax.tree.map(jnp.float32, mi))
        state = optax_mi.record_mi(state, mi)
        state = optax_mi.track_value_only(state, 2)
    assert len(traces) == 1
    assert step._cache_size() == 1


@forms
def test_a_second_update_out_of_jit_compiles_nothing(form, caplog):
    tx = transform(form.make)
    state = tx.init(PARAMS)
    with jax.log_compiles():
        for mi in (*form.measurements, *form.measurements):
            caplog.clear()
            _, state = tx.update(GRADS, state, PARAMS, mi=mi)
    assert not [r.message for r in caplog.records if "compil" in r.message.lower()]


@forms
def test_a_compiled_update_moves_nothing_to_the_host(form):
    tx = transform(form.make)
    state, mi = tx.init(PARAMS), jax.tree.map(jnp.float32, form.measurements[0])
    step = jax.jit(lambda state, mi: tx.update(GRADS, state, PARAMS, mi=mi))
    step(state, mi)
    with jax.transfer_guard("disallow"):
        step(state, mi)
    assert "callback" not in step.lower(state, mi).as_text()


@forms
def test_the_state_can_be_donated(form):
    tx = transform(form.make)
    step = jax.jit(
        lambda state, mi: tx.update(GRADS, state, PARAMS, mi=mi)[1], donate_argnums=0
    )
    state = tx.init(PARAMS)
    for mi in form.measurements:
        state = step(optax_mi.record_mi(state, None), mi)
    assert optax_mi.learning_rates(state) == pytest.approx(form.rates[-1])


def test_injected_bounds_share_no_buffer_with_the_state_and_hold_at_every_update():
    tx = optax.inject_hyperparams(optax_mi.mi_dynamic_lr, static_args="policy")(
        1e-3, 0.1, policy=optax_mi.reference_policy(), reference=2.0, init_lr=0.1
    )
    step = jax.jit(lambda s: tx.update(GRADS, s)[1], donate_argnums=0)
    state = step(tx.init(PARAMS))
    state = state._replace(
        hyperparams={**state.hyperparams, "lr_max": jnp.float32(0.01)}
    )
    assert optax_mi.learning_rates(step(state))[""] == pytest.approx(0.01)


def test_it_runs_under_vmap():
    tx = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    params = {"w": jnp.ones((3, 4))}
    state = jax.vmap(tx.init)(params)
    for mi in ([0.5, 0.5, jnp.nan], [1.0, 0.5, jnp.nan]):
        step = jax.vmap(lambda g, s, mi: tx.update(g, s, mi=mi))
        _, state = step(params, state, jnp.array(mi))
    np.testing.assert_allclose(state.learning_rate, [0.051, 0.001, 0.001], rtol=1e-5)


def test_recording_keeps_the_shapes_of_a_vmapped_state():
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=optax_mi.reference_policy())
    gradients = {"w": jnp.ones((4, 3))}
    state = jax.vmap(tx.init)(gradients)
    for mi in (0.5, 1.0):
        state = optax_mi.record_mi(state, mi, 2.0)
        state = optax_mi.track_value_only(state, 2)
        _, state = jax.vmap(lambda g, s: tx.update(g, s))(gradients, state)
    np.testing.assert_allclose(state.learning_rate, [0.051] * 4, rtol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "outcomes"),
    [
        (optax_mi.ksg_discrete, jax.ShapeDtypeStruct((10**6,), jnp.int32)),
        *(
            pytest.param(
                estimator,
                jax.ShapeDtypeStruct((10**6, 1), jnp.float32),
                marks=pytest.mark.slow,
            )
            for estimator in (optax_mi.ksg, optax_mi.ksg_mixed)
        ),
    ],
)
def test_a_million_points_take_less_than_half_a_gibibyte(estimator, outcomes):
    """By XLA's own account; the distances of all pairs would take 3.6 TiB."""
    x = jax.ShapeDtypeStruct((10**6, 10), jnp.float32)
    memory = jax.jit(estimator).lower(x, outcomes).compile().memory_analysis()
    assert memory is not None
    assert 0 < memory.temp_size_in_bytes < 2**29
