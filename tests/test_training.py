"""The training loop of the programs, in small, and whole runs on the digits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import optax_mi
from examples.common import data, methods, training
from examples.common.methods import Run
from examples.common.networks import SmallCNN
from examples.common.training import (
    Phase,
    Program,
    SettingError,
    Task,
    in_parts,
    shuffled,
    train,
)
from examples.paper.experiments import EXPERIMENTS

POLICY = Phase("dynamic", {"init_lr": 0.05})


def last(task, phases, **options: Any):
    """The histories of all seeds at the end, and the state."""
    options = {"epochs": 3, "batch_size": 20} | options
    *_, end = train(task, phases, **options)
    return end


def test_batches_cover_the_data_once_and_leave_a_rest_out():
    drawn = shuffled(np.random.default_rng(0), 25, 10)
    assert drawn.shape == (2, 10)
    assert len(set(drawn.ravel().tolist())) == 20


def test_an_epoch_s_record_says_what_it_did_and_the_seed_repeats_it():
    ((history,), state), ((again,), _) = (last(tiny.task(), [POLICY]) for _ in range(2))
    tiny.equal(history, again, rtol=0)
    assert history.column("epoch").tolist() == [0, 1, 2]
    assert (history.column("train_seconds") > 0).all()
    rates = history.column("learning_rate")
    assert rates[0] == pytest.approx(0.05)
    assert optax_mi.learning_rates(state.opt_state)[""] == pytest.approx(rates[2])
    # The first measurement came before the first step, so that the end of each epoch
    # moves the rate as the policy says.
    mi, reference = history.column("mi"), history.column("reference")
    for epoch in range(2):
        gap = 1 - mi[epoch] / reference[epoch]
        assert rates[epoch + 1] == pytest.approx(min(0.1, rates[epoch] + 0.1 * gap))
    few = tiny.digits()
    params = {"params": jax.device_get(state.params)}
    answers = np.asarray(tiny.Tiny().apply(params, few.test_x)).argmax(axis=1)
    accuracy = np.mean(answers == few.test_y)
    assert history.column("accuracy")[-1] == pytest.approx(accuracy)
    (other,), _ = last(tiny.task(), [POLICY], seeds=[1])
    assert other.column("loss")[0] != history.column("loss")[0]


@pytest.mark.e2e
def test_seeds_that_train_together_are_those_that_train_alone():
    phases = [Phase("constant", {"rate": 0.1}), Phase("dynamic", start=1)]
    together, _ = last(tiny.task(), phases, seeds=[0, 1])
    for seed, history in enumerate(together):
        (alone,), _ = last(tiny.task(), phases, seeds=[seed])
        tiny.equal(history, alone, rtol=1e-3, atol=1e-3)


def test_an_epoch_is_the_same_as_one_compiled_loop():
    method = methods.make("constant", Run(1, 15, 2.3), rate=0.1)
    ends = []
    for scan in (False, True):
        program = Program(tiny.task(), method, scan=scan)
        order = np.arange(300).reshape(15, 20)
        state, loss = program.train(program.init(jax.random.key(0)), order)
        ends.append((state.params, loss, program.evaluate(state)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)


def test_a_step_in_parts_is_that_of_the_whole_batch(monkeypatch):
    method, order = methods.make("constant", Run(1, 1, 2.3), rate=0.1), np.arange(50)
    ends, sizes = [], []

    def seen(predict: Any, x: Any, key: Any, size: int) -> Any:
        sizes.append(size)
        return in_parts(predict, x, key, size)

    monkeypatch.setattr(training, "in_parts", seen)
    for size in (50, 20):
        monkeypatch.setattr(training, "CPU_PART", size)
        program = Program(tiny.task(), method)
        state, loss = program.train(program.init(jax.random.key(0)), order[None])
        ends.append((state.params, loss))
    assert sizes == [50, 20]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *ends)


def test_parts_keep_their_order_and_draw_their_own_dropout():
    sizes = []

    def predict(x: Any, key: Any) -> Any:
        sizes.append(len(x))
        return jnp.stack([x, jax.random.uniform(key, x.shape)], axis=1)

    found = in_parts(predict, jnp.arange(50.0), jax.random.key(0), 20)
    assert sizes == [20, 20, 10]
    np.testing.assert_array_equal(found[:, 0], np.arange(50))
    assert len(np.unique(found[:, 1])) == 50
    whole = in_parts(predict, jnp.arange(50.0), jax.random.key(0), 50)
    np.testing.assert_array_equal(whole, predict(jnp.arange(50.0), jax.random.key(0)))


def test_a_change_of_batch_size_leaves_the_epochs_before_it_alone():
    fixed = Phase("constant", {"rate": 0.01})
    gammas = {"gamma_up": 0.1, "gamma_down": 0.1, "gamma_over": 0.1}
    # A change below ten times the information counts as none: judged by it, the rate
    # would fall.
    options = {**gammas, "epsilon": 10.0, "init_lr": 0.01}
    dynamic = Phase("reference", options, batches=5, start=3, value_only=5)
    (base,), _ = last(tiny.task(), [fixed], epochs=4)
    (history,), _ = last(tiny.task(), [fixed, dynamic], epochs=10)
    loss = history.column("loss")
    assert loss[:3].tolist() == base.column("loss")[:3].tolist()
    assert loss[3] != base.column("loss")[3]
    rates, mi = history.column("learning_rate"), history.column("mi")
    assert rates[:4] == pytest.approx([0.01] * 4)
    # By value alone the rate rises for five epochs, whatever the information's change.
    gaps = 1 - mi / history.column("reference")
    for epoch in range(3, 8):
        expected = min(rates[epoch] + 0.1 * gaps[epoch], 0.1)
        assert rates[epoch + 1] == pytest.approx(expected, rel=1e-4)
    assert rates[9] == pytest.approx(max(1e-3, rates[8] - 0.1 * gaps[8]), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, "a phase that starts at epoch 3 needs more epochs than 3"),
        ({"epochs": 4, "batch_size": 99}, "batches of 495 are more than 300 images"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, message):
    phases = EXPERIMENTS["figure5"][2].phases
    with pytest.raises(SettingError, match=message):
        last(tiny.task(), phases, **options)


def test_a_layer_that_is_not_there_is_refused_before_training():
    with pytest.raises(SettingError, match="measured: `layers` must be .*Conv_0"):
        last(tiny.task(layers=("Conv_0",)), [POLICY])


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        pytest.param("fixed", 0.05, marks=pytest.mark.e2e),
        ("decayed", 0.05),
        pytest.param("decayed_low", 0.01, marks=pytest.mark.e2e),
    ],
)
def test_the_all_cnn_s_rows_train_augmented(name, rate):
    (row,) = (row for row in EXPERIMENTS["cifar_allcnn"] if row.name == name)
    assert row.augment
    shifted = []

    def augment(key, images):
        shifted.append(images.shape)
        return images + 1

    def loss(**options: Any):
        (history,), _ = last(tiny.task(**options), row.phases, epochs=7)
        return history

    history = loss(augment=augment)
    assert shifted == [(20, 8, 8, 1)]  # traced once
    assert history.column("loss")[0] != loss().column("loss")[0]
    rates = history.column("learning_rate")
    if name == "fixed":
        assert rates == pytest.approx([rate] * 7)
    else:  # the last step of an epoch still has its rate
        tenths = [rate / 10, rate / 100, rate / 1000]
        assert rates == pytest.approx([rate] * 4 + tenths)


def test_the_all_cnn_s_default_policy_has_their_momentum_and_decay():
    (row,) = (x for x in EXPERIMENTS["cifar_allcnn"] if x.name == "stable_held_out")
    (phase,) = row.phases
    assert row.augment
    assert row.measuring.held_out
    method = methods.make(phase.method, Run(1, 10, 2.3), **phase.options)
    params, state = jnp.ones(2), method.transformation.init(jnp.ones(2))
    for momentum in (1, 1.9):  # decay alone, as the gradient is zero
        updates, state = method.transformation.update(
            jnp.zeros(2), state, params, value=1.0
        )
        rate = method.learning_rates(state)[""]
        assert rate == pytest.approx(1e-4)
        assert updates == pytest.approx(-rate * 1e-3 * momentum)


@pytest.fixture(scope="module")
def task():
    digits = data.load("digits")
    probe = optax_mi.sample_probe(jax.random.key(0), digits.train_x, digits.train_y)
    return Task(SmallCNN(), digits, probe)


def cnn(task, epochs=30, **options: Any):
    (history,), _ = last(
        task, [Phase("dynamic", options)], epochs=epochs, batch_size=16
    )
    return history


@pytest.mark.e2e
def test_the_reference_policy_trains_with_a_rate_that_rises_and_falls(task):
    history = cnn(task)
    rates, mi = history.column("learning_rate"), history.column("mi")
    peak = int(np.argmax(rates))
    assert history.column("accuracy")[-1] > 0.95
    assert rates[0] == pytest.approx(1e-3)
    assert rates[peak] > 0.03
    assert 0 < peak < len(rates) - 1
    assert rates[-1] < 0.9 * rates[peak]
    assert mi[-1] > mi[0] + 0.3


@pytest.mark.e2e
def test_the_change_policy_trains_with_a_rate_that_rises_and_falls(task):
    rates = cnn(task, policy=optax_mi.change_policy()).column("learning_rate")
    peak = int(np.argmax(rates))
    assert rates[peak] > 0.01
    assert 0 < peak < len(rates) - 1
    assert rates[-1] < 0.5 * rates[peak]


def test_a_user_written_policy_trains():
    def missing_information(step):
        """The rate is the share of the label entropy that is still missing."""
        return step.lr_max * (1 - step.mi / step.reference)

    phase = Phase("dynamic", {"policy": missing_information, "init_lr": 0.05})
    (history,), _ = last(tiny.task(), [phase], epochs=12)
    assert history.column("accuracy")[-1] > 0.6
    rates, mi = history.column("learning_rate"), history.column("mi")
    expected = np.clip(0.1 * (1 - mi / history.column("reference")), 1e-3, 0.1)
    np.testing.assert_allclose(rates[1:], expected[:-1], rtol=1e-4)


def between_bounds(logits, labels):
    lower, upper = optax_mi.pairwise_distance_bounds(logits, labels, noise=0.3)
    return (lower + upper) / 2


def info_nce(logits, labels):
    codes = jax.nn.one_hot(labels, 10)
    key, options = jax.random.key(0), dict(steps=300, batch_size=128)
    return optax_mi.info_nce(key, logits, codes, **options).mi


@pytest.mark.e2e
@pytest.mark.parametrize(
    "estimator",
    [
        between_bounds,
        lambda h, y: optax_mi.plug_in_mi(h.argmax(axis=1), y, miller_madow=True),
        info_nce,
    ],
    ids=["bounds", "predicted classes", "info_nce"],
)
def test_the_policies_run_on_any_estimator(task, estimator):
    other = Task(task.model, task.data, task.probe, estimator=estimator)
    history = cnn(other, epochs=20)
    mi = history.column("mi")
    assert history.column("accuracy")[-1] > 0.9
    assert history.column("learning_rate").max() > 0.02
    assert mi[-1] > mi[0] + 0.3
