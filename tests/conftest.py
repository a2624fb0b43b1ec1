import os

import jax
import pytest

# Before any JAX computation: the tests are for the CPU, and strict about promotion.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
