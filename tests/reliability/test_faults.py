"""Kills, full and read-only disks, damaged and malicious files: nothing is lost."""

import ast
import contextlib
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import saves
from generated import SOAK

import optax_mi

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SAVES = TESTS / "reliability" / "saves.py"
RESUMABLE = TESTS / "reliability" / "resumable.py"

# Epochs have 40 steps, and every 25th is saved: after the 200th, the end of an epoch,
# with a measurement pending. By form the step after which a run is killed, the one from
# which it must go on, and how often it is killed at random after that.
KILLS = {
    "plain": (212, 200, 0),
    "layer-wise": (137, 125, 19 if SOAK else 1),
    "memory": (137, 125, 0),  # in the warm-up
}
EPOCHS = 20 if SOAK else 7


@pytest.fixture
def start(tmp_path):
    """Starts processes that end with the test and share what they compile.

    JAX compiles anew what a kill has left half written.
    """
    options = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "PYTHONPATH": str(TESTS),
    }
    with contextlib.ExitStack() as stack:

        def start_one(*arguments):
            command = [sys.executable, RESUMABLE, *map(str, arguments)]
            process = subprocess.Popen(command, env={**os.environ, **options})
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start_one


def whole_lines(path):
    """The lines of a log whose writer may have been killed in the middle of one."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []


def kill(process, when, moment=0.0):
    """Kills it so many seconds after something has come true."""
    while not when():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.e2e
@pytest.mark.parametrize("form", KILLS)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    form, tmp_path, start, tally
):
    paused, saved, kills = KILLS[form]
    alone, checkpoints = tmp_path / "alone", tmp_path / "checkpoints"
    undisturbed = start(form, tmp_path / "others", alone, "", EPOCHS)
    assert undisturbed.wait(timeout=600) == 0
    lives = [tmp_path / str(life) for life in range(kills + 2)]
    first, *others, last = lives
    kill(
        start(form, checkpoints, first, paused, EPOCHS),
        lambda: (
            len(whole_lines(first / "log")) == paused
            and (checkpoints / str(saved)).exists()
        ),
    )
    draw = random.Random(0)
    for results in others:
        # After a number of steps, and then at any moment of the writing of a
        # checkpoint or of a measurement.
        steps, moment = draw.randint(1, 30), draw.uniform(0, 0.3)
        done = lambda log=results / "log", n=steps: len(whole_lines(log)) >= n  # noqa: E731
        kill(start(form, checkpoints, results, "", EPOCHS), done, moment)
    assert start(form, checkpoints, last, "", EPOCHS).wait(timeout=600) == 0

    expected = whole_lines(alone / "log")
    assert len(set(expected)) == 40 * EPOCHS
    begun = []
    for results in lives:
        lines = whole_lines(results / "log")
        begun.append(next(iter(json.loads(lines[0]).values()))[0] - 1)  # its count
        assert lines == expected[begun[-1] :][: len(lines)]
    assert begun[:2] == [0, saved]
    assert whole_lines(last / "log")[-1] == expected[-1]
    assert not (first / "end.npz").exists()
    history = alone / "history.json"
    assert (last / "history.json").read_text() == history.read_text()
    assert_each_rate_moves(history)
    ends = [np.load(d / "end.npz", allow_pickle=False) for d in (alone, last)]
    assert ends[0].files == ends[1].files
    assert len(ends[0].files) > 12
    for one, other in zip(ends[0].values(), ends[1].values(), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    tally("faults", 1 + kills)


def assert_each_rate_moves(path):
    rates = optax_mi.MIHistory.from_json(path)
    for layer in rates.layers:
        moves = itertools.pairwise(rates.column("learning_rate", layer))
        assert sum(old != new for old, new in moves) >= 4


def run(*arguments, **options):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)}
    return subprocess.run(
        [*map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        **options,
    )


@pytest.mark.e2e
def test_where_no_file_can_grow_the_checkpoint_of_before_is_kept(tmp_path, tally):
    directory = tmp_path / "checkpoints"
    assert run(sys.executable, SAVES, 1, directory).stdout == "saved 1\n"
    limited = run("sh", "-c", f"ulimit -f 8; {sys.executable} {SAVES} 2 {directory}")
    assert limited.returncode == 1
    assert "saved" not in limited.stdout
    assert "File too large" in limited.stderr
    restored = run(sys.executable, SAVES, "restore", directory)
    assert restored.stdout == "restored 1, damaged [], kept [1]\n"
    tally("faults")


DISKS = {
    # One checkpoint has room, two have not.
    "full": ("size=90k", "true", "No space left on device"),
    "read-only": ("size=9m", "mount -o remount,ro disk", "Read-only file system"),
}


@pytest.mark.e2e
@pytest.mark.parametrize("disk", DISKS)
def test_where_the_disk_is(disk, tmp_path, tally):
    size, spoil, message = DISKS[disk]
    if run("unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path).returncode:
        pytest.skip("this machine lets no one mount a disk of his own")
    (tmp_path / "disk").mkdir()
    save, where = f"{sys.executable} {SAVES}", f"{tmp_path}/disk/checkpoints"
    found = run(
        *("unshare", "-rm", "sh", "-c"),
        f"mount -t tmpfs -o {size} none disk && {save} 1 {where} && {spoil};"
        f"{save} 2 {where}; echo status $?; {save} restore {where}",
        cwd=tmp_path,
    )
    restored = "restored 1, damaged [], kept [1]"
    assert found.stdout.splitlines() == ["saved 1", "status 1", restored]
    assert message in found.stderr
    tally("faults")


@pytest.mark.e2e
def test_a_history_that_cannot_be_written_leaves_the_one_before(tmp_path, tally):
    path, history = tmp_path / "history.json", optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.1, mi=1.0)
    history.to_json(path)
    before = path.read_bytes()
    program = (
        "import optax_mi; h = optax_mi.MIHistory(); "
        "[h.add(epoch=i, learning_rate=0.1, mi=1.0) for i in range(1000)]; "
        f"h.to_json({str(path)!r})"
    )
    found = run("sh", "-c", f'ulimit -f 8; {sys.executable} -c "{program}"')
    assert found.stderr.splitlines()[-1] == "OSError: [Errno 27] File too large"
    assert path.read_bytes() == before
    assert optax_mi.MIHistory.from_json(path).rows == history.rows
    tally("faults")


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """A directory with the checkpoints of two steps."""
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    with ocp.CheckpointManager(directory) as manager:
        for step in (1, 2):
            saves.functions()["save"](manager, step, *saves.state_after(step))
    return directory


def cut_short(data, draw):
    return data[: draw.randrange(len(data))]


def one_byte_changed(data, draw):
    place = draw.randrange(len(data))
    return (
        data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    )


DAMAGE = {
    "cut short": cut_short,
    "one byte changed": one_byte_changed,
    "emptied": lambda data, draw: b"",
    "removed": None,
}


@pytest.mark.e2e
@pytest.mark.parametrize("damage", DAMAGE)
def test_of_damaged_checkpoints_the_last_whole_one_is_restored(
    damage, two_checkpoints, tmp_path, tally
):
    draw = random.Random(0)
    files = sorted(
        path.relative_to(two_checkpoints)
        for path in (two_checkpoints / "2").rglob("*")
        if path.is_file() and path.stat().st_size
    )
    directories = [tmp_path / str(number) for number in range(100 if SOAK else 20)]
    for directory, name in zip(directories, itertools.cycle(files), strict=False):
        shutil.copytree(two_checkpoints, directory)
        victim = directory / name
        if change := DAMAGE[damage]:
            victim.write_bytes(change(victim.read_bytes(), draw))
        else:
            victim.unlink()
    # In a process of its own, as Orbax leaves reads that failed unfinished.
    lines = run(sys.executable, SAVES, "restore", *directories).stdout.splitlines()
    assert len(lines) == len(directories)
    expected = {
        "restored 1, damaged [2], kept [1]",
        "restored 2, damaged [], kept [1, 2]",  # what was damaged is not needed
    }
    if damage == "one byte changed":  # of which Orbax says nothing within the numbers
        expected |= {"restored 1, damaged [2] by its digest, kept [1]"}
    assert set(lines) == expected
    tally("faults", len(lines))


def test_where_no_checkpoint_is_whole_all_are_kept_and_named(two_checkpoints, tally):
    with ocp.CheckpointManager(two_checkpoints) as manager:
        with pytest.raises(
            ValueError, match=r"No checkpoint in .* is whole: \{2: .*1: "
        ):
            saves.functions()["restore"](manager, {"params": np.zeros(3)})
        assert list(manager.all_steps()) == [1, 2]
    tally("faults")


class Malicious:
    """Unpickled, it creates a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "form",
    [*(pytest.param(f, marks=pytest.mark.e2e) for f in ("npy", "npz")), "history"],
)
def test_no_pickle_is_ever_loaded(form, tmp_path, tally):
    created = tmp_path / "created"
    harmful = np.array([Malicious(created)], dtype=object)
    if form == "history":
        (tmp_path / "x.npy").write_bytes(pickle.dumps(Malicious(created)))
        with pytest.raises(ValueError, match="to_json. wrote"):
            optax_mi.MIHistory.from_json(tmp_path / "x.npy")
    else:
        with open(tmp_path / "x.npy", "wb") as file:
            (np.save if form == "npy" else np.savez)(file, harmful)
        np.save(tmp_path / "y.npy", np.arange(9))
        paths = tmp_path / "x.npy", tmp_path / "y.npy"
        found = run(sys.executable, "-m", "optax_mi", "estimate", *paths)
        assert found.returncode == 2
        assert "x.npy" in found.stderr
        assert "Traceback" not in found.stderr
    assert not created.exists()
    np.load(tmp_path / "x.npy", allow_pickle=True) if form == "npy" else None
    assert created.exists() == (form == "npy")  # which is what it would have done
    tally("malicious files")


def test_no_program_of_ours_can_load_a_pickle():
    """`numpy.load` refuses pickles by default; nothing turns that off."""
    for path in itertools.chain.from_iterable(
        (ROOT / folder).rglob("*.py") for folder in ("optax_mi", "examples")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not {"pickle", "dill", "joblib", "shelve"} & set(names), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
