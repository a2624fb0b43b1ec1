"""The paper's experiments as programs, in small, on scikit-learn's digits."""

import argparse
import dataclasses
import json
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

import optax_mi
from examples.common import data, methods, networks
from examples.common.methods import Run
from examples.common.results import Result, find, recorded
from examples.paper import compression, experiments, full, report, run
from examples.paper.experiments import EXPERIMENTS, Measuring, Row

ROOT = pathlib.Path(__file__).parents[1]
FEW = ["--dataset", "digits", "--train-size", "200"]


@pytest.fixture
def small(monkeypatch):
    """The small network is a dense layer, measured by what compiles at once."""
    monkeypatch.setitem(networks.NETWORKS, "small", tiny.Tiny())
    monkeypatch.setattr(optax_mi, "ksg_discrete", tiny.predicted)


def test_a_row_of_figure_3_is_repeated_kept_and_reported(
    small, tmp_path, monkeypatch, capsys
):
    out = ["--out", str(tmp_path)]
    arguments = ["figure3", *FEW, "--epochs", "5", "--rows", "same_rate", *out]
    run.main(arguments)
    told = re.findall(
        r"figure3 same_rate seed 0: epoch (\d), accuracy ([0-9.]+)%, [0-9.]+ s; "
        r"the rest takes about ([0-9.]+) minutes\n",
        capsys.readouterr().out,
    )
    assert [int(epoch) for epoch, *_ in told] == list(range(5))
    assert all(0 <= float(minutes) < 4 for *_, minutes in told)
    path = tmp_path / "figure3.jsonl"
    ((about, history),) = recorded(path)
    assert about["name"] == "same_rate-small-digits-200-5x16-0"
    assert about["config"]["row"] == "same_rate"
    assert about["environment"]["jax"] == jax.__version__
    assert history.column("epoch").tolist() == list(range(5))
    accuracy = 100 * history.column("accuracy")
    assert accuracy == pytest.approx(
        [float(percent) for _, percent, _ in told], abs=0.01
    )
    rates = history.column("learning_rate")
    assert rates[0] == pytest.approx(1e-3)
    # The rates are those that policy B makes of the measurements, by hand.
    epochs = history.rows
    for before, now, after in zip(epochs, epochs[1:], rates[2:], strict=False):
        gap = 1 - now["mi"] / now["reference"]
        grows = abs(now["mi"] - before["mi"]) / now["mi"] > 0.01
        expected = now["learning_rate"] + (0.1 if grows else -0.1) * gap
        assert after == pytest.approx(np.clip(expected, 1e-3, 0.1), rel=2e-3)
    run.main(arguments)  # is there already
    assert len(recorded(path)) == 1

    row = Row("same_rate", "", EXPERIMENTS["figure3"][0].phases)
    monkeypatch.setitem(EXPERIMENTS, "figure3", [row])
    run.main(arguments)  # of another configuration
    monkeypatch.undo()
    assert len(recorded(path)) == 2
    with pytest.raises(SystemExit) as end:
        report.main(out)
    assert "figure3.jsonl has two runs 'same_rate-small-digits-200-5x16-0'" in str(
        end.value
    )
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    report.main(out)
    page = (tmp_path / "tables.md").read_text()
    accuracy = 100 * epochs[-1]["accuracy"]
    assert f"| policy B, epsilon 1 % | 1 | {accuracy:.2f} " in page
    picture = tmp_path / "figure3-small-digits-200-5x16.png"
    assert picture.name in page
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_set_that_was_killed_goes_on_and_loses_nothing_else(small, tmp_path):
    options = ["--epochs", "1", "--rows", "fixed", "--out", str(tmp_path)]
    run.main(["figure3", *FEW, *options, "--seeds", "2"])
    path = tmp_path / "figure3.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:300])
    with pytest.warns(UserWarning, match="line 2 is not whole"):
        run.main(["figure3", *FEW, *options, "--seeds", "2"])
    assert path.read_bytes().startswith(first)
    with pytest.warns(UserWarning, match="line 2 is not whole"):
        results = recorded(path)
    assert [result.config["seed"] for result in results] == [0, 1]


