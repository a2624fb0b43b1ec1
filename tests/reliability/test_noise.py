"""What noise does to the rate, and what a loss that is not finite does."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest

import optax_mi

LOW, HIGH, REFERENCE, MI, EPSILON = 0.001, 0.1, 2.3, 2.0, 0.003
DEVIATIONS = (0.001, 0.003, 0.01, 0.03, 0.1)
SMOOTHINGS = (0.0, 0.5, 0.8, 0.9)
MEASUREMENTS = 20_000
NOISE = np.random.default_rng(0).normal(size=MEASUREMENTS)


def threshold(smoothing):
    """The deviation at which half of the changes are above epsilon.

    Two measurements differ by sqrt(2) deviations, and two averages of them by
    (1 - s) sqrt(2 / (1 + s)); half of a Gaussian's draws are below 0.6745 of its own.
    """
    change = (1 - smoothing) * np.sqrt(2 / (1 + smoothing))
    return EPSILON * MI / (0.6745 * change)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
@functools.partial(jax.vmap, in_axes=(None, 0))
def steered(deviation, smoothing):
    """The rates while the information stays as it is and is measured with noise."""
    tx = optax_mi.mi_dynamic_lr(
        LOW,
        HIGH,
        policy=optax_mi.reference_policy(),
        reference=REFERENCE,
        smoothing=smoothing,
        init_lr=0.05,
    )

    def step(state, mi):
        _, state = tx.update(jnp.ones(()), state, mi=mi)
        return state, state.learning_rate

    measured = MI + deviation * jnp.asarray(NOISE, jnp.float32)
    return jax.lax.scan(step, tx.init(jnp.ones(())), measured)[1]


@pytest.fixture(scope="module")
def rates_of():
    """The rates by deviation and smoothing, once they have settled."""
    found = np.asarray(steered(jnp.asarray(DEVIATIONS), jnp.asarray(SMOOTHINGS)))
    settled = found[..., MEASUREMENTS // 10 :]
    return {
        (deviation, smoothing): settled[i, j]
        for i, deviation in enumerate(DEVIATIONS)
        for j, smoothing in enumerate(SMOOTHINGS)
    }


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("deviation", DEVIATIONS)
def test_noise_raises_the_rate_above_the_threshold_and_not_below(
    deviation, smoothing, rates_of, tally
):
    rates, limit = rates_of[deviation, smoothing], threshold(smoothing)
    assert rates.min() >= np.float32(LOW)
    assert rates.max() <= np.float32(HIGH)
    if deviation < limit / 1.5:
        assert rates.mean() < 0.03
    elif deviation > limit * 1.5:
        assert rates.mean() > 0.07
    if deviation < limit / 3:
        assert rates.mean() < 0.0012
    tally("noisy runs")


def test_smoothing_of_nothing_is_nothing_and_the_average_is_exponential():
    make = functools.partial(
        optax_mi.mi_dynamic_lr,
        LOW,
        HIGH,
        policy=optax_mi.reference_policy(),
        reference=REFERENCE,
    )
    plain, zero, half = make(), make(smoothing=0.0), make(smoothing=0.5)
    states = [tx.init(jnp.ones(())) for tx in (plain, zero, half)]
    for mi in (0.5, 1.0, np.nan, 2.0):
        states = [
            tx.update(jnp.ones(()), state, mi=mi)[1]
            for tx, state in zip((plain, zero, half), states, strict=True)
        ]
    assert states[0] == states[1]
    assert float(states[2].previous_mi) == 0.75
    assert float(states[2].mi) == 1.375


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(16)(x)))


def diverging(make, lr_max):
    """Trains at `lr_max`; the loss, the rates and whether the parameters are finite."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = (10 * rng.normal(size=(300, 8)) + 5 * y[:, None]).astype(np.float32)
    model, tx = Network(), make(lr_max)
    params = model.init(jax.random.key(0), x)
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = jnp.asarray(model.apply(params, x))
            return jnp.mean(jnp.sum(jnp.square(logits - jax.nn.one_hot(y, 3)), axis=1))

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    rates, losses = [], []
    for number in range(60):
        params, state, value = step(params, state)
        losses.append(float(value))
        if number % 3 == 0:
            logits = model.apply(params, x)
            mi = optax_mi.estimate_mi({"": logits}, y)[""]  # pyright: ignore
            state = optax_mi.record_mi(state, mi)
        rates.append(optax_mi.learning_rates(state)[""])
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return np.array(losses), np.array(rates), finite


