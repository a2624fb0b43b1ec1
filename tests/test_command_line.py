"""`optax-mi`, for arrays and recorded runs."""

import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import optax_mi
from examples.paper.experiments import CURVES
from optax_mi.__main__ import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    labels[0] = 7  # the only one of its class
    x = rng.normal(size=(240, 2, 2))
    x[:, 0, 0] += 2 * labels
    np.save("x.npy", x)
    np.save("labels.npy", labels)
    np.save("floats.npy", labels.astype(float))
    np.save("y.npy", x[:, 0, 0] + rng.normal(size=240))
    return tmp_path


def lines(text):
    """The rows of the tables in what was printed, without the blanks that align."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return ["|".join(cell.strip() for cell in row.split("|")) for row in rows]


@pytest.mark.e2e
def test_an_estimate_is_that_of_the_library(folder, capsys):
    main(["estimate", "x.npy", "labels.npy", "--json", "--permutations", "9"])
    told = json.loads(capsys.readouterr().out)
    x, labels = np.load("x.npy"), np.load("labels.npy")
    assert told["mi"] == pytest.approx(float(optax_mi.ksg_discrete(x, labels)))
    assert 0.01 < told["standard_error"] < 0.2
    assert told["p_value"] == pytest.approx(0.1)
    assert (told["n"], told["used"], told["outcomes"]) == (240, 239, "classes")
    main(["estimate", "x.npy", "floats.npy", "--labels", "--permutations", "9"])
    text = capsys.readouterr().out
    assert text.startswith(f"I(X; Y) = {told['mi']:.4f} +- ")
    assert "240 examples, 4 classes, k = 3, euclidean" in text
    assert "left out, alone in their class: 1" in text
    assert "p = 0.1 of independence, 9 permutations" in text


@pytest.mark.e2e
def test_options_reach_the_estimator(folder, capsys):
    options = ["--k", "5", "--metric", "chebyshev", "--scaling", "variable"]
    main(["estimate", "x.npy", "y.npy", *options, "--permutations", "0", "--json"])
    told = json.loads(capsys.readouterr().out)
    mi = optax_mi.ksg(np.load("x.npy"), np.load("y.npy"), k=5, scaling="variable")
    assert told["mi"] == pytest.approx(float(mi))
    assert told["p_value"] is None
    assert (told["outcomes"], told["scaling"], told["k"]) == (
        "continuous",
        "variable",
        5,
    )


@pytest.mark.e2e
def test_several_k_and_columns_of_other_units(folder, capsys):
    np.save("x.npy", np.load("x.npy").reshape(240, 4) * [1.0, 1e5, 1.0, 1.0])
    options = ["--k", "3", "7", "--permutations", "0"]
    main(["estimate", "x.npy", "labels.npy", *options])
    text = capsys.readouterr().out
    x, labels = np.load("x.npy"), np.load("labels.npy")
    mi = float(optax_mi.ksg_discrete(x, labels, k=(3, 7)))
    assert mi > 0.3
    assert text.startswith(f"I(X; Y) = {mi:.4f} ")
    assert "k = 3 and 7, euclidean, scaling: feature" in text


@pytest.mark.e2e
def test_a_curve_has_a_line_for_each_size_and_a_picture(folder, capsys):
    options = ["--repeats", "2", "--out", "curve.png"]
    main(["curve", "x.npy", "labels.npy", *options])
    out, err = capsys.readouterr()
    head, *_, line, drawn = out.splitlines()
    assert line.startswith("|      100 |")  # more than half would be much the same
    assert len(line) == len(head)
    assert drawn == "curve.png"
    assert not err  # progress is for terminals
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def record(path, accuracy=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    history = optax_mi.MIHistory()
    for epoch, rate in enumerate((0.001, 0.05, 0.02)):
        history.add(epoch=epoch, learning_rate=rate, mi=1.0 + epoch)
        if accuracy:
            history.rows[-1]["accuracy"] = 0.5 + 0.1 * epoch
    history.to_json(path)


def test_recorded_runs_are_told_and_drawn(folder, capsys):
    runs = folder / "runs"
    record(runs / "deep" / "one.json")
    record(runs / "two.json")
    (runs / "other.json").write_text("{}")
    main(["runs", "runs", "--out", "runs.png"])
    out, err = capsys.readouterr()
    assert lines(out)[1:] == [
        "|deep/one||3|0.02|0.05|3|0.7|",
        "|two||3|0.02|0.05|3|0.7|",
    ]
    assert len({len(line) for line in out.splitlines() if line[:1] == "|"}) == 1
    assert "other.json is no recorded run" in err
    assert "layer '' in runs.png" in out
    assert (folder / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_each_line_of_a_file_of_runs_is_one(folder, capsys):
    path = folder / "runs" / "deep" / "both.jsonl"
    record(folder / "runs" / "one.json")
    path.parent.mkdir()
    history = optax_mi.MIHistory.from_json(folder / "runs" / "one.json")
    history.append_jsonl(path, "plain", seed=0)
    history.append_jsonl(path, "plain", seed=1)
    optax_mi.MIHistory().append_jsonl(path, "curve", sizes=[1])
    with path.open("a") as file:
        file.write('{"name": "kil')
    main(["runs", "runs", "--out", "runs.png"])
    out, err = capsys.readouterr()
    numbers = "|3|0.02|0.05|3|0.7|"
    for name in ("deep/both/plain", "deep/both/plain (2)", "one"):
        assert f"|{name}|{numbers}" in lines(out)
    assert "both.jsonl': line 4 is not whole" in err
    assert "deep/both/curve of runs/deep/both.jsonl is no recorded run" in err
    assert err.count("\n") == 2
    main(["runs", str(path)])
    assert f"|both/plain|{numbers}" in lines(capsys.readouterr().out)
    main(["runs", "runs/one.json"])
    assert f"|one|{numbers}" in lines(capsys.readouterr().out)


def test_of_runs_with_layers_one_that_all_have_is_drawn(folder, capsys):
    (folder / "runs" / "a.json").mkdir(parents=True)  # is no file
    for name, layers in (("one", ("first", "second")), ("two", ("second", "third"))):
        history = optax_mi.MIHistory()
        for layer in layers:
            history.add(
                epoch=0, layer=layer, learning_rate=0.1, mi=1, accuracy=1, loss=1
            )
        history.to_json(folder / "runs" / f"{name}.json")
    main(["runs", "runs", "--out", "runs.png", "--metric", "loss"])
    out = capsys.readouterr().out
    assert "|one|second|1|0.1|0.1|1|1|" in lines(out)
    assert "layer 'second' in runs.png" in out
    with pytest.raises(SystemExit):
        main(["runs", "runs", "--out", "runs.png", "--layer", "first"])
    assert "--layer must be one of ['second']" in capsys.readouterr().err


def test_without_a_metric_given_it_is_an_accuracy_and_what_is_missing_is_blank(
    folder, capsys
):
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.1, mi=np.nan, loss=2.0)
    history.rows[0]["test accuracy (%)"] = 90.0
    history.to_json("run.json")
    main(["runs", "run.json"])
    head, row = lines(capsys.readouterr().out)
    assert head == "|run|layer|epochs|last rate|highest rate|last MI|test accuracy (%)|"
    assert row == "|run||1|0.1|0.1||90|"


def test_more_runs_than_a_picture_can_tell_apart_are_not_drawn(folder, capsys):
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.1, mi=1.0, accuracy=1.0)
    for i in range(29):
        history.append_jsonl("many.jsonl", f"run {i}")
    with pytest.raises(SystemExit):
        main(["runs", "many.jsonl", "--out", "many.png"])
    assert "a picture has room for 28 runs, not 29" in capsys.readouterr().err


DOCS = pathlib.Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "results", DOCS / "command_line.md"


def test_the_results_are_read_as_their_page_says(capsys):
    """Files of curves have no epochs, and so nothing to tell here."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        if path.stem in CURVES:
            assert f"`{path.name}`" in PAGE.read_text()
            with pytest.raises(SystemExit):
                main(["runs", str(path)])
            assert "holds no run that MIHistory wrote" in capsys.readouterr().err
            continue
        main(["runs", str(path)])
        out, err = capsys.readouterr()
        runs = {row.split("|")[1] for row in lines(out)[1:]}
        assert len(runs) == len(path.read_bytes().splitlines()) > 2
        assert not err


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("estimate none.npy labels.npy", "there is no file none.npy"),
        ("estimate malicious.npy labels.npy", "malicious.npy is no .npy, .npz or"),
        ("estimate text.npy labels.npy", "text.npy is no .npy, .npz or .csv fi"),
        ("estimate zip.npy labels.npy", "zip.npy is no .npy, .npz or .csv file"),
        ("estimate two.npz labels.npy", "two.npz holds several arrays"),
        ("estimate words.npy labels.npy", "words.npy must hold real numbers by rows"),
        ("estimate none_at_all.npy labels.npy", "dtype float64, shape (0,)"),
        ("estimate bad.npy labels.npy", "bad.npy holds 5 numbers that are NaN"),
        ("estimate bad.npy labels.npy", "infinite, in 2 of its 240 rows"),
        ("estimate x.npy short.npy", "`y` must be as long as `x`, 240 samples, got 10"),
        ("estimate x.npy labels.npy --k 0", "`k` must be at least 1, got 0"),
        ("estimate x.npy y.npy --labels", "--labels needs whole numbers; y.npy holds"),
        ("estimate x.npy labels.npy --seed 99999999999999999999", "--seed must be"),
        pytest.param(
            "estimate x.npy alone.npy --permutations 0 --labels",
            "every example is the only one",
            marks=pytest.mark.e2e,  # it compiles an estimate
        ),
        ("curve x.npy labels.npy --out no/a.png", "there is no directory no for --out"),
        ("curve x.npy labels.npy --out a", "--out must end in one of .png, .pdf"),
        ("curve x.npy labels.npy --sizes 900", "`sizes` must be at most"),
        ("runs nowhere", "there is no file or directory nowhere"),
        ("runs empty", "empty holds no run"),
        ("runs plain --out x.png", "a picture needs a metric"),
        ("runs plain --metric loss", "--metric must be one of [], which all runs"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    folder, capsys, arguments, message
):
    np.save("malicious.npy", np.array([Malicious()], dtype=object))
    (folder / "text.npy").write_text("1 2 3")
    np.savez("two.npz", x=np.zeros(3), y=np.zeros(3))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("short.npy", np.zeros(10, int))
    bad = np.load("x.npy")
    bad[3, 0, 1], bad[9], bad[11, 1, 1] = np.nan, np.inf, 1e39
    np.save("bad.npy", bad)
    np.save("none_at_all.npy", np.zeros(0))
    np.save("alone.npy", np.arange(240))
    (folder / "zip.npy").write_bytes(b"PK\x03\x04 and no more")
    (folder / "empty").mkdir()
    record(folder / "plain" / "run.json", accuracy=False)
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "owned").exists()


