"""What is computed once and stored, though several kernels read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optax_mi._estimators._neighbours import collectives


def once(value: Callable[[Any], Any], arrays: Any) -> Any:
    """What a function of arrays gives, a tree of arrays.

    XLA computes elementwise results again in every kernel that reads them. It stores
    what a condition returns, and this one it cannot decide as it compiles.
    """

    def never(arrays: Any) -> Any:
        shapes = jax.eval_shape(value, arrays)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
        return collectives.varying(zeros, arrays)

    always = jax.lax.optimization_barrier(jnp.array(True))
    return jax.lax.cond(always, value, never, arrays)
