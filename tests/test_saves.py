"""Runs that were stopped and go on: they end as those that were left alone."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
import tiny

from examples.common.results import recorded
from examples.common.saves import Saves
from examples.common.training import Phase, train
from examples.paper import run

ROOT = pathlib.Path(__file__).parents[1]
PHASES = [
    Phase("stable", {"lr_min": 1e-4, "lr_max": 3.0}),
    Phase("reference", {"init_lr": 0.05}, batches=5, start=2, value_only=2),
]


def started(saves=None, **options):
    options = {"epochs": 5, "batch_size": 20, "saves": saves} | options
    return train(tiny.task(), PHASES, **options)


def assert_the_same(first, second):
    for one, other in zip(first[0], second[0], strict=True):
        tiny.equal(one, other, rtol=0)
    states = [
        state._replace(key=jax.random.key_data(state.key))
        for state in (first[1], second[1])
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(1, marks=pytest.mark.e2e),
        2,  # at the end of a phase, whose state the save has
        pytest.param(4, marks=pytest.mark.e2e),
    ],
)
@pytest.mark.parametrize(
    "seeds", [[0], pytest.param([0, 1], marks=pytest.mark.e2e)], ids=str
)
def test_a_run_that_was_stopped_goes_on_to_the_last_bit(tmp_path, stop, seeds):
    saves, first = Saves(tmp_path / "run", every=1), None
    stopped = started(saves, seeds=seeds)
    for _ in range(stop):
        first = next(stopped)
    stopped.close()
    assert first
    assert saves.epochs == stop
    whole, rest = [[*started(given, seeds=seeds)] for given in (None, saves)]
    assert (len(whole), len(rest)) == (5, 5 - stop)
    assert_the_same(rest[-1], whole[-1])


def test_a_run_saves_itself_every_few_epochs_but_not_at_its_end(tmp_path):
    saves, done = Saves(tmp_path / "run", every=2), []
    phase = Phase("constant", {"rate": 0.1})
    for _ in train(tiny.task(), [phase], epochs=4, batch_size=20, saves=saves):
        done.append((saves.epochs, (tmp_path / "run").exists()))
    assert done == [(0, False), (2, True), (2, True), (2, True)]
    saves.remove()
    assert saves.epochs == 0
    assert not list(tmp_path.iterdir())


def test_runs_of_other_settings_have_other_saves(tmp_path):
    config = {"figure": "figure3", "row": "change", "model": "small", "epochs": 5}
    config |= {"dataset": "mnist", "train_size": 9, "batch_size": 3, "seed": 0}
    config |= {"tuned_rate": None, "phases": [{"options": {"gamma_up": 0.1}}]}
    other = config | {"phases": [{"options": {"gamma_up": 0.2}}]}
    run.saves_of([config], tmp_path).save(5, {"a": np.ones(3)}, {})
    assert run.saves_of([config], tmp_path).epochs == 5
    assert run.saves_of([other], tmp_path).epochs == 0
    assert run.saves_of([config, other], tmp_path).epochs == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("figure3-change-small-mnist-9-5x3-0-")


@pytest.mark.e2e
def test_a_row_that_was_killed_goes_on_and_is_kept_once(tmp_path):
    """With dropout, as a process of its own."""
    command = [sys.executable, "-u", "-m", "examples.paper.run", "figure3"]
    command += ["--dataset", "digits", "--train-size", "300", "--model", "paper"]
    command += ["--epochs", "9", "--rows", "stable", "--out"]
    shared = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    options: Any = dict(cwd=ROOT, env=os.environ | shared, text=True)

    def ended(out):
        found = subprocess.run([*command, out], capture_output=True, **options)
        assert found.returncode == 0, found.stderr
        return found.stdout

    out, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(
        [*command, out], stdout=subprocess.PIPE, **options
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "seed 0: epoch 6, accuracy" in line:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == ["runs"]
    told = ended(out)
    assert "figure3 stable seed 0: goes on after epoch 4\n" in told
    assert "epoch 5, accuracy" in told
    assert "epoch 4, accuracy" not in told
    ended(whole)
    ((_, killed),), ((_, alone),) = (
        recorded(folder / "figure3.jsonl") for folder in (out, whole)
    )
    assert killed.column("epoch").tolist() == list(range(9))
    tiny.equal(killed, alone, rtol=0)
    assert not list((out / "runs").iterdir())
