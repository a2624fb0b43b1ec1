import os
import shutil
import socket
import tempfile

import jax
import pytest

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
    """Shares what is compiled: the tests compile the same programs many times.

    Between the processes of one run and no longer, as one that is killed may leave half
    a program. A limit to the size makes JAX take a lock before it reads or writes.
    """
    if not hasattr(config, "workerinput"):
        os.environ[COMPILED] = tempfile.mkdtemp(prefix="optax_mi-compiled-")
    jax.config.update("jax_compilation_cache_dir", os.environ[COMPILED])
    jax.config.update("jax_compilation_cache_max_size", 2**30)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ[COMPILED])


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


@pytest.fixture(scope="module", autouse=True)
def _forget_what_was_compiled():
    """A process may map 65,530 pieces of memory; each program takes several."""
    yield
    jax.clear_caches()
