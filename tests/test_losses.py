"""Losses that climb back to where they began mean that training has diverged."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_mi

PARAMS, GRADIENTS = {"w": jnp.ones(2)}, {"w": jnp.full(2, 1e-3)}
TX = optax.chain(optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-4, 1.0, init_lr=0.1))


def twin(losses):
    """At which losses training has diverged, in plain Python."""
    first = last = average = least = losses[0]
    noise, lost = 0.0, []
    for number, loss in enumerate(losses[1:], 1):
        loss = min(loss, first + (first - least))
        average += 0.1 * (loss - average)
        if average < least:
            least, noise = average, noise + 0.1 * (abs(loss - last) - noise)
        learned, last = first - least, loss
        has_learned = learned > max(0.2 * abs(first), 8 * noise)
        if has_learned and average > first - learned / 2:
            lost.append(number)
            average = least
    return lost


@jax.jit
def back_at(losses):
    """Which losses lead back."""

    def step(carry, loss):
        params, state = carry
        updates, state = TX.update(GRADIENTS, state, params, value=loss)
        begins = optax.tree.get(state, "updates_back") == 1
        return (optax.apply_updates(params, updates), state), begins

    return jax.lax.scan(step, (PARAMS, TX.init(PARAMS)), losses)[1]


def found(losses):
    return list(np.flatnonzero(back_at(jnp.asarray(losses, jnp.float32))))


def noise(seed, n, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=n)


def learning(seed=0, n=200, start=2.3, end=0.3, deviation=0.1):
    falling = end + (start - end) * np.exp(-np.arange(n) / 40)
    return falling + noise(seed, n, deviation)


DEAD = np.full(100, 2.3)


@pytest.mark.parametrize("seed", range(5))
def test_learning_that_is_lost_leads_back_within_ten_updates(seed):
    losses = np.concatenate([learning(seed), DEAD])
    back = found(losses)
    assert back == twin(losses)
    assert 200 < back[0] < 210


def test_three_losses_of_any_size_lead_back_and_two_do_not():
    for number, expected in ((2, []), (3, [152])):
        losses = np.insert(learning(), [150] * number, 1e30)
        assert found(losses) == twin(losses) == expected


@pytest.mark.parametrize("shift", [-5.0, -2.3, 1.0])
def test_losses_below_zero_or_around_it_are_as_good(shift):
    losses = np.concatenate([learning(), DEAD]) + shift
    assert 200 < found(losses)[0] < 210


UNHARMED = {
    "learning": learning(),
    "a burst of five": np.concatenate([learning(), np.full(5, 2.3), learning()[150:]]),
    "a single loss of any size": np.insert(learning(), [100, 150], [30.0, 1e30]),
    "nothing learned": 2.3 + noise(0, 300, 0.1),
    "noise around zero": noise(0, 2000),
    "noise around zero, begun by chance high": np.concatenate([[3.0], noise(1, 2000)]),
    "overfitting to half": np.concatenate([learning(), np.linspace(0.3, 1.2, 200)]),
}


@pytest.mark.parametrize("losses", UNHARMED.values(), ids=UNHARMED)
def test_nothing_else_does(losses):
    assert found(losses) == twin(losses) == []


def test_a_loss_that_is_not_finite_counts_for_no_average():
    losses = learning()
    with_nan = np.insert(losses, [20, 60, 130], [math.nan, math.inf, -math.inf])
    state = TX.init(PARAMS)

    def averages(losses):
        def step(state, loss):
            state = TX.update(GRADIENTS, state, PARAMS, value=loss)[1]
            return state, None

        return optax.tree.get(jax.lax.scan(step, state, losses)[0], "losses")

    plain, other = (jax.jit(averages)(jnp.asarray(x)) for x in (losses, with_nan))
    assert all(np.isfinite(other))
    np.testing.assert_allclose(other.average, plain.average, atol=0.2)


def test_the_least_average_is_taken_up_again_after_going_back():
    # Half of the way back, then well again: once is enough.
    losses = np.concatenate([learning(), DEAD[:10], learning()[150:]])
    assert len(found(losses)) == 1


def test_several_losses_at_once_count_by_their_mean():
    state = TX.init(PARAMS)
    state = TX.update(GRADIENTS, state, PARAMS, value=jnp.array([1.0, 3.0]))[1]
    assert optax.tree.get(state, "losses").first == 2.0