def test_a_run_of_another_experiment_is_copied_if_a_new_one_would_be_equal(
    small, tmp_path, monkeypatch
):
    options = [*FEW, "--epochs", "4", "--out", str(tmp_path)]
    run.main(["figure3", *options, "--rows", "fixed"])
    ((about, history),) = recorded(tmp_path / "figure3.jsonl")
    run.main(["figure5", *options, "--rows", "base", "fixed"])
    copy, new = recorded(tmp_path / "figure5.jsonl")  # "fixed" changes its batches
    assert copy.about["copied_from"] == "figure3.jsonl: fixed-small-digits-200-4x16-0"
    assert copy.history.rows == history.rows
    assert copy.about["environment"] == about["environment"]
    assert copy.config == about["config"] | {"figure": "figure5", "row": "base"}
    assert "copied_from" not in new.about
    for other in (experiments.TUNING, *experiments.SPLIT):  # trained on other data
        assert not run.copied(copy.config | {"figure": other}, tmp_path)
    assert not run.copied(copy.config | {"seed": 1}, tmp_path)
    elsewhere = run.environment() | {"machine": "another"}
    monkeypatch.setattr(run, "environment", lambda: elsewhere)
    assert not run.copied(copy.config, tmp_path)


@pytest.mark.e2e
def test_each_layer_has_its_rate_and_its_picture(tmp_path):
    out = ["--epochs", "3", "--out", str(tmp_path)]
    run.main(["figure6", "--dataset", "digits", "--rows", "layerwise_fine", *out])
    ((_, history),) = recorded(tmp_path / "figure6.jsonl")
    assert history.layers == list(networks.LAYERS)
    last = [history.column("learning_rate", layer)[-1] for layer in history.layers]
    assert len(set(last)) > 1
    report.main(["--out", str(tmp_path)])
    (picture,) = tmp_path.glob("*.png")
    assert picture.name == "figure6-small-digits-1437-3x16-layerwise_fine.png"


