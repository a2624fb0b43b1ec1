import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

# Before any JAX computation: the tests are for the CPU, and strict about promotion.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)  # virtual ones, for what is sharded
if jax.__version_info__ >= (0, 10):
    # On a busy machine they may wait for each other longer than XLA's 40 s.
    patience = " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + patience

COMPILED = "OPTAX_MI_TESTS_COMPILED"


def pytest_configure(config):
    """Keeps what is compiled, for the other processes of this run and for later runs.

    A run works on a copy, which takes the place of what was kept where the run has
    ended cleanly: a process that is killed may leave half a program. A limit to the
    size makes JAX take a lock before it reads or writes.
    """
    if not hasattr(config, "workerinput"):
        kept = _kept(config)
        own = tempfile.mkdtemp(prefix="run-", dir=kept and kept.parent)
        os.environ[COMPILED] = own
        if kept and kept.exists():
            shutil.copytree(kept, own, copy_function=os.link, dirs_exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", os.environ[COMPILED])
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _kept(config):
    """The folder between runs, or None where pytest is to keep nothing."""
    if not hasattr(config, "cache"):
        return None
    parent = config.cache.mkdir("compiled")
    for run in parent.glob("run-*"):  # those that were killed
        if time.time() - run.stat().st_mtime > 24 * 60 * 60:
            shutil.rmtree(run, ignore_errors=True)
    return parent / "kept"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workerinput") or exitstatus != pytest.ExitCode.OK:
        return
    if kept := _kept(session.config):
        own = Path(os.environ[COMPILED])
        with contextlib.suppress(OSError):  # another run may have ended just now
            if kept.exists():
                kept.rename(own.with_suffix(".before"))
            own.rename(kept)
        shutil.rmtree(own.with_suffix(".before"), ignore_errors=True)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[COMPILED], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Puts files with processes and training runs first: they take the longest."""
    longest = {item.path for item in items if item.get_closest_marker("e2e")}
    items.sort(key=lambda item: item.path not in longest)


def _connect_within(self, address, connect=socket.socket.connect):
    if self.family != socket.AF_UNIX and address[0] not in ("localhost", "127.0.0.1"):
        raise OSError(f"Tests use no network, and this one connects to {address}.")
    return connect(self, address)


# Of what is installed from a package index, processes of their own see to it.
socket.socket.connect = _connect_within


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def compiled_afresh():
    """Leaves the cache of programs alone, for tests of several devices.

    A program that XLA's CPU backend loads from there has lost the order of its
    collectives: devices that begin with different ones wait for each other for good
    (jax 0.10.2).
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing_to_the_next_module():
    """A process may map 65,530 pieces of memory, and each program takes several."""
    yield
    jax.clear_caches()
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")  # it warns of more than twenty
