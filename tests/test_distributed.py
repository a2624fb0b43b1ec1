"""The distributed example, on eight virtual devices and in two processes."""

import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import optax_mi
from examples.distributed import launch, layout
from examples.distributed.train import train
from optax_mi import _record

pytestmark = pytest.mark.usefixtures("compiled_afresh")


def run(devices, epochs, **options):
    mesh = layout.in_a_row(jax.devices()[:devices])
    *_, last = train(mesh, epochs=epochs, batch_size=16, probe_size=200, **options)
    return last


def rates(history):
    return np.array([row["learning_rate"] for row in history.rows])


def copies(array):
    return [np.asarray(shard.data) for shard in array.addressable_shards]


@pytest.fixture(scope="module")
def on_eight():
    return run(8, epochs=4)


@pytest.mark.e2e
def test_every_device_has_the_same_rates_and_measurements(on_eight):
    history, state = on_eight
    assert len({row["layer"] for row in history.rows}) == 4
    assert rates(history).max() > 0.01
    for own in _record.labelled_states(state["opt_state"]).values():
        for array in (own.learning_rate, own.mi, own.pending):
            first, *others = copies(array)
            assert len(others) == 7
            assert all(other.tobytes() == first.tobytes() for other in others)


@pytest.mark.e2e
def test_sharded_parameters_train_as_copies_do(on_eight):
    history, state = run(8, epochs=4, fsdp=True)
    kernel = state["params"]["Dense_0"]["kernel"]
    assert copies(kernel)[0].size == kernel.size // 8
    np.testing.assert_allclose(rates(history), rates(on_eight[0]), rtol=1e-3)


def test_large_arrays_are_cut_along_their_longest_axis():
    mesh = layout.in_a_row(jax.devices()[:8])
    shapes = {"kernel": np.zeros((24, 64)), "bias": np.zeros(10), "rate": np.zeros(())}
    cut = layout.of_state(mesh, shapes, fsdp=True)
    assert cut["kernel"].shard_shape((24, 64)) == (24, 8)
    assert cut["bias"].is_fully_replicated
    assert cut["rate"].is_fully_replicated
    whole = layout.of_state(mesh, shapes, fsdp=False)
    assert whole["kernel"].is_fully_replicated


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The checkpoints of two processes, one of which was killed."""
    folder = tmp_path_factory.mktemp("killed") / "checkpoints"
    processes = launch.start(2, [*PROCESS, "--checkpoints", str(folder)])
    try:
        wait_for(folder / "1", processes)
        processes[1].send_signal(signal.SIGKILL)
        assert launch.wait(processes) == 1
        assert all(process.wait() for process in processes)
    finally:
        for process in processes:
            process.kill()
    return folder


EPOCHS = 4
PROCESS = ["--devices", "1", "--epochs", str(EPOCHS), "--probe-size", "200"]


def wait_for(path, processes, seconds=240):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed():
    return run(2, EPOCHS)[0]


@pytest.mark.e2e
def test_one_process_goes_on_where_two_were_stopped(killed, undisturbed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "checkpoints")
    history, _ = run(2, EPOCHS, folder=folder)
    assert [*history.rows] == [*undisturbed.rows]


@pytest.mark.e2e
def test_two_processes_go_on_where_two_were_stopped(killed, undisturbed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "checkpoints")
    out = str(tmp_path / "{process}.json")
    options = [*PROCESS, "--checkpoints", str(folder), "--out", out]
    assert launch.wait(launch.start(2, options)) == 0
    for process in range(2):
        path = Path(out.format(process=process))
        history = optax_mi.MIHistory.from_json(path)
        assert [*history.rows] == [*undisturbed.rows]