@pytest.mark.e2e
def test_it_is_run_as_a_module(folder):
    command = [sys.executable, "-m", "optax_mi", "runs", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "optax-mi runs: there is no file or directory nowhere\n"


def test_it_is_installed_as_a_command_and_says_its_version(capsys):
    project = pathlib.Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]
    assert pkgutil.resolve_name(scripts["optax-mi"]) is main
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"optax-mi {optax_mi.__version__}\n"


@pytest.mark.e2e
def test_integers_of_many_values_are_amounts_unless_they_are_called_labels(
    folder, capsys
):
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    noisy = 0.9 * z + 0.19**0.5 * rng.normal(size=400)
    np.save("z.npy", z)
    np.save("floats.npy", np.round(1e3 * noisy))
    np.save("amounts.npy", np.round(1e3 * noisy).astype(int))
    np.save("few.npy", np.round(10 * noisy).astype(int))
    found, told = {}, {}
    for arguments in (
        "floats.npy",
        "amounts.npy",
        "amounts.npy --labels",
        "few.npy",
        "few.npy --continuous",
    ):
        options = ["--permutations", "0", "--json", *arguments.split()[1:]]
        main(["estimate", "z.npy", arguments.split()[0], *options])
        out, told[arguments] = capsys.readouterr()
        found[arguments] = json.loads(out)
    assert found["amounts.npy"] == found["floats.npy"]
    assert "taken for amounts, not for classes" in told["amounts.npy"]
    assert found["amounts.npy --labels"]["outcomes"] == "classes"
    assert found["amounts.npy --labels"]["used"] < 200
    assert found["few.npy"]["outcomes"] == "classes"
    assert found["few.npy --continuous"]["outcomes"] == "continuous"
    assert told["few.npy"] == told["few.npy --continuous"] == ""


@pytest.mark.e2e
def test_of_few_examples_there_is_an_estimate_and_why_there_is_no_error(folder, capsys):
    np.save("x40.npy", np.arange(40.0))
    np.save("y40.npy", np.arange(40) // 20)
    main(["estimate", "x40.npy", "y40.npy"])
    out, told = capsys.readouterr()
    assert "I(X; Y) = 0.6" in out
    assert "p =" not in out
    assert told == "no standard error and no p-value: they take at least 50 examples\n"
