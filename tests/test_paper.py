"""The paper's experiments as programs, in small, on scikit-learn's digits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_mi
from examples import data
from examples.paper import baselines, curves, loop, report, results, run, tables
from examples.paper.compiled import compile_program
from examples.paper.experiments import Measuring
from examples.paper.figures import FIGURES
from examples.paper.models import MODELS
from examples.paper.optimizers import Setting

SMALL = ["--dataset", "digits", "--train-size", "1000"]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_size=600)


def row(figure, name):
    return next(row for row in FIGURES[figure] if row.name == name)


def kept(folder, figure):
    """The runs in the file of an experiment."""
    return results.recorded(results.experiment(folder, figure))


def test_a_row_of_figure_3_is_repeated_kept_and_reported(tmp_path, monkeypatch):
    out = ["--out", str(tmp_path)]
    arguments = ["figure3", "--dataset", "digits", "--epochs", "10", *out]
    run.main([*arguments, "--rows", "same_rate"])
    ((about, history),) = kept(tmp_path, "figure3")
    assert about["name"] == "same_rate-small-digits-1437-10x16-0"
    assert about["config"]["row"] == "same_rate"
    assert about["environment"]["jax"] == jax.__version__
    assert history.column("epoch").tolist() == list(range(10))
    rates = history.column("learning_rate")
    assert rates[:2] == pytest.approx([1e-3, 1e-3])
    # The rates are those that policy B makes of the measurements, by hand.
    epochs = history.rows
    for before, now, after in zip(epochs, epochs[1:], rates[2:], strict=False):
        gap = 1 - now["mi"] / now["reference"]
        grows = abs(now["mi"] - before["mi"]) / now["mi"] > 0.01
        expected = now["learning_rate"] + (0.1 if grows else -0.1) * gap
        assert after == pytest.approx(np.clip(expected, 1e-3, 0.1), rel=1e-3)
    assert max(rates) > 0.005
    assert (history.column("train_seconds") > 0).all()

    other = ["--epochs", "1", "--batch-size", "50", "--rows", "same_rate", *out]
    run.main(["figure3", "--dataset", "digits", *other])  # is another result
    assert len(kept(tmp_path, "figure3")) == 2

    run.main([*arguments, "--rows", "same_rate"])  # is there already
    assert len(kept(tmp_path, "figure3")) == 2
    other_gamma = row("figure3", "same_rate")
    (phase,) = other_gamma.phases
    phase = dataclasses.replace(phase, options={**phase.options, "gamma_up": 0.3})
    monkeypatch.setitem(
        FIGURES, "figure3", [dataclasses.replace(other_gamma, phases=[phase])]
    )
    run.main([*arguments, "--rows", "same_rate"])  # is another result too
    monkeypatch.undo()
    assert len(kept(tmp_path, "figure3")) == 3
    with pytest.raises(SystemExit) as end:
        report.main(out)
    assert "figure3.jsonl has two runs 'same_rate-small-digits-1437-10x16-0'" in str(
        end.value
    )
    path = tmp_path / "figure3.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    report.main(out)
    page = (tmp_path / "tables.md").read_text()
    accuracy = 100 * epochs[-1]["accuracy"]
    assert f"| MI: change and value (B), same rate | 1 | {accuracy:.2f} " in page
    picture = tmp_path / "figure3-small-digits-1437-10x16.png"
    assert picture.name in page
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_seeds_that_train_together_are_those_that_train_alone(digits):
    options: Any = dict(model="small", epochs=3)
    dynamic = row("figure3", "same_rate")
    together = list(loop.train_row(dynamic, digits, seeds=[0, 1], **options))
    for i in range(2):
        alone = list(loop.train_row(dynamic, digits, seeds=[i], **options))
        for (have,), want in zip(alone, (epoch[i] for epoch in together), strict=True):
            assert have["learning_rate"] == pytest.approx(want["learning_rate"], 1e-2)
            assert have["loss"] == pytest.approx(want["loss"], 1e-3)
            assert have["mi"][""] == pytest.approx(want["mi"][""], abs=0.02)


def test_a_change_of_batch_size_leaves_the_epochs_before_it_alone(digits):
    base, fixed, dynamic = (
        [
            epoch
            for (epoch,) in loop.train_row(
                r, digits, model="small", seeds=[0], epochs=10
            )
        ]
        for r in FIGURES["figure5"][:3]
    )
    losses = [[epoch["loss"] for epoch in rows] for rows in (base, fixed, dynamic)]
    assert losses[0][:3] == losses[1][:3] == losses[2][:3]
    assert losses[0][3] != losses[1][3]
    rates = [epoch["learning_rate"][""] for epoch in dynamic]
    assert rates[:4] == pytest.approx([0.01] * 4)
    # By value alone the rate rises for five epochs, whatever the information's change.
    changes = []
    for epoch in range(3, 8):
        mi, before = (dynamic[e]["mi"][""] for e in (epoch, epoch - 1))
        gap = 1 - mi / dynamic[epoch]["reference"]
        changes.append(abs(mi - before) / mi)
        expected = min(rates[epoch] + 0.1 * gap, 0.1)
        assert rates[epoch + 1] == pytest.approx(expected, rel=1e-4)
    assert min(changes) < 0.01


def test_each_layer_has_its_rate_and_its_picture(digits, tmp_path):
    fine = row("figure6", "layerwise_fine")
    epochs = [
        e for (e,) in loop.train_row(fine, digits, model="small", seeds=[0], epochs=3)
    ]
    assert list(epochs[-1]["learning_rate"]) == list(fine.layers)
    assert sorted(epochs[-1]["mi"]) == sorted(fine.layers)
    history = optax_mi.MIHistory()
    for epoch in epochs:
        run.add(history, epoch)
    result = results.Result({"config": {"seed": 0}}, history)
    (path,) = report.draw([fine], {fine.name: [result]}, tmp_path / "figure6.png")
    assert path.name == "figure6-layerwise_fine.png"
    rates = [epoch["learning_rate"]["logits"] for epoch in epochs]
    assert history.column("learning_rate", "logits").tolist() == rates


def test_curves_are_run_kept_and_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "SIZES", (50, 100, 5000))
    monkeypatch.setattr(curves, "REPEATS", 2)
    arguments = [*SMALL, "--out", str(tmp_path)]
    run.main(["figure1", *arguments])
    run.main(["range_test", *arguments])
    ((found, _),) = kept(tmp_path, "figure1")
    assert found["sizes"] == [50, 100]
    assert np.shape(found["estimates"]) == (2, 2)
    ((swept, _),) = kept(tmp_path, "range_test")
    assert 0 < swept["lr_min"] < 0.05 < swept["lr_max"] < 1
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    assert f"| 50 | {np.mean(found['estimates'][0]):.3f} " in page
    assert f"| 0 | {swept['lr_min']:.2g} | {swept['lr_max']:.2g} |" in page
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_baselines_are_tuned_on_held_out_examples_and_run_at_the_best_rate(
    tmp_path, monkeypatch
):
    few = {name: baselines.BASELINES[name] for name in ("constant", "schedule_free")}
    for name, grid in {"constant": (1e-4, 0.1), "schedule_free": (1.0,)}.items():
        few[name] = dataclasses.replace(few[name], grid=grid)
    for module in (run, results, tables):
        monkeypatch.setattr(module, "BASELINES", few)
        monkeypatch.setattr(module, "UNTUNED", baselines.UNTUNED[:1], raising=False)
    run.main(["baselines", *SMALL, "--epochs", "3", "--out", str(tmp_path)])
    tuning = kept(tmp_path, baselines.TUNING)
    assert len(tuning) == 3
    assert {result.config["train_size"] for result in tuning} == {900}
    final = [result.config for result in kept(tmp_path, "baselines")]
    rates = {config["row"]: config["tuned_rate"] for config in final}
    assert rates == {"constant": 0.1, "schedule_free": 1.0, "change": None}
    assert {config["train_size"] for config in final} == {1000}
    once = ["--epochs", "1", "--rows", "change", "--out", str(tmp_path)]
    run.main(["baselines", *SMALL, *once])
    assert len(kept(tmp_path, baselines.TUNING)) == 3
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    for title in ("constant, 0.1", "schedule-free SGD, 1", "MI: change (A)"):
        assert f"| {title} | 1 |" in page
    assert "epoch that reaches the end of “constant, 0.1”" in page
    assert "| 0.1 | the grid's edge |" in page


def test_rates_are_tuned_on_no_example_that_is_trained_or_tested_on(digits):
    split = baselines.with_validation(digits)
    assert (len(split.train_x), len(split.test_x)) == (540, 60)
    np.testing.assert_array_equal(split.test_x, digits.train_x[540:])
    np.testing.assert_array_equal(split.test_y, digits.train_y[540:])


@pytest.mark.parametrize("name", ["warm_up", "cosine", "one_cycle"])
def test_a_schedule_s_rate_rises_to_the_one_that_was_tuned(name):
    optimizer = baselines.BASELINES[name].make(Setting(10, 10, 2.3), rate=0.3)
    state = optimizer.transformation.init({"w": jnp.ones(3)})
    rates = []
    for _ in range(100):
        _, state = optimizer.transformation.update({"w": jnp.ones(3)}, state)
        rates.append(optimizer.learning_rates(state)[""])
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(0.3, rel=1e-3)
    if name == "warm_up":
        assert rates[10:] == pytest.approx([0.3] * 90)
    else:
        assert rates[-1] < 0.01


def test_seeds_of_a_row_run_together_where_there_is_an_accelerator(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "on_accelerator", lambda: True)
    options = ["--epochs", "4", "--seeds", "2", "--out", str(tmp_path)]
    arguments = ["figure5", *SMALL, *options, "--rows", "dynamic"]
    run.main(arguments)
    found = kept(tmp_path, "figure5")
    assert [result.config["seed"] for result in found] == [0, 1]
    losses = [result.history.column("loss") for result in found]
    assert [len(loss) for loss in losses] == [4, 4]
    assert losses[0][-1] != losses[1][-1]
    together = {result.about["environment"]["seeds_together"] for result in found}
    assert together == {2}
    run.main(arguments)
    assert len(kept(tmp_path, "figure5")) == 2


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_each_baseline_trains_and_reads_its_rate(digits, name):
    baseline = baselines.BASELINES[name]
    rate = baseline.grid[-1]
    optimizer = baseline.make(Setting(2, 3, 2.3), rate=rate)
    params: Any = {"w": jnp.ones(3)}
    state = optimizer.transformation.init(params)
    for _ in range(6):
        updates, state = optimizer.transformation.update(
            {"w": jnp.ones(3)}, state, params, value=1.0
        )
        params = optax.apply_updates(params, updates)
    assert float(params["w"][0]) < 1
    assert 0 < optimizer.learning_rates(state)[""] <= rate * (1 + 1e-6)
    assert optimizer.eval_params(state, params)["w"].shape == (3,)


def test_a_probe_is_drawn_from_what_is_trained_on_or_held_out(digits):
    rest, held_out = data.hold_out(digits)
    assert (len(rest.train_x), len(held_out[0])) == (540, 60)
    np.testing.assert_array_equal(held_out[0], digits.train_x[540:])

    def members(measuring):
        probe = loop.draw_probe(measuring, rest, held_out)
        return {np.asarray(x).tobytes() for x in probe.inputs}

    trained = {x.tobytes() for x in rest.train_x}
    assert len(members(Measuring(size=100))) == 100
    assert members(Measuring(size=100)) < trained
    assert members(Measuring(size=100)) != members(Measuring(size=100, seed=1))
    assert members(Measuring(held_out=True)) == {x.tobytes() for x in held_out[0]}
    with pytest.raises(ValueError, match="none were held out"):
        loop.draw_probe(Measuring(held_out=True), rest)


def test_what_is_changed_in_the_sensitivity_is_changed(tmp_path):
    options = ["sensitivity", *SMALL, "--epochs", "2", "--out", str(tmp_path)]
    run.main([*options, "--rows", "paper", "k_10", "held_out"])
    found = {r.config["row"]: r for r in kept(tmp_path, "sensitivity")}
    assert {r.config["train_size"] for r in found.values()} == {900}
    first = [result.history.rows[0] for result in found.values()]
    assert len({epoch["loss"] for epoch in first}) == 1  # nothing was measured yet
    assert len({epoch["mi"] for epoch in first}) == 3
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    final = {k: results.final([r])[0] for k, r in found.items()}
    change = final["held_out"] - final["paper"]
    assert f"| held-out probe | {final['held_out']:.2f} ({change:+.2f}) |" in page
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["fixed", "decayed", "held_out"])
def test_the_all_cnn_s_rows_train_augmented(digits, name):
    rest, held_out = data.hold_out(digits)
    options: Any = dict(model="small", epochs=7, batch_size=60, held_out=held_out)
    allcnn = row("cifar_allcnn", name)
    assert allcnn.augment
    epochs = [e for (e,) in loop.train_row(allcnn, rest, seeds=[0], **options)]
    rates = [epoch["learning_rate"][""] for epoch in epochs]
    if name == "fixed":
        assert rates == pytest.approx([0.05] * 7)
    if name == "decayed":  # the last step of an epoch still has its rate
        assert rates == pytest.approx([0.05] * 4 + [5e-3, 5e-4, 5e-5])
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_an_epoch_is_the_same_as_one_compiled_loop(digits):
    probe = optax_mi.sample_probe(
        jax.random.key(0), digits.train_x, digits.train_y, size=200
    )
    ends = []
    for scan in (False, True):
        fixed = row("figure3", "fixed")
        optimizer = fixed.phases[0].make(Setting(1, 6, 2.3))
        program = compile_program(
            MODELS["small"], optimizer, digits, probe, fixed, scan=scan
        )
        order = np.arange(600).reshape(6, 100)
        state, loss = program.train(program.init(jax.random.key(0)), order)
        ends.append((state.params, loss, program.evaluate(state)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)


def test_bad_arguments_end_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run.main(["figure3", *SMALL, "--rows", "fixd"])
    assert str(end.value).startswith("figure3 has no rows ['fixd']; it has ['fixed'")
    with pytest.raises(SystemExit) as end:
        run.main(["figure3", "--data-dir", "/nowhere"])
    assert str(end.value).startswith("There is no mnist in the data directory")
    short = ["figure5", *SMALL, "--out", str(tmp_path), "--rows", "dynamic"]
    with pytest.raises(SystemExit) as end:
        run.main([*short, "--epochs", "3"])
    assert "a phase that starts at epoch 3: train for more" in str(end.value)
    with pytest.raises(SystemExit) as end:
        run.main([*short, "--batch-size", "300"])
    assert "batches of 1500, and there are 1000 images" in str(end.value)
    layers = ["figure6", *SMALL, "--out", str(tmp_path), "--model", "allcnn-quarter"]
    with pytest.raises(SystemExit) as end:
        run.main(layers)
    assert str(end.value).startswith("layerwise cannot be measured: `layers` must be")
    assert "Conv_2" in str(end.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        report.main(["--out", str(tmp_path)])
    assert str(end.value).startswith(f"There are no results in {tmp_path}")
    with pytest.raises(SystemExit):
        run.main(["figure3", "--epochs", "0"])
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


def test_the_list_names_every_row_and_what_it_costs(capsys):
    run.main(["--list"])
    printed = capsys.readouterr().out
    assert all(row.title in printed for rows in FIGURES.values() for row in rows)
    assert all(each.title in printed for each in baselines.BASELINES.values())
    # 4 rows of 50 epochs of 60,000 images at 0.15 ms, and 10,000 for a quarter of it
    assert "figure5 (mnist, model small, 50 epochs, 1 seed): about 0.5 h" in printed
    run.main(["figure3", "--list", "--seeds", "3", "--dataset", "digits"])
    (head, *rows) = capsys.readouterr().out.splitlines()
    assert head.startswith("figure3 (digits, model small, 50 epochs, 3 seeds): about")
    assert len(rows) == len(FIGURES["figure3"])
