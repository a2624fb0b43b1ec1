import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
import pages
import pytest
import tiny
from flax import nnx

import optax_mi
from examples import range_test
from examples.common import data
from examples.common.networks import SmallCNN
from examples.common.training import Task
from examples.common.training import sweep as sweep_task


def sweep(curve, loss=lambda rate: 1.0, **options: Any):
    """A sweep in which the state is the rate and the information a curve over it."""
    defaults: dict[str, Any] = dict(
        lr_low=1e-6, lr_high=1.0, steps=240, measure_every=4
    )
    return optax_mi.lr_range_test(
        lambda state, batch, rate: (rate, loss(rate)),
        1e-6,
        itertools.repeat(None),
        curve,
        **defaults | options,
    )


def hill(rate):
    """Flat at 0.5, a line in log10(rate) from 1e-4 to 1.5 at 1e-2, and a fall."""
    decades = np.log10(rate)
    return float(0.5 + np.clip((decades + 4) / 2, 0, 1) - max(0, decades + 1))


def test_the_bounds_are_a_tenth_of_where_information_rises_and_where_it_has_risen():
    result = sweep(hill)
    # 5 % of the rise are a tenth of a decade, and measurements are as far apart.
    assert np.log10(result.lr_min) == pytest.approx(-5 + 0.1, abs=0.1)
    assert np.log10(result.lr_max) == pytest.approx(-2 - 0.1, abs=0.1)


def test_a_stray_estimate_moves_neither_bound():
    strays = {3: 9.0, 10: -9.0, 40: 9.0, 50: -9.0}
    count = itertools.count()
    stray = sweep(lambda rate: hill(rate) + strays.get(next(count), 0))
    assert stray[3:] == sweep(hill)[3:]


def test_a_dip_before_the_rise_is_not_taken_for_it():
    def dips(rate):
        return hill(rate) - 0.2 * np.exp(-(((np.log10(rate) + 4) / 0.4) ** 2))

    assert np.log10(sweep(dips).lr_min) > -5.1


def test_information_that_never_rises_suggests_nothing():
    for curve in (lambda rate: 1.0, lambda rate: -rate):
        result = sweep(curve)
        assert np.isnan([result.lr_min, result.lr_max]).all()
        assert len(result.mi) == 61


@pytest.mark.parametrize("broken", ["loss", "information"])
def test_the_sweep_ends_where_numbers_do(broken):
    def breaks(rate):
        return np.nan if rate > 0.1 else hill(rate)

    if broken == "loss":
        result = sweep(hill, loss=lambda rate: np.inf if rate > 0.1 else 1.0)
    else:
        result = sweep(breaks)
    assert 0.1 < result.learning_rate[-1] < 0.15
    assert result[3:] == sweep(hill)[3:]


def test_every_rate_has_a_step_and_losses_are_means_between_measurements():
    rates = []
    result = sweep(hill, loss=lambda rate: rates.append(rate) or len(rates), steps=20)
    np.testing.assert_allclose(rates, np.geomspace(1e-6, 1, 20))
    np.testing.assert_array_equal(result.learning_rate, [1e-6, *rates[3::4]])
    np.testing.assert_array_equal(result.loss, [np.nan, 2.5, 6.5, 10.5, 14.5, 18.5])


def test_measurements_may_be_mappings_and_progress_is_shown():
    shown = []
    result = sweep(
        lambda rate: {"a": 9.0, "": hill(rate)},
        progress=lambda steps: shown.append(len(steps)) or iter(steps),
    )
    assert shown == [240]
    assert result[3:] == sweep(hill)[3:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(lr_low=0.0), "`lr_low` must be finite and > 0, got 0.0"),
        (dict(lr_high=np.inf), "`lr_high` must be finite and > 0, got inf"),
        (dict(lr_low=1.0), "`lr_low` must be less than `lr_high` = 1.0, got 1.0"),
        (dict(steps=0), "`steps` must be an integer >= 1, got 0"),
        (dict(measure_every=1.5), "`measure_every` must be an integer >= 1, got 1.5"),
        (dict(steps=15), "`steps` must be at least 4 times `measure_every`, got 15"),
    ],
)
def test_bad_arguments_are_refused_with_their_name(options, message):
    with pytest.raises(ValueError, match=message):
        sweep(hill, **options)


def swept(batches, steps=20):
    """The batches that the steps of a sweep are given."""
    given = []
    optax_mi.lr_range_test(
        lambda state, batch, rate: (state, given.append(batch) or 1.0),
        0,
        batches,
        lambda state: 1.0,
        steps=steps,
    )
    return given


@pytest.mark.parametrize("n", [1, 7, 20, 30])
def test_a_list_of_any_number_of_batches_is_gone_through_again(n):
    assert swept(list(range(n))) == [step % n for step in range(20)]


def test_a_loader_is_begun_anew_and_not_kept():
    class Loader:
        epochs = 0

        def __iter__(self):
            self.epochs += 1
            yield from [(self.epochs, i) for i in range(8)]

    found = swept(Loader())
    assert found == [(epoch, i) for epoch in (1, 2, 3) for i in range(8)][:20]


def test_an_iterator_gives_no_more_batches_than_there_are_steps():
    batches = iter(range(25))
    assert swept(batches) == list(range(20))
    assert next(batches) == 20


