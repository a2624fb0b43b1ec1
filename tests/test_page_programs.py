"""Programs of the documentation that no other test and no build of a page runs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest
from sklearn import datasets

import optax_mi


@pytest.fixture
def names():
    """What the pages take for granted: a model, data and a loop's own functions."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = jnp.asarray(x[:320] / 16, jnp.float32), jnp.asarray(y[:320])
    model = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(10)])
    probe = optax_mi.sample_probe(jax.random.key(0), x, y, size=160)
    reference = optax_mi.reference_mi(probe)
    tx = optax.chain(
        optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-2, 3.0, reference=reference)
    )
    params = model.init(jax.random.key(1), x[:1])

    def loss(params, x, y):
        logits: Any = model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def measure(params):
        output = optax_mi.capture_activations(model, params, probe.inputs, layers="")
        return optax_mi.estimate_mi(output, probe.outcomes)

    def train_step(params, opt_state, i):
        gradients = jax.grad(loss)(params, x[i], y[i])
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return {
        **dict(jax=jax, optax=optax, optax_mi=optax_mi, partial=functools.partial),
        **dict(x=x, y=y, model=model, probe=probe, reference=reference, tx=tx),
        **dict(params=params, opt_state=tx.init(params), loss=loss, measure=measure),
        **dict(train_step=train_step, epoch=0, steps=50),
        "batches": lambda epoch: np.arange(320).reshape(-1, 40),
    }


@pytest.mark.parametrize("page", ["index.md", "guides/bounds.md"])
def test_a_line_makes_the_transformation(page, names):
    exec(pages.programs(page)[0], names)
    opt_state = names["tx"].init(names["params"])
    assert optax_mi.learning_rates(opt_state)[""] == pytest.approx(1e-4)


def test_the_loop_measures_when_it_says(names):
    names |= {"steps_per_epoch": 8, "batches": names["batches"](0)}
    before = names["measure"](names["params"])[""]
    exec(pages.programs("guides/training_loops.md")[0], names)
    rate = optax_mi.learning_rates(names["opt_state"])[""]
    assert rate > 1e-2  # doubled, once a measurement
    assert names["measure"](names["params"])[""] > before


def test_gammas_change_in_a_factory(names):
    exec(pages.programs("guides/training_loops.md")[1], names)
    tx, params = names["tx"], names["params"]
    opt_state = tx.init(params)
    assert opt_state[1].hyperparams["gamma_up"] == pytest.approx(0.1)
    _, opt_state = tx.update(params, opt_state, params, mi=jnp.asarray(1.0))
    assert 1e-3 <= optax_mi.learning_rates(opt_state)[""] <= 0.1


def test_several_devices_train_and_measure_as_one_does(names):
    train, copied, spread, _ = pages.programs("guides/distributed.md")
    one = names["params"], names["opt_state"]
    for i in names["batches"](0):
        one = names["train_step"](*one, i)
    exec(train, names)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        names["params"],
        one[0],
    )
    close = pytest.approx(float(names["measure"](one[0])[""]), abs=1e-3)
    exec(copied, names)
    assert names["measure"](names["params"], names["probe"])[""] == close
    exec(spread, names)
    assert names["mi"][""] == close
