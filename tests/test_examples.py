import builtins
import os
import re
import sys
import tempfile

import numpy as np
import pytest

import optax_mi
from examples import data, demo, observe, report
from examples.training import Epoch, batches

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
        demo.main([])
    assert str(end.value).startswith(f"The demo needs {package}; install what")


def test_the_demo_ends_in_the_sentence_and_not_in_a_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        demo.main(["--dataset", "mnist", "--data-dir", "/nowhere"])
    assert str(end.value).startswith("There is no mnist in the data directory")
    with pytest.raises(SystemExit):
        demo.main(["--epochs", "0"])
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_the_demo_prints_epochs_a_table_and_the_place_of_its_picture(out, capsys):
    demo.main(["--epochs", "2", "--train-size", "600", "--out", str(out)])
    printed = capsys.readouterr().out
    assert len(re.findall(r"epoch +\d+ +LR 0\.\d+ +I\(H;Y\) \d", printed)) == 4 * 2
    assert len(re.findall(r"^\| (fixed|linear|MI)", printed, re.MULTILINE)) == 4
    path = out / "demo_digits.png"
    assert f"The picture is at {path}" in printed
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "tensorflow" not in sys.modules


def test_observing_writes_files_that_agree_and_pictures(out, capsys):
    observe.main(["--epochs", "2", "--out", str(out)])
    printed = capsys.readouterr().out
    history = optax_mi.MIHistory.from_json(out / "history.json")
    assert history.layers == list(observe.KINDS)
    assert len(history.rows) == 2 * 4
    assert history.to_table() in printed
    assert len((out / "history.csv").read_text().splitlines()) == 1 + 2 * 4
    assert list((out / "tensorboard").iterdir())
    pictures = sorted(path.stem for path in out.glob("*.png"))
    assert pictures == sorted(
        ["range_test", "layers", "training", "information_plane", "sample_size"]
    )


def test_the_table_compares_with_the_baseline():
    def epochs(accuracies):
        return [Epoch(i, 0.01 * (i + 1), 1.0, 2.0, a) for i, a in enumerate(accuracies)]

    runs = {"fixed": epochs([0.5, 0.9, 0.8]), "better": epochs([0.1, 0.8, 0.95])}
    *_, fixed, better = report.table(runs, baseline="fixed").splitlines()
    assert fixed == "| fixed | 80.00% | 90.00% (1) | 1 | 0.0100 to 0.0300 |"
    assert better == "| better | 95.00% | 95.00% (2) | 1 | 0.0100 to 0.0300 |"
    *_, worse = report.table(
        {"fixed": epochs([0.9]), "worse": epochs([0.2, 0.3])}, baseline="fixed"
    ).splitlines()
    assert worse == "| worse | 30.00% | 30.00% (1) | never | 0.0100 to 0.0200 |"


def test_batches_cover_the_data_once_and_leave_a_rest_out():
    drawn = list(batches(np.random.default_rng(0), 25, 10))
    assert [len(batch) for batch in drawn] == [10, 10]
    assert len(set(np.concatenate(drawn).tolist())) == 20