@pytest.mark.parametrize(
    ("batches", "number"), [(iter(range(7)), 7), ((i for i in range(19)), 19), ([], 0)]
)
def test_an_iterator_that_ends_before_the_sweep_is_refused(batches, number):
    told = f"`batches` must be an iterator over 20 batches, or a list .* got {number}"
    with pytest.raises(ValueError, match=told):
        swept(batches)


@pytest.mark.slow
def test_its_bounds_train_as_well_as_bounds_set_by_hand(capsys):
    digits, scores = data.load("digits"), {"by hand": [], "suggested": []}
    for seed in range(3):
        key = jax.random.key(seed)
        probe = optax_mi.sample_probe(key, digits.train_x, digits.train_y)
        task = Task(SmallCNN(), digits, probe)
        runs = range_test.compare(task, seed, epochs=40, batch_size=16)
        for name, history in runs.items():
            scores[name] += history.column("accuracy")[-5:].tolist()
    assert np.mean(scores["by hand"]) > 0.97
    assert np.mean(scores["suggested"]) > np.mean(scores["by hand"]) - 0.003
    assert (
        len(
            re.findall(
                r"^seed \d  (by hand|suggested)", capsys.readouterr().out, re.MULTILINE
            )
        )
        == 6
    )


@pytest.mark.e2e
def test_sweeps_of_other_optimizers_are_printed(capsys):
    range_test.main(["--base", "adam"])
    found = re.match(r"seed 0  adam  (0\.\d+) to (0\.\d+)\n", capsys.readouterr().out)
    assert found
    low, high = map(float, found.groups())
    assert low < 0.001 < high < 0.1


def test_a_sweep_trains_at_each_of_its_rates():
    """Plain SGD by hand, at the same rates and batches."""
    task = tiny.task(layers=("logits",))  # it is the output that is measured
    options: Any = dict(lr_low=0.01, lr_high=0.1, steps=20, measure_every=5)
    result = sweep_task(task, batch_size=100, seed=0, **options)
    params = task.model.init(jax.random.key(0), task.data.train_x[:1])
    rng, losses, order = np.random.default_rng(0), [], np.arange(0)

    def loss(params, x, y):
        logits: Any = task.model.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    rates = np.geomspace(0.01, 0.1, 20)
    for step, rate in enumerate(rates):
        if step % 3 == 0:
            order = rng.permutation(300)
        batch = order[step % 3 * 100 :][:100]
        x, y = task.data.train_x[batch], task.data.train_y[batch]
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        params = jax.tree.map(lambda p, g, r=rate: p - r * g, params, gradients)
        losses.append(float(value))
    np.testing.assert_allclose(
        result.loss[1:], np.reshape(losses, (4, 5)).mean(1), rtol=1e-3
    )


@pytest.mark.e2e
def test_an_nnx_model_is_swept_through_a_clone():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(100, 3)), jnp.float32)
    y = np.asarray(x[:, 0] > 0, np.int32)
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    before = jax.tree.map(jnp.copy, nnx.state(model))

    @nnx.jit
    def train_step(model, batch, learning_rate):
        loss, gradients = nnx.value_and_grad(
            lambda m: optax.softmax_cross_entropy_with_integer_labels(m(x), y).mean()
        )(model)
        nnx.update(
            model,
            jax.tree.map(
                lambda p, g: p - learning_rate * g, nnx.state(model), gradients
            ),
        )
        return model, loss

    result = optax_mi.lr_range_test(
        train_step,
        nnx.clone(model),
        itertools.repeat(None),
        lambda model: optax_mi.ksg_discrete(model(x), y),
        steps=60,
    )
    assert result.loss[-1] < result.loss[1]
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))


def test_the_rate_of_the_docs_is_zero_where_training_ends():
    names = {"optax": optax, "optax_mi": optax_mi, "reference": 2.3, "steps": 20}
    exec(pages.programs("guides/bounds.md")[1], names)
    params, norms = jnp.ones(3), []
    state = names["tx"].init(params)
    for _ in range(21):
        updates, state = names["tx"].update(params, state, params)
        norms.append(float(jnp.abs(updates).sum()))
    assert norms[:17] == pytest.approx([3e-4] * 17)
    assert norms[18] == pytest.approx(1.5e-4)
    assert norms[20] == 0


def test_the_program_of_the_docs_runs_as_it_stands():
    names: dict[str, Any] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in pages.cells("guides/bounds.md"):
            exec(cell, names)
    result, state = names["result"], names["tx"].init(names["params"])
    assert 1e-4 < result.lr_min < 0.01 < result.lr_max < 1
    assert optax_mi.learning_rates(state)[""] == pytest.approx(result.lr_min)


@pytest.mark.parametrize("seed", range(8))
def test_noise_suggests_nothing(seed):
    rng = np.random.default_rng(seed)
    result = sweep(lambda rate: 0.1 + 0.02 * rng.normal())
    assert np.isnan([result.lr_min, result.lr_max]).all()


def test_a_rate_that_breaks_the_loss_is_not_suggested():
    rising = sweep(
        lambda rate: np.log10(rate), loss=lambda rate: np.nan if rate > 0.01 else 1.0
    )
    assert rising.learning_rate[-1] > 0.01 > rising.lr_max
