"""Runs that Orbax has saved go on as they were, and so do those of plain SGD."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pages
import pytest
from flax import nnx, serialization
from flax.training.train_state import TrainState

import optax_mi

SAVE, RESTORE, SAVE_NNX, RESTORE_NNX, _, _, FROM_SGD, FROM_ADAM, FROM_SGD_NNX = (
    pages.programs("guides/checkpoints.md")
)

X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
LAYERS = 2
FORMS = {
    "plain": functools.partial(
        optax_mi.mi_dynamic_lr, policy=optax_mi.reference_policy()
    ),
    "layer-wise": functools.partial(
        optax_mi.layerwise_mi_dynamic_lr, "auto", policy=optax_mi.reference_policy()
    ),
    "with a memory": functools.partial(
        optax_mi.mi_dynamic_lr, policy=optax_mi.warmup_stable_decay_policy()
    ),
}
forms = pytest.mark.parametrize("form", FORMS)
forms_of_the_page = pytest.mark.parametrize("form", ["plain", "layer-wise"])
MODEL = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])


class Model(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(nnx.relu(self.norm(self.dense(x)))))


def transform(form):
    scale = FORMS[form](1e-3, 0.1, reference=2.3)
    return optax.chain(optax.sgd(1.0, momentum=0.9), scale)


def update(tx, params, opt_state):
    grads = jax.tree.map(lambda p: p + 0.1, params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def trained(tx, steps=3):
    params = MODEL.init(jax.random.key(0), X)
    opt_state = tx.init(params)
    for _ in range(steps):
        params, opt_state = update(tx, params, opt_state)
    return params, opt_state


def measured(form, measurements=(0.5, 1.0)):
    """An optimizer, its parameters and its state, with a measurement pending."""
    tx = transform(form)
    params, opt_state = trained(tx)
    for mi in measurements:
        opt_state = optax_mi.record_mi(opt_state, mi)
        params, opt_state = update(tx, params, opt_state)
    return tx, params, optax_mi.record_mi(opt_state, 1.25)


def step(model, optimizer):
    gradients = nnx.grad(lambda model: jnp.square(model(X)).mean())(model)
    optimizer.update(model, gradients)


def measured_nnx(form):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, transform(form), wrt=nnx.Param)
    for mi in (0.5, 1.0):
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        step(model, optimizer)
    optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, 1.25)
    return model, optimizer


def bits(tree) -> Any:
    def of(leaf):
        keys = isinstance(leaf, jax.Array) and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )
        leaf = np.asarray(jax.random.key_data(leaf) if keys else leaf)
        return str(leaf.dtype), leaf.shape, leaf.tobytes()

    leaves, structure = jax.tree.flatten(tree)
    return structure, [of(leaf) for leaf in leaves]


def save(directory, **state):
    with ocp.CheckpointManager(directory) as manager:
        manager.save(1, args=ocp.args.StandardSave(state))


def mi_states(tree):
    is_state = lambda node: isinstance(node, optax_mi.MIDynamicLRState)  # noqa: E731
    return [n for n in jax.tree.leaves(tree, is_leaf=is_state) if is_state(n)]


NAMES = {"jax": jax, "nnx": nnx, "np": np, "optax": optax, "optax_mi": optax_mi}
NAMES |= {"model": MODEL, "Model": Model, "x": X, "epoch": 2, "step": 17}


def run(program, **names) -> Any:
    names = NAMES | names
    exec(program, names)
    return names


@forms
@pytest.mark.parametrize(
    "measurements",
    [(), (0.5,), (0.5, 1.0), (0.5, 1.5, 1.0), (0.5, 1.5, 1.0, 1.5, 1.5, 1.5)],
    ids=["new", "one", "warm-up", "gone back", "cooled"],
)
def test_what_is_restored_is_what_was_saved_to_the_last_bit(
    tmp_path, form, measurements
):
    tx, params, opt_state = measured(form, measurements)
    run(SAVE, directory=tmp_path, params=params, opt_state=opt_state)
    found = run(RESTORE, directory=tmp_path, tx=tx)
    assert (found["state"]["epoch"], found["state"]["step"]) == (2, 17)
    assert bits(found["params"]) == bits(params)
    assert bits(found["opt_state"]) == bits(opt_state)
    states = mi_states(found["opt_state"])
    assert len(states) == (LAYERS if form == "layer-wise" else 1)
    for state in states:
        assert state.pending == 1.25
        (fresh, *_) = mi_states(tx.init(params))
        missing = [fresh.mi == mi for mi in (state.mi, state.previous_mi)]
        assert sum(missing) == max(2 - len(measurements), 0)
    after = update(tx, found["params"], found["opt_state"])
    assert bits(after) == bits(update(tx, params, opt_state))
    assert {float(state.mi) for state in mi_states(after)} == {1.25}


@forms
def test_an_nnx_model_and_its_optimizer_are_restored_to_the_last_bit(tmp_path, form):
    model, optimizer = measured_nnx(form)
    run(SAVE_NNX, directory=tmp_path, model=model, optimizer=optimizer)
    found = run(RESTORE_NNX, directory=tmp_path, tx=transform(form))
    assert found["state"]["step"] == 17
    for have, want in [(found["model"], model), (found["optimizer"], optimizer)]:
        assert bits(nnx.state(have)) == bits(nnx.state(want))
    have, want = found["optimizer"].opt_state, optimizer.opt_state
    assert jax.tree.structure(have) == jax.tree.structure(want)
    assert len(mi_states(have)) == (3 if form == "layer-wise" else 1)
    for _ in range(2):
        step(model, optimizer)
        step(found["model"], found["optimizer"])
    assert bits(nnx.state(found["model"])) == bits(nnx.state(model))
    assert optax_mi.learning_rates(have) == optax_mi.learning_rates(want)


@forms
def test_a_train_state_is_restored_to_the_last_bit(tmp_path, form):
    tx, params, opt_state = measured(form)
    create = functools.partial(TrainState.create, apply_fn=MODEL.apply, tx=tx)
    train_state = create(params=params).replace(opt_state=opt_state)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave(train_state))
        like = create(params=MODEL.init(jax.random.key(1), X))
        found = manager.restore(1, args=ocp.args.StandardRestore(like))
    assert isinstance(found, TrainState)
    assert bits(found) == bits(train_state)


@forms
def test_flax_bytes_give_the_state_back_to_the_last_bit(form):
    tx, params, opt_state = measured(form)
    written = serialization.to_bytes(opt_state)
    found = serialization.from_bytes(tx.init(params), written)
    assert bits(found) == bits(opt_state)


def test_the_saved_reference_counts_until_another_is_recorded(tmp_path):
    tx, params, opt_state = measured("plain")
    run(SAVE, directory=tmp_path, params=params, opt_state=opt_state)
    other = optax_mi.mi_dynamic_lr(
        0.2, 0.3, reference=5.0, policy=optax_mi.reference_policy()
    )
    tx = optax.chain(optax.sgd(1.0, momentum=0.9), other)
    opt_state = run(RESTORE, directory=tmp_path, tx=tx)["opt_state"]
    (state,) = mi_states(opt_state)
    assert state.reference == np.float32(2.3)
    _, opt_state = update(tx, params, opt_state)
    rates = optax_mi.learning_rates(opt_state)
    assert rates == {"": pytest.approx(0.2)}  # the bounds are those of the program
    (state,) = mi_states(optax_mi.record_mi(opt_state, None, reference=5.0))
    assert state.reference == 5.0


def test_without_a_like_state_it_is_no_optimizer_state(tmp_path):
    _, _, opt_state = measured("plain")
    save(tmp_path, opt_state=opt_state)
    with ocp.CheckpointManager(tmp_path) as manager:
        found = manager.restore(1, args=ocp.args.StandardRestore())
    assert found["opt_state"][1]["pending"] == 1.25
    with pytest.raises(ValueError, match="`opt_state` must be the state of"):
        optax_mi.record_mi(found["opt_state"], 1.5)


def of_form(program, form):
    """A program of the page, made layer-wise as its text says."""
    make = "optax_mi.mi_dynamic_lr("
    assert program.count(make) == 1
    layerwise = 'optax_mi.layerwise_mi_dynamic_lr("auto", '
    return program.replace(make, make if form == "plain" else layerwise)


def assert_taken_over(found, old_tx, params, opt_state, rate):
    tx, taken = found["tx"], found["opt_state"]
    assert bits(found["params"]) == bits(params)
    assert jax.tree.structure(taken) == jax.tree.structure(tx.init(params))
    rates = optax_mi.learning_rates(taken)
    assert set(rates.values()) == {float(np.float32(rate))}
    # One measurement moves no rate yet: the update is the old optimizer's.
    have, taken = update(tx, params, optax_mi.record_mi(taken, 0.5))
    want, opt_state = update(old_tx, params, opt_state)
    assert bits(have) == bits(want)
    _, taken = update(tx, have, optax_mi.record_mi(taken, 1.0))
    assert all(
        new != old
        for new, old in zip(
            optax_mi.learning_rates(taken).values(), rates.values(), strict=True
        )
    )


@forms_of_the_page
def test_a_run_of_sgd_is_taken_over_with_its_rate_and_momentum(tmp_path, form):
    old_tx = optax.sgd(0.02, momentum=0.9)
    params, opt_state = trained(old_tx)
    save(tmp_path, params=params, opt_state=opt_state)
    like = MODEL.init(jax.random.key(1), X)
    found = run(of_form(FROM_SGD, form), directory=tmp_path, params=like)
    assert bits(found["opt_state"][0]) == bits(opt_state)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(opt_state))
    assert_taken_over(found, old_tx, params, opt_state, 0.02)


@forms_of_the_page
def test_a_run_of_scheduled_adam_is_taken_over_with_its_rate_and_moments(
    tmp_path, form
):
    schedule = optax.cosine_decay_schedule(0.01, 1000)
    old_tx = optax.adam(schedule)
    params, opt_state = trained(old_tx, steps=300)
    save(tmp_path, params=params, opt_state=opt_state)
    like = MODEL.init(jax.random.key(1), X)
    found = run(of_form(FROM_ADAM, form), directory=tmp_path, params=like)
    assert bits(found["opt_state"][0][0]) == bits(opt_state[0])
    assert_taken_over(found, old_tx, params, opt_state, schedule(300))


def test_injected_hyperparameters_are_taken_over_by_their_inner_state():
    params, old = trained(optax.inject_hyperparams(optax.sgd)(0.02, momentum=0.9))
    _, plain = trained(optax.sgd(0.02, momentum=0.9))
    assert bits(old.inner_state) == bits(plain)
    assert old.hyperparams["learning_rate"] == np.float32(0.02)


@forms_of_the_page
def test_an_nnx_run_of_sgd_is_taken_over_with_its_rate_and_momentum(form):
    def sgd():
        model = Model(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.sgd(0.02, momentum=0.9), wrt=nnx.Param)
        for _ in range(3):
            step(model, optimizer)
        return model, optimizer

    want, old = sgd()
    model, again = sgd()
    found = run(of_form(FROM_SGD_NNX, form), model=model, old_optimizer=again)
    optimizer = found["optimizer"]
    rates = optax_mi.learning_rates(optimizer.opt_state)
    assert set(rates.values()) == {float(np.float32(0.02))}
    assert int(optimizer.step[...]) == 3
    step(want, old)
    step(model, optimizer)
    assert bits(nnx.state(model)) == bits(nnx.state(want))
    assert bits(optimizer.opt_state[0]) == bits(old.opt_state)


def test_one_rate_becomes_one_for_each_layer():
    _, params, old = measured("plain")
    rate = optax_mi.learning_rates(old)[""]
    layerwise = FORMS["layer-wise"](1e-3, 0.1, init_lr=rate, reference=2.3)
    tx = optax.chain(optax.sgd(1.0, momentum=0.9), layerwise)
    opt_state = (old[0], tx.init(params)[1])
    assert set(optax_mi.learning_rates(opt_state).values()) == {rate}
    update(tx, params, opt_state)
