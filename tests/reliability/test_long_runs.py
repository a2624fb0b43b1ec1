"""Runs of a million updates, and ten thousand measurements in one process."""

import gc
import resource
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from generated import SOAK

import optax_mi

EVERY = 100
UPDATES = 1_000_000
MEASUREMENTS = 10_000 if SOAK else 600
PARAMS = {"a": {"kernel": jnp.ones(2)}, "b": {"kernel": jnp.ones(2)}}
FORMS = {
    "plain": optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    ),
    "layer-wise": optax_mi.layerwise_mi_dynamic_lr(
        "auto", 1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_long_scan_keeps_dtypes_structure_and_bounds(form, tally):
    tx = optax.chain(optax.sgd(1.0, momentum=0.9), FORMS[form])

    def step(carry, number):
        params, state = carry
        # A measurement every so often, of nothing in particular and sometimes NaN.
        nats = 1.5 + jnp.sin(number.astype(jnp.float32))
        due = (number % EVERY == 0) & (number % (7 * EVERY) != 0)
        mi = jnp.where(due, nats, jnp.nan)
        updates, state = tx.update(PARAMS, state, params, mi=mi)
        rate = optax.tree.get_all_with_path(state, "learning_rate")
        return (params, state), jnp.stack([value for _, value in rate])

    @jax.jit
    def run(state):
        (_, state), rates = jax.lax.scan(step, (PARAMS, state), jnp.arange(UPDATES))
        return state, rates

    before = tx.init(PARAMS)
    after, rates = run(before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, before)
    rates = np.asarray(rates)
    assert np.isfinite(rates).all()
    assert rates.min() >= np.float32(1e-3)
    assert rates.max() <= np.float32(0.1)
    moves = np.diff(rates, axis=0) != 0
    assert moves[-UPDATES // 10 :].sum() > UPDATES / 10 / EVERY / 4  # to the end
    (count, *_) = (value for _, value in optax.tree.get_all_with_path(after, "count"))
    assert int(count) == UPDATES
    tally("updates", UPDATES)


def test_counters_saturate(tally):
    """Of 2^31 - 1 there is no next: a counter that wrapped would be negative."""
    tx, last = FORMS["plain"], 2**31 - 1
    state = tx.init(PARAMS)._replace(count=jnp.int32(last), value_only=jnp.int32(last))
    for _ in range(3):
        _, state = tx.update(PARAMS, state, PARAMS, mi=1.0)
    assert (int(state.count), int(state.value_only)) == (last, last - 3)
    tally("counters at their limit", 2)


def resident():
    """Megabytes of this process, in use now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def live_arrays():
    gc.collect()
    return len(jax.live_arrays())


@pytest.mark.slow
def test_many_measurements_leave_nothing_behind(tally):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120)
    tx, compilations = FORMS["plain"], []
    update = jax.jit(tx.update)
    state, history = tx.init(PARAMS), optax_mi.MIHistory()

    def measure_and_train(number):
        nonlocal state
        layer = rng.normal(size=(120, 3)).astype(np.float32) + labels[:, None] / 2
        mi = optax_mi.estimate_mi({"layer": layer}, labels)["layer"]
        state = optax_mi.record_mi(state, mi)
        history.record(state, epoch=number, mi=mi)
        _, state = update(PARAMS, state, PARAMS)

    def listen(event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(duration_secs)

    for number in range(20):
        measure_and_train(number)
    arrays, memory = live_arrays(), resident()
    jax.monitoring.register_event_duration_secs_listener(listen)
    for number in range(20, 20 + MEASUREMENTS):
        measure_and_train(number)
    assert compilations == []
    assert live_arrays() <= arrays
    assert len(history.rows) == 20 + MEASUREMENTS
    # The history itself is half a kilobyte a row.
    assert resident() - memory < 10 + MEASUREMENTS / 1000
    tally("measurements", MEASUREMENTS)
