"""The programs of docs/guides/training_loops.md that wait for nothing, on digits."""

import functools
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest
from jax._src.array import ArrayImpl
from sklearn import datasets

import optax_mi

BESIDE, ON_A_SPARE_DEVICE, EVERY_N_STEPS = pages.programs("guides/training_loops.md")[
    2:
]
EPOCHS, STEPS = 6, 12


@pytest.fixture
def to_host(monkeypatch):
    """The shapes of the arrays whose values were asked for, or that were waited for.

    On a CPU a value is read where it lies, and JAX's own guard against transfers has
    nothing to stop.
    """
    seen = []

    def seeing(function):
        def read(array, *args, **options):
            if isinstance(array, jax.Array):
                seen.append(array.shape)
            return function(array, *args, **options)

        return read

    # JAX's own ways, and NumPy's, which looks into the buffer.
    monkeypatch.setattr(ArrayImpl, "_value", property(seeing(ArrayImpl._value.fget)))
    for name in ("array", "asarray", "from_dlpack"):
        monkeypatch.setattr(np, name, seeing(getattr(np, name)))
    wait = seeing(ArrayImpl.block_until_ready)
    monkeypatch.setattr(ArrayImpl, "block_until_ready", wait)
    monkeypatch.setattr(jax, "block_until_ready", lambda tree: jax.tree.map(wait, tree))
    return seen


@pytest.mark.parametrize(
    "read",
    [
        *(float, bool, print, jax.device_get),
        lambda a: a.item(),
        lambda a: np.asarray(a),
        lambda a: np.from_dlpack(a),
        lambda a: a.block_until_ready(),
        lambda a: jax.block_until_ready([a]),
    ],
)
def test_what_reads_a_value_or_waits_for_it_is_seen(to_host, read):
    array = jnp.ones(()) + 1
    assert not to_host
    read(array)
    assert () in to_host


@functools.cache
def setting() -> dict[str, Any]:
    x, y = datasets.load_digits(return_X_y=True)
    x, y = jnp.asarray(x, jnp.float32) / 16, jnp.asarray(y)
    model = nn.Sequential([nn.Dense(32), nn.relu, nn.Dense(10)])
    probe = optax_mi.sample_probe(jax.random.key(1), x, y, size=200)
    tx = optax.chain(
        optax.sgd(1.0),
        optax_mi.mi_dynamic_lr(
            0.01,
            0.3,
            reference=optax_mi.reference_mi(probe),
            policy=optax_mi.reference_policy(),
        ),
    )

    def loss(params, x, y):
        logits = jnp.asarray(model.apply(params, x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def train_step(params, opt_state, x, y):
        gradients = jax.grad(loss)(params, x, y)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = model.init(jax.random.key(0), x[:1])
    order = np.random.default_rng(0).permutation(len(x))[: EPOCHS * STEPS * 20]
    order = jnp.asarray(order.reshape(EPOCHS, STEPS, 20))
    epochs = [list(epoch) for epoch in order]
    device, spare, *_ = jax.devices()
    modules = dict(jax=jax, jnp=jnp, optax=optax, optax_mi=optax_mi, partial=partial)
    network = dict(model=model, params=params, loss=loss, train_step=train_step)
    return (
        modules
        | network
        | dict(
            tx=tx,
            opt_state=tx.init(params),
            probe=probe,
            x=x,
            y=y,
            epochs=EPOCHS,
            batches=lambda epoch: epochs[epoch],
            order=order.reshape(-1, 20),
            every=STEPS,
            device=device,
            spare=spare,
        )
    )


def measured(names, params):
    model, probe = names["model"], names["probe"]
    found = optax_mi.capture_activations(model, params, probe.inputs, layers="")
    return optax_mi.estimate_mi(found, probe.outcomes)


def by_the_book(names, *, late):
    """The state after the epochs, each measured and recorded as it ends.

    So are the parameters of the start, unless all is recorded an epoch late.
    """
    params, opt_state = names["params"], names["opt_state"]
    mi = None
    if not late:
        opt_state = optax_mi.record_mi(opt_state, measured(names, params))
    for epoch in range(EPOCHS):
        for i in names["batches"](epoch):
            x, y = names["x"][i], names["y"][i]
            params, opt_state = names["train_step"](params, opt_state, x, y)
        last, mi = mi, measured(names, params)
        opt_state = optax_mi.record_mi(opt_state, last if late else mi)
    return params, opt_state


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("program", "late"), [(BESIDE, False), (ON_A_SPARE_DEVICE, True)]
)
def test_an_epoch_and_its_measurement_read_nothing(to_host, program, late):
    names = dict(setting())
    want = by_the_book(names, late=late)
    to_host.clear()
    exec(program, names)
    assert to_host == []
    assert names["params"]["params"]["layers_0"]["bias"].devices() == {names["device"]}
    got = names["params"], names["opt_state"]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)
    assert optax_mi.learning_rates(names["opt_state"])[""] > 0.01
    if late:
        assert [leaf.devices() for leaf in names["mi"].values()] == [{names["spare"]}]


@pytest.mark.e2e
def test_a_compiled_loop_measures_every_n_steps_and_reads_nothing(to_host):
    names = dict(setting())
    want, want_state = names["params"], names["opt_state"]
    for epoch in range(EPOCHS):
        want_state = optax_mi.record_mi(want_state, measured(names, want))
        for i in names["batches"](epoch):
            x, y = names["x"][i], names["y"][i]
            want, want_state = names["train_step"](want, want_state, x, y)
    to_host.clear()
    exec(EVERY_N_STEPS, names)
    assert to_host == []
    got = names["params"], names["opt_state"]
    same = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(same, got, (want, want_state))
    assert optax_mi.learning_rates(names["opt_state"])[""] > 0.01


def test_record_mi_outside_of_jit_reads_the_reference(to_host):
    names = dict(setting())
    optax_mi.record_mi(names["opt_state"], 1.0)
    assert to_host