@pytest.mark.e2e
def test_curves_are_run_kept_and_reported(small, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SIZES", (50, 100, 5000))
    monkeypatch.setattr(run, "REPEATS", 2)
    arguments = [*FEW, "--out", str(tmp_path)]
    for _ in range(2):  # the second time they are there
        run.main(["figure1", *arguments])
        run.main(["range_test", *arguments])
    compressed(tmp_path, monkeypatch, arguments)
    ((found, _),) = recorded(tmp_path / "figure1.jsonl")
    assert found["sizes"] == [50, 100]
    assert np.shape(found["estimates"]) == (2, 2)
    ((swept, _),) = recorded(tmp_path / "range_test.jsonl")
    assert 0 < swept["lr_min"] < swept["lr_max"]
    assert len(swept["learning_rate"]) == len(swept["loss"]) == len(swept["mi"])
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    assert f"| 50 | {np.mean(found['estimates'][0]):.3f} " in page
    assert f"| 0 | {swept['lr_min']:.2g} | {swept['lr_max']:.2g} |" in page
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert "| fixed 0.01 | 0 | " in page


def compressed(out, monkeypatch, arguments):
    for name, value in {"LAYERS": ("", "logits"), "SHOWN": ("", "logits")}.items():
        monkeypatch.setattr(compression, name, value)
    run.main(["compression", "--epochs", "3", *arguments])
    ((found, _),) = recorded(out / "compression.jsonl")
    assert (found["config"]["epochs"], found["config"]["batch_size"]) == (3, 16)
    assert list(found["methods"]) == ["fixed", "stable"]
    for method in found["methods"].values():
        assert len(method["accuracy"]) == 3
        for name in ("mi", "mi_inputs"):
            assert method[name][""] == method[name]["logits"]  # the same activations
            assert np.all(np.array(method[name][""]) > 0)
        assert method["mi"] != method["mi_inputs"]


@pytest.mark.e2e
def test_baselines_are_tuned_on_held_out_examples_and_run_at_the_best_rate(
    small, tmp_path, monkeypatch
):
    rows = {row.name: row for row in EXPERIMENTS["baselines"]}
    few = [
        dataclasses.replace(rows["constant"], grid=(1e-4, 0.1)),
        dataclasses.replace(rows["schedule_free"], grid=(1.0,)),
        rows["change"],
    ]
    monkeypatch.setitem(EXPERIMENTS, "baselines", few)
    run.main(["baselines", *FEW, "--epochs", "3", "--out", str(tmp_path)])
    tuning = recorded(tmp_path / f"{experiments.TUNING}.jsonl")
    assert len(tuning) == 3
    assert {result.config["train_size"] for result in tuning} == {180}
    final = [result.config for result in recorded(tmp_path / "baselines.jsonl")]
    rates = {config["row"]: config["tuned_rate"] for config in final}
    assert rates == {"constant": 0.1, "schedule_free": 1.0, "change": None}
    assert {config["train_size"] for config in final} == {200}
    once = ["--epochs", "1", "--rows", "change", "--out", str(tmp_path)]
    run.main(["baselines", *FEW, *once])
    assert len(recorded(tmp_path / f"{experiments.TUNING}.jsonl")) == 3
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    for title in ("constant, 0.1", "schedule-free SGD, 1", "policy A"):
        assert f"| {title} | 1 |" in page
    assert "epoch that reaches the end of “constant, 0.1”" in page
    assert "| 0.1 | the grid's edge |" in page


def test_what_is_held_out_is_neither_trained_nor_tested_on(monkeypatch):
    digits = tiny.digits()
    rest = data.hold_out(digits)
    held_x, held_y = rest.held_out
    assert (len(rest.train_x), len(held_x)) == (270, 30)
    np.testing.assert_array_equal(rest.test_x, digits.test_x)
    np.testing.assert_array_equal(held_x, digits.train_x[270:])
    np.testing.assert_array_equal(held_y, digits.train_y[270:])

    tuned_on = []

    def run_row(name, row, dataset, args):
        tuned_on.append(dataset)
        history = optax_mi.MIHistory()
        history.add(epoch=0, learning_rate=0.1, mi=1, accuracy=row.tuned_rate)
        return [Result({}, history)]

    monkeypatch.setattr(run, "run_row", run_row)
    best = run.tuned(EXPERIMENTS["baselines"][0], digits, argparse.Namespace())
    assert best.tuned_rate == 0.3
    for dataset in tuned_on:
        np.testing.assert_array_equal(dataset.train_x, digits.train_x[:270])
        np.testing.assert_array_equal(dataset.test_x, held_x)
        np.testing.assert_array_equal(dataset.test_y, held_y)


def test_a_probe_is_drawn_from_what_is_trained_on_or_held_out():
    rest = data.hold_out(tiny.digits())

    def members(measuring):
        probe = run.draw_probe(measuring, rest)
        return {np.asarray(x).tobytes() for x in probe.inputs}

    trained = {x.tobytes() for x in rest.train_x}
    assert len(members(Measuring(size=100))) == 100
    assert members(Measuring(size=100)) < trained
    assert members(Measuring(size=100)) != members(Measuring(size=100, seed=1))
    assert members(Measuring(held_out=True)) == {x.tobytes() for x in rest.held_out[0]}
    with pytest.raises(ValueError, match="held-out examples; there are none"):
        run.draw_probe(Measuring(held_out=True), tiny.digits())


@pytest.mark.parametrize(("size", "aside"), [(10, 10), (1000, 20)])
def test_a_row_sets_aside_its_probe_or_a_tenth_if_that_is_less(
    small, tmp_path, monkeypatch, size, aside
):
    tasks = []

    def train(task, phases, **options):
        tasks.append(task)
        history = optax_mi.MIHistory()
        history.add(epoch=0, learning_rate=0.1, mi=1, accuracy=0.5)
        yield [history], None

    (row,) = (row for row in EXPERIMENTS["figure3"] if row.name == "stable_held_out")
    measuring = dataclasses.replace(row.measuring, size=size)
    row = dataclasses.replace(row, measuring=measuring)
    monkeypatch.setattr(run, "train", train)
    monkeypatch.setitem(EXPERIMENTS, "figure3", [EXPERIMENTS["figure3"][0], row])
    run.main(["figure3", *FEW, "--epochs", "1", "--out", str(tmp_path)])
    usual, own = tasks
    assert (len(usual.data.train_x), len(own.data.train_x)) == (200, 200 - aside)
    probe = {np.asarray(x).tobytes() for x in own.probe.inputs}
    assert probe == {x.tobytes() for x in usual.data.train_x[-aside:]}
    sizes = [each.config["train_size"] for each in recorded(tmp_path / "figure3.jsonl")]
    assert sizes == [200, 200]


def stepped(method, steps, **options):
    """The rate after each step, and the last parameters and state."""
    params: Any = {"w": jnp.ones(3)}
    state, rates = method.transformation.init(params), []
    for _ in range(steps):
        updates, state = method.transformation.update(
            {"w": jnp.ones(3)}, state, params, **options
        )
        params = optax.apply_updates(params, updates)
        rates.append(method.learning_rates(state)[""])
    return rates, params, state


@pytest.mark.parametrize("name", ["tenth_warm_up", "cosine", "one_cycle"])
def test_a_schedule_s_rate_rises_to_the_one_that_was_tuned(name):
    rates, _, _ = stepped(methods.make(name, Run(10, 10, 2.3), rate=0.3), 100)
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(0.3, rel=1e-3)
    if name == "tenth_warm_up":
        assert rates[10:] == pytest.approx([0.3] * 90)
    else:
        assert rates[-1] < 0.01


@pytest.mark.parametrize(
    "row",
    [row for row in EXPERIMENTS["baselines"] if row.grid],
    ids=lambda row: row.name,
)
def test_each_baseline_trains_and_reads_its_rate(row):
    rate = row.grid[-1]
    (phase,) = row.at(rate).phases
    method = methods.make(phase.method, Run(2, 3, 2.3), **phase.options)
    rates, params, state = stepped(method, 6, value=1.0)
    assert float(params["w"][0]) < 1
    assert 0 < rates[-1] <= rate * (1 + 1e-6)
    assert method.eval_params(state, params)["w"].shape == (3,)


@pytest.mark.e2e
def test_seeds_of_a_row_run_together_where_there_is_an_accelerator(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "on_accelerator", lambda: True)
    options = ["--epochs", "4", "--seeds", "2", "--out", str(tmp_path)]
    arguments = ["figure5", *FEW, *options, "--rows", "dynamic"]
    run.main(arguments)
    path = tmp_path / "figure5.jsonl"
    found = recorded(path)
    assert [result.config["seed"] for result in found] == [0, 1]
    losses = [result.history.column("loss") for result in found]
    assert [len(loss) for loss in losses] == [4, 4]
    assert losses[0][-1] != losses[1][-1]
    together = {result.about["environment"]["seeds_together"] for result in found}
    assert together == {2}
    run.main(arguments)
    assert len(recorded(path)) == 2


@pytest.mark.e2e
def test_what_is_changed_in_the_sensitivity_is_changed(small, tmp_path):
    options = ["sensitivity", *FEW, "--epochs", "1", "--out", str(tmp_path)]
    run.main([*options, "--rows", "paper", "k_10", "held_out"])
    results = {r.config["row"]: r for r in recorded(tmp_path / "sensitivity.jsonl")}
    assert {r.config["train_size"] for r in results.values()} == {180}
    first = [result.history.rows[0] for result in results.values()]
    assert len({epoch["loss"] for epoch in first}) == 1  # nothing was measured yet
    assert len({epoch["mi"] for epoch in first}) == 3
    report.main(["--out", str(tmp_path)])
    page = (tmp_path / "tables.md").read_text()
    final = {k: 100 * r.history.rows[-1]["accuracy"] for k, r in results.items()}
    change = final["held_out"] - final["paper"]
    assert f"| held-out probe | {final['held_out']:.2f} ({change:+.2f}) |" in page
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


def test_every_result_is_of_a_row_as_it_is_now():
    for name, rows in EXPERIMENTS.items():
        tuned = [row.at(rate) for row in rows for rate in row.grid]
        known = [json.loads(json.dumps(row.config)) for row in [*rows, *tuned]]
        for file in (name, experiments.TUNING) if tuned else (name,):
            results = recorded(ROOT / "docs" / "results" / f"{file}.jsonl")
            assert results
            for result in results:
                assert any(config.items() <= result.config.items() for config in known)
                assert find(results, result.config) is result


@pytest.mark.slow
def test_the_tables_are_those_of_the_results(tmp_path):
    results = ROOT / "docs" / "results"
    beside = [results / page for page in report.PAGES]
    for path in [*results.glob("*.jsonl"), *beside]:
        shutil.copy(path, tmp_path)
    report.main(["--out", str(tmp_path)])
    for path in [results / "tables.md", *beside]:
        made = (tmp_path / path.name).read_text(encoding="utf-8")
        assert made == path.read_text(encoding="utf-8")
    drawn = {path.name for path in results.glob("*.png")}
    pictures = {name for name in drawn if not name.startswith("controllers")}
    assert {path.name for path in tmp_path.glob("*.png")} == pictures


def test_bad_arguments_end_in_one_sentence(small, tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    short = ["figure5", *FEW, *out, "--rows", "dynamic"]
    for arguments, message in [
        (["figure3", *FEW, "--rows", "fixd"], "figure3 has no rows ['fixd']; it has "),
        (["figure3", "--data-dir", "/nowhere"], "There is no mnist in the data dir"),
        ([*short, "--epochs", "3"], "dynamic: a phase that starts at epoch 3 needs"),
        ([*short, "--batch-size", "60"], "dynamic: batches of 300 are more than 200"),
        (
            ["figure3", *FEW, *out, "--model", "classic"],
            "fixed: nothing can be measured: the images are too small for the network",
        ),
        (
            ["figure6", *FEW, *out, "--rows", "layerwise"],
            "layerwise: nothing can be measured: `layers` must",
        ),
    ]:
        with pytest.raises(SystemExit) as end:
            run.main(arguments)
        assert str(end.value).startswith(message)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        report.main(out)
    assert str(end.value).startswith(f"There are no results in {tmp_path}")
    with pytest.raises(SystemExit):
        run.main(["figure3", "--epochs", "0"])
    assert "--epochs must be at least 1, got 0" in capsys.readouterr().err


def test_rows_run_in_the_order_that_they_are_named_in(small, tmp_path):
    options = ["--epochs", "1", "--out", str(tmp_path), "--rows", "stable", "fixed"]
    run.main(["figure3", *FEW, *options])
    found = recorded(tmp_path / "figure3.jsonl")
    assert [result.config["row"] for result in found] == ["stable", "fixed"]


def test_the_plan_for_all_of_the_data_names_rows_that_there_are(monkeypatch):
    commands = []
    monkeypatch.setattr(
        full.subprocess, "run", lambda command, check: commands.append(command[3:])
    )
    full.main(["--data-dir", "somewhere", "--out", "elsewhere"])
    parsed = [run.parse(command) for command in commands]
    for args in parsed:
        known = {row.name for row in EXPERIMENTS[args.experiment]}
        assert set(args.rows) <= known
        assert (args.model, args.batch_size, args.train_size) == ("classic", 100, None)
        assert (args.data_dir, args.out) == ("somewhere", pathlib.Path("elsewhere"))
    assert parsed[0].rows[:2] == ["stable", "fixed"]
    assert [args.seeds for args in parsed] == [1, 1, 1, 3, 3, 3, 1, 1, 1]


def test_the_list_names_every_row(capsys):
    run.main(["--list"])
    printed = capsys.readouterr().out
    assert all(row.title in printed for rows in EXPERIMENTS.values() for row in rows)
    run.main(["figure3", "--list"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head == "figure3"
    assert len(rows) == len(EXPERIMENTS["figure3"])


def test_an_axis_leaves_out_the_lowest_values_and_failed_measurements():
    history = optax_mi.MIHistory()
    for epoch in range(100):
        mi = {3: 0.1, 5: float("nan")}.get(epoch, 2 + epoch / 1000)
        history.add(epoch=epoch, learning_rate=0.1, mi=mi, accuracy=0.9)
    row = experiments.FIXED
    low, high = report.limits([row], {row.key: [Result({}, history)]}, "mi", 2)
    assert 2 < low < 2.01
    assert 2.099 < high < 2.13
