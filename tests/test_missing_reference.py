"""A reference that is needed and was never given is said on the host, not in silence.

A compiled step cannot raise, and leaves the rate where it is.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from measurements import GRADS, PARAMS, layerwise, single

import optax_mi

TOLD = r"The learning rate does not move: .*reference=optax_mi\.reference_mi\(probe\)"
with_a_memory = functools.partial(
    optax_mi.mi_dynamic_lr,
    policy=optax_mi.PolicyWithMemory(
        lambda: jnp.zeros(()), lambda p, memory: (p.lr_max, memory), True
    ),
)


def updated(tx):
    _, state = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS, mi=0.5)
    return state


def recorded(tx):
    return jax.jit(optax_mi.record_mi)(tx.init(PARAMS), 0.5)


def recorded_and_applied(tx):
    _, state = jax.jit(tx.update)(GRADS, recorded(tx), PARAMS)
    return state


class Model(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)
        self.head = nnx.Linear(3, 1, rngs=rngs)


def nnx_updated(tx):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        gradients = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
        optimizer.update(model, gradients, mi=0.5)

    step(model, optimizer)
    return optimizer.opt_state


def skipping(tx):
    return optax.MultiSteps(tx, every_k_schedule=1)


def within_a_partition(tx):
    labels = {"dense": "train", "head": "frozen"}
    return optax.partition({"train": tx, "frozen": optax.set_to_zero()}, labels)


def look(state):
    return optax_mi.learning_rates(state)


def write_down(state):
    return optax_mi.MIHistory().record(state, epoch=0)


def look_later(state):
    return optax_mi.learning_rates(optax_mi.track_value_only(state))


looks = pytest.mark.parametrize("look", [look, write_down, look_later])


@pytest.mark.parametrize("make", [single, with_a_memory, layerwise])
@pytest.mark.parametrize("give", [updated, recorded, recorded_and_applied, nnx_updated])
@looks
def test_a_measurement_without_the_reference_is_told_of(look, give, make):
    state = give(optax.chain(optax.sgd(1.0), make(1e-3, 0.1)))
    with pytest.warns(UserWarning, match=TOLD) as told:
        look(state)
    assert len(told) == 1  # however many layers


@pytest.mark.parametrize("around", [skipping, within_a_partition, optax.chain])
@looks
def test_it_is_told_of_whatever_lies_around(look, around):
    with pytest.warns(UserWarning, match=TOLD):
        look(updated(around(single(1e-3, 0.1))))


@looks
def test_the_warning_names_the_place_of_the_call(look):
    with pytest.warns(UserWarning, match=TOLD) as told:
        look(updated(single(1e-3, 0.1)))
    assert told[0].filename == __file__


def test_a_loop_is_told_once():
    tx = single(1e-3, 0.1)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            _, state = update(GRADS, state, PARAMS, mi=0.5)
            optax_mi.learning_rates(state)
    assert len(told) == 1


@looks
@pytest.mark.parametrize("make", [single, with_a_memory, layerwise])
def test_before_any_measurement_nothing_is_said(look, make):
    tx = make(1e-3, 0.1)
    state = tx.init(PARAMS)
    look(state)
    _, state = jax.jit(tx.update)(GRADS, state, PARAMS, mi=jnp.nan)
    look(state)
    look(updated(make(1e-3, 0.1, reference=2.0)))
    look(optax_mi.record_mi(updated(tx), None, reference=2.0))


def test_the_layers_that_lack_one_are_named():
    tx = layerwise(1e-3, 0.1)
    state = jax.jit(optax_mi.record_mi)(
        tx.init(PARAMS), 0.5, {"dense": 2.0, "head": jnp.nan}
    )
    with pytest.warns(UserWarning, match=r"none was given \(of \['head'\]\)\. Pass"):
        optax_mi.learning_rates(state)


def test_a_traced_reference_that_came_out_as_nan_is_missing():
    @jax.jit
    def run(reference):
        tx = single(1e-3, 0.1, reference=reference)
        return tx.update(GRADS, tx.init(PARAMS), PARAMS, mi=0.5)[1]

    with pytest.warns(UserWarning, match=TOLD):
        optax_mi.learning_rates(run(jnp.nan))


def test_a_policy_that_needs_none_says_nothing():
    for policy in (optax_mi.change_policy(), optax_mi.warmup_stable_decay_policy()):
        state = updated(optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy))
        optax_mi.learning_rates(state)