def steering(lr_max):
    return optax_mi.mi_dynamic_lr(
        LOW, lr_max, reference=np.log(3), init_lr=lr_max, policy=lambda p: p.lr_max
    )


MAKES = {
    "alone": lambda lr_max: optax.chain(optax.sgd(1.0), steering(lr_max)),
    "skipping bad gradients": lambda lr_max: optax.chain(
        optax.apply_if_finite(optax.sgd(1.0), 1000), steering(lr_max)
    ),
}


@pytest.mark.e2e
@pytest.mark.parametrize("name", MAKES)
def test_where_the_loss_diverges_the_rate_comes_down_and_stays_down(name, tally):
    losses, rates, finite = diverging(MAKES[name], 10.0)
    broken = np.flatnonzero(~np.isfinite(losses))
    assert len(broken)
    assert (rates[: broken[0]] == np.float32(10)).all()
    assert (rates[broken] == np.float32(LOW)).all()
    assert finite == (name == "skipping bad gradients")
    tally("runs that diverged")


def test_one_broken_batch_lowers_the_rate_and_measurements_raise_it_again(tally):
    tx = MAKES["skipping bad gradients"](0.1)
    params: Any = {"w": jnp.ones(3)}
    state, update = tx.init(params), jax.jit(tx.update)
    for mi, loss, rate in [(0.5, 1.0, 0.1), (0.6, np.nan, LOW), (0.7, 0.9, 0.1)]:
        state = optax_mi.record_mi(state, mi)
        gradients = {"w": params["w"] * loss}
        updates, state = update(gradients, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        assert optax_mi.learning_rates(state)[""] == pytest.approx(rate)
    assert np.isfinite(np.asarray(params["w"])).all()
    tally("broken batches")


def test_around_it_all_apply_if_finite_undoes_the_steps_and_keeps_the_rate(tally):
    inner = MAKES["alone"](0.1)
    tx, params = optax.apply_if_finite(inner, 10), {"w": jnp.ones(3)}
    state = tx.init(params)
    bad = {"w": jnp.full(3, jnp.nan)}
    _, state = jax.jit(tx.update)(bad, state, params, value=jnp.nan)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(0.1)
    tally("broken batches")


def test_the_programs_of_the_page_do_what_it_says(tally):
    with_loss, careful = pages.programs("reliability.md")
    params = {"w": jnp.ones(3)}
    names = {"jnp": jnp, "optax": optax, "optax_mi": optax_mi, "params": params}
    exec(with_loss.partition("updates, ")[0], names)
    opt_state = optax_mi.record_mi(names["tx"].init(params), 0.5)
    for mi, loss, rate in [(None, 1.0, LOW), (1.0, 1.0, 0.0575), (None, np.nan, LOW)]:
        opt_state = optax_mi.record_mi(opt_state, mi)
        names |= {"opt_state": opt_state, "gradients": params, "loss": loss}
        exec("updates, " + with_loss.partition("updates, ")[2], names)
        opt_state = names["opt_state"]
        assert optax_mi.learning_rates(opt_state)[""] == pytest.approx(rate, rel=0.01)
    restored = optax.tree.set(opt_state, learning_rate=0.02)
    assert optax_mi.learning_rates(restored)[""] == pytest.approx(0.02)

    exec(careful, names)
    policy = names["careful"](optax_mi.reference_policy())
    tx = optax_mi.mi_dynamic_lr(LOW, HIGH, policy=policy, reference=REFERENCE)
    state, rates = tx.init(params), []
    for mi in (0.5, 1.5, 0.3):
        _, state = tx.update(params, state, params, mi=mi)
        rates.append(float(state.learning_rate))
    assert rates == pytest.approx([LOW, 0.0358, LOW], rel=0.01)
    assert policy.needs_reference
    step = optax_mi.PolicyInput(
        *map(jnp.float32, (0.03, 0.3, 1.5, 2.3, LOW, HIGH)), value_only=jnp.array(False)
    )
    assert optax_mi.reference_policy()(step) > 0.03  # which is what the page warns of
    tally("broken batches")
