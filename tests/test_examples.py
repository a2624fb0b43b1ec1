import argparse
import ast
import builtins
import os
import pathlib
import re
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi
import optax_mi.__main__ as command_line
from examples import deep, layerwise, mnist
from examples.common import data
from examples.common.networks import LAYERS

WRITTEN: list[str] = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _listen(event, arguments):
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        path, mode, flags = arguments
        if (mode and set(mode) & set("wax+")) or flags & WRITING:
            WRITTEN.append(os.path.realpath(path))
    elif event in ("os.mkdir", "os.rename", "os.symlink"):
        WRITTEN.append(os.path.realpath(arguments[event != "os.mkdir"]))


sys.addaudithook(_listen)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder for what an example writes; that it writes elsewhere is an error."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    WRITTEN.clear()
    yield folder
    own_caches = ("/dev/", os.environ["OPTAX_MI_TESTS_COMPILED"], tempfile.gettempdir())
    strays = [
        path
        for path in WRITTEN
        if not path.startswith(str(folder)) and not path.startswith(own_caches)
    ]
    assert not [path for path in strays if "matplotlib" not in path], strays
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist", "/nowhere"], "There is no mnist in the data directory '/nowhere'"),
        (["cifar10", "/nowhere"], "leave it out to download"),
        (["svhn"], "No data set 'svhn'; choose one of digits, mnist, cifar10"),
        (["digits", None, 5000], "digits has 1437 training examples; choose"),
    ],
)
def test_data_that_cannot_be_had_are_one_plain_sentence(arguments, message):
    with pytest.raises(data.DataError, match=re.escape(message)) as error:
        data.load(*arguments)
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_something_else_is_one_plain_sentence(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(data.DataError, match="mnist could not be read from") as error:
        data.load("mnist", str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_download_that_could_not_be_prepared_is_not_begun(monkeypatch):
    monkeypatch.setattr(data, "_can_prepare", lambda builder: False)
    with pytest.raises(data.DataError, match="prepares a download with TensorFlow"):
        data.load("mnist")


@pytest.mark.parametrize(
    ("name", "package"), [("mnist", "tensorflow_datasets"), ("digits", "sklearn")]
)
def test_a_missing_package_is_one_plain_sentence(monkeypatch, name, package):
    find = builtins.__import__

    def without(module, *args, **kwargs):
        if module.split(".")[0] == package:
            raise ImportError(module)
        return find(module, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        data.DataError, match="install what the examples need with: python -m"
    ):
        data.load(name)


@pytest.mark.parametrize("package", ["tqdm", "matplotlib"])
def test_the_demo_says_what_it_lacks_before_it_trains(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as end:
        mnist.main([])
    assert str(end.value).startswith(f"The demo needs {package}; install what")


def test_the_demo_ends_in_the_sentence_and_not_in_a_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        mnist.main(["--dataset", "mnist", "--data-dir", "/nowhere"])
    assert str(end.value).startswith("There is no mnist in the data directory")
    with pytest.raises(SystemExit):
        mnist.main(["--epochs", "0"])
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_the_demo_trains_in_one_way_and_tells_each_epoch(capsys):
    digits = data.load("digits", train_size=200)
    probe = optax_mi.sample_probe(jax.random.key(0), digits.train_x, digits.train_y, 50)
    args = argparse.Namespace(epochs=1, batch_size=50, seed=0)
    rate = optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    history = mnist.train("by information", rate, digits, probe, args)
    ((row),) = history.rows
    assert row["learning_rate"] == pytest.approx(1e-3)
    out, err = capsys.readouterr()
    assert re.match(r"by information +epoch  0  LR 0\.0010  I\(H;Y\) \d", out)
    assert f"test accuracy {row[mnist.ACCURACY]:.2f}%" in out
    assert not err  # where it is no terminal there is no progress bar


@pytest.mark.e2e
def test_the_demo_prints_epochs_a_table_and_the_place_of_its_picture(out, capsys):
    mnist.main(["--epochs", "2", "--train-size", "600", "--out", str(out)])
    printed = capsys.readouterr().out
    assert len(re.findall(r"epoch +\d+ +LR 0\.\d+ +I\(H;Y\) \d", printed)) == 4 * 2
    assert len(re.findall(r"^\| (fixed|linear|policy)", printed, re.MULTILINE)) == 4
    path = out / "demo_digits.png"
    assert f"The picture is at {path}" in printed
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "tensorflow" not in sys.modules
    assert f"The histories are at {path.with_suffix('.jsonl')}" in printed
    command_line.main(["runs", str(out), "--out", str(out / "runs.png")])
    printed = capsys.readouterr().out
    assert re.findall(r"demo_digits/([a-z].*?) +\| +\| +2 \|", printed) == [
        "fixed 0.01",
        "linear warm-up",
        "policy A",
        "policy B",
    ]
    assert "test accuracy (%)" in printed
    assert (out / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_the_demo_writes_its_histories_in_place_of_those_of_before(tmp_path):
    args = argparse.Namespace(
        dataset="digits", epochs=1, train_size=9, batch_size=3, lr=0.1, seed=0
    )
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.1, mi=1.0)
    for names in (["one", "two"], ["three"]):
        mnist.save(dict.fromkeys(names, history), tmp_path / "a" / "b.jsonl", args)
    ((about, run),) = optax_mi.MIHistory.from_jsonl(tmp_path / "a" / "b.jsonl")
    assert about == {"name": "three", **vars(args)}
    assert run.rows[0]["mi"] == 1.0


def test_the_demo_is_one_file_and_no_program_imports_another():
    examples = pathlib.Path(mnist.__file__).parent
    trees = {path: ast.parse(path.read_text()) for path in examples.rglob("*.py")}
    programs, imported = set(), {}
    for path, tree in trees.items():
        name = ".".join(path.relative_to(examples.parent).with_suffix("").parts)
        nodes = list(ast.walk(tree))
        if any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in nodes):
            programs.add(name)
        froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        imported[name] = {f"{n.module}.{a.name}" for n in froms for a in n.names}
        imported[name] |= {str(n.module) for n in froms}
    assert len(programs) == 11
    for name, modules in imported.items():
        assert not modules & programs, name
    own = {name for name in imported["examples.mnist"] if name.startswith("examples")}
    assert own == {"examples.common", "examples.common.data"}


@pytest.mark.e2e
def test_observing_writes_files_that_agree_and_pictures(out, capsys):
    layerwise.main(["--epochs", "2", "--out", str(out)])
    printed = capsys.readouterr().out
    history = optax_mi.MIHistory.from_json(out / "history.json")
    assert history.layers == list(LAYERS)
    assert len(history.rows) == 2 * 4
    assert history.to_table() in printed
    assert len((out / "history.csv").read_text().splitlines()) == 1 + 2 * 4
    assert list((out / "tensorboard").iterdir())
    pictures = sorted(path.stem for path in out.glob("*.png"))
    assert pictures == sorted(
        ["range_test", "layers", "training", "information_plane", "sample_size"]
    )


def test_the_table_compares_with_the_baseline():
    def run(*accuracies):
        history = optax_mi.MIHistory()
        for i, accuracy in enumerate(accuracies):
            numbers = {"learning_rate": 0.01 * (i + 1), mnist.ACCURACY: accuracy}
            history.add(epoch=i, mi=2.0, **numbers)
        return history

    runs = {"fixed": run(50, 90, 80), "better": run(10, 80, 95)}
    *_, fixed, better = mnist.table(runs).splitlines()
    assert fixed == "| fixed | 80.00% | 90.00% (1) | 1 | 0.0100 to 0.0300 |"
    assert better == "| better | 95.00% | 95.00% (2) | 1 | 0.0100 to 0.0300 |"
    *_, worse = mnist.table({"fixed": run(90), "worse": run(20, 30)}).splitlines()
    assert worse == "| worse | 30.00% | 30.00% (1) | never | 0.0100 to 0.0200 |"


@pytest.mark.e2e
def test_a_deep_transformer_is_measured_and_trained_block_by_block(capsys):
    deep.main(["transformer", "--examples", "64", "--measurements", "2"])
    out = capsys.readouterr().out
    assert out.count("GB at most") == 4
    assert "blocks/layers/11: " in out
    assert "100 rates, from 4e-05 to 4e-05" in out


@pytest.mark.e2e
def test_a_resnet_of_fifty_layers_is_measured_at_each_block():
    task = deep.resnet("digits", None, examples=64, batch_size=32)
    mi = task.measure(task.state)
    blocks = [f"block_{i}_{j}" for i, n in enumerate((3, 4, 6, 3)) for j in range(n)]
    assert list(mi) == [*blocks, ""]
    assert 0.5 < min(mi.values()) < max(mi.values()) < np.log(10)
    counts = jax.tree.map(jnp.size, task.state.variables["params"])
    assert 23e6 < sum(jax.tree.leaves(counts)) < 24e6  # of its 25.6e6, 2e6 tell classes
    x, y = next(task.batches)
    assert (x.shape, y.shape) == ((32, 64, 64, 3), (32,))


def test_examples_of_deep_networks_refuse_more_measurements_than_steps(capsys):
    with pytest.raises(SystemExit):
        deep.main(["resnet", "--examples", "64", "--measurements", "3"])
    assert "from 1 to the 2 steps" in capsys.readouterr().err
