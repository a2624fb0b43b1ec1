"""What stands behind a rate in its chain and undoes it is told of on the host."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiers
from flax import nnx
from measurements import GRADS, PARAMS, layerwise, single

import optax_mi

TOLD = r"ScaleByAdamState of the chain normalizes .* last, .*adam\(1\.0\), optax_mi\.mi"
default = functools.partial(optax_mi.mi_dynamic_lr, reference=2.0)
RATES = {
    "plain": single(1e-3, 0.1, reference=2.0),
    "default": default(1e-3, 0.1),
    "of a layer": single(1e-3, 0.1, reference=2.0, layer="head"),
    "layer-wise": layerwise(1e-3, 0.1, reference=2.0),
    "layer-wise default": optax_mi.layerwise_mi_dynamic_lr(
        "auto", 1e-3, 0.1, default="head"
    ),
    "injected": optax.inject_hyperparams(default)(lr_min=1e-3, lr_max=0.1),
}
RATE = RATES["plain"]
SGD, ADAM = optax.sgd(1.0), optax.adam(1.0)
LABELS = {"dense": "a", "head": "b"}
IN_DENSE = {"dense": True, "head": False}


def masked(tx, other=False):
    return optax.masked(tx, {k: v != other for k, v in IN_DENSE.items()})


def look(state):
    return optax_mi.learning_rates(state)


def write_down(state):
    return optax_mi.MIHistory().record(state, epoch=0, mi={"": 0.5, "head": 0.5})


def give(state):
    return optax_mi.record_mi(state, {"dense": 0.5, "head": 0.5, "": 0.5})


looks = pytest.mark.parametrize("look", [look, write_down, give])


@looks
@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_adam_behind_a_rate_is_told_of(rate, look):
    with pytest.warns(UserWarning, match=TOLD) as told:
        look(optax.chain(rate, ADAM).init(PARAMS))
    assert len(told) == 1
    assert told[0].filename == __file__


WRONG = {
    "something between": optax.chain(SGD, RATE, optax.clip(1.0), ADAM),
    "injected": optax.chain(RATE, optax.inject_hyperparams(optax.adam)(1.0)),
    "within a chain": optax.chain(RATE, optax.chain(optax.clip(1.0), ADAM)),
    "apply_if_finite behind": optax.chain(RATE, optax.apply_if_finite(ADAM, 3)),
    "MultiSteps around": optax.MultiSteps(optax.chain(RATE, ADAM), 2),
    "in a chain before": optax.chain(optax.chain(RATE, ADAM), optax.clip(1.0)),
    "in a partition": optax.partition(
        {"a": optax.chain(RATE, ADAM), "b": optax.set_to_zero()}, LABELS
    ),
    "behind a partition": optax.chain(
        optax.partition({"a": RATE, "b": SGD}, LABELS), ADAM
    ),
}


@pytest.mark.parametrize("tx", WRONG.values(), ids=WRONG)
def test_it_is_told_of_whatever_lies_around(tx):
    with pytest.warns(UserWarning, match=TOLD):
        look(tx.init(PARAMS))


@pytest.mark.parametrize("name", ["default", "layer-wise default", "injected"])
@pytest.mark.parametrize(
    "behind", [optax.sgd(1.0, momentum=0.9), optax.ema(0.9)], ids=["momentum", "ema"]
)
def test_an_average_is_told_of_behind_a_rate_that_goes_back(behind, name):
    told = r"(Trace|Ema)State of the chain averages .* last, .*sgd\(1\.0, momentum"
    with pytest.warns(UserWarning, match=told):
        look(optax.chain(SGD, RATES[name], behind).init(PARAMS))


RIGHT = {
    "last": optax.chain(ADAM, RATE),
    "last of all": optax.chain(optax.clip(1.0), optax.chain(ADAM, RATE)),
    "alone": RATE,
    "sgd behind": optax.chain(RATE, SGD),
    "momentum behind": optax.chain(RATE, optax.sgd(1.0, momentum=0.9)),
    "an average behind": optax.chain(SGD, RATE, optax.ema(0.9)),
    "a schedule behind": optax.chain(
        ADAM, RATE, optax.scale_by_schedule(optax.linear_schedule(1.0, 0.0, 9))
    ),
    "clipping, noise and decay behind": optax.chain(
        ADAM,
        RATE,
        optax.clip_by_global_norm(1.0),
        optax.add_noise(0.1, 0.5, key=0),
        optax.add_decayed_weights(-1e-3),
        optax.zero_nans(),
        optax.keep_params_nonnegative(),
    ),
    "MultiSteps": optax.MultiSteps(optax.chain(ADAM, RATE), 2),
    "apply_if_finite": optax.apply_if_finite(optax.chain(ADAM, RATE), 2),
    "finite before": optax.chain(optax.apply_if_finite(ADAM, 2), RATE),
    "partition": optax.partition(
        {"a": optax.chain(SGD, RATE), "b": optax.adam(1e-3)}, LABELS
    ),
    "Adam for other parameters": optax.chain(
        masked(RATE), masked(optax.adam(1e-3), other=True)
    ),
    "layer-wise": optax.chain(ADAM, RATES["layer-wise default"]),
    "schedule-free": optax.contrib.schedule_free(optax.chain(ADAM, RATE), 1.0),
    "sharpness-aware": optax.contrib.sam(optax.chain(ADAM, RATE), optax.adam(0.1)),
}


@pytest.mark.parametrize("tx", RIGHT.values(), ids=RIGHT)
def test_nothing_is_said_of_what_may_be_right(tx):
    state = tx.init(PARAMS)
    look(state)
    optax_mi.record_mi(state, 0.5)


def test_nothing_is_said_of_two_networks_states_in_one_tuple():
    states = (optax.chain(SGD, RATE).init(PARAMS), ADAM.init(PARAMS))
    assert len(look(states)) == 1


def test_the_states_of_nnx_and_of_a_compiled_step_are_understood():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

    tx, model = optax.chain(RATE, ADAM), Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    nnx.jit(lambda o, m: o.update(m, jax.tree.map(jnp.ones_like, nnx.state(m))))(
        optimizer, model
    )
    _, state = jax.jit(tx.update)(GRADS, tx.init(PARAMS), PARAMS)
    for each in (optimizer.opt_state, state):
        with pytest.warns(UserWarning, match=TOLD):
            look(each)
    with pytest.warns(UserWarning, match=TOLD):
        jax.jit(optax_mi.record_mi)(state, 0.5)


def test_a_loop_is_told_once():
    tx = optax.chain(RATE, ADAM)
    state = tx.init(PARAMS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(3):
            state = optax_mi.record_mi(state, 0.5)
    assert len(told) == 1


OPTIMIZERS: dict[str, Any] = {
    name: getattr(optax, name)(1.0)
    for name in (
        *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw"),
        *("adamw", "adan", "amsgrad", "lamb", "lion", "nadam", "nadamw", "novograd"),
        *("optimistic_adam_v2", "rmsprop", "rprop", "sgd", "sm3", "yogi"),
    )
} | {
    "radam": optax.radam(1.0, threshold=2.0),  # from the third update on
    "momentum": optax.sgd(1.0, momentum=0.9),
    "centered rmsprop": optax.rmsprop(1.0, centered=True, bias_correction=True),
    "rmsprop, corrected": optax.rmsprop(1.0, bias_correction=True),
    "optimistic": optax.optimistic_gradient_descent(1.0),
}


def forgets_sizes(tx):
    """Whether updates are the same of gradients that are a thousand times larger."""
    params = jnp.linspace(0.1, 1.0, 4)

    @jax.jit
    def last_update(times):
        state, updates = tx.init(params), params
        for number in range(6):
            updates, state = tx.update(times * jnp.cos(params + number), state, params)
        return updates

    return np.allclose(last_update(1e3), last_update(1e6), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "name", tiers.quick(OPTIMIZERS, "adam", "lion", "momentum", "rmsprop", "sgd")
)
def test_those_told_of_are_those_that_forget_the_size_of_what_they_are_given(name):
    tx = OPTIMIZERS[name]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        look(optax.chain(RATE, tx).init(PARAMS))
    assert bool(told) == forgets_sizes(tx)
