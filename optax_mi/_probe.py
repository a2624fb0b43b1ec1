"""A fixed sample of the data on which mutual information is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, Shaped

from optax_mi import _checks
from optax_mi._types import Numeric


class Probe(NamedTuple):
    """Examples drawn once and measured on throughout training."""

    inputs: Any  #: pytree of arrays [size, ...], as the model takes them
    outcomes: Numeric[Array, "size ..."]  #: integers are classes


def sample_probe(
    key: PRNGKeyArray, x: Any, y: Numeric[ArrayLike, "n ..."], size: int = 1000
) -> Probe:
    """Draws a probe from the training data, uniformly and without replacement.

    The paper measures on 1000 examples, and always on the same ones: between two
    measurements on one probe, only the network has changed.

    Args:
      key: A JAX random key.
      x: Inputs, an array [n, ...] or a pytree of them. NumPy arrays (memory-mapped
        ones too) are indexed where they are; only the probe goes to the device.
      y: True outcomes, shape [n] or [n, ...]. Integers are classes, floats are
        continuous.
      size: Number of examples.

    Returns:
      A Probe(inputs, outcomes), a pytree of JAX arrays.

    Raises:
      ValueError: If lengths differ, size is not an integer in 1..n, or y holds one-hot
        codes.

    Cost: n for the permutation.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> x, y = np.zeros((5000, 8, 8)), np.arange(5000) % 10
      >>> probe = optax_mi.sample_probe(jax.random.key(0), x, y, size=1000)
      >>> probe.inputs.shape, probe.outcomes.shape
      ((1000, 8, 8), (1000,))
    """
    x, y = jax.tree.map(_checks.as_array, x), _checks.numbers("y", y)
    _checks.held_integers("y", y)
    arrays: list[tuple[str, Any]] = [("y", y)]
    arrays += [("x", leaf) for leaf in jax.tree.leaves(x)]
    for name, array in arrays:
        if array.ndim == 0:
            _checks.fail(
                name,
                "an array of examples, shape [n, ...], or a pytree of them (a list is "
                "a pytree of its elements)",
                "a scalar",
            )
    n = _checks.same_length(arrays)
    _checks.positive_integer("size", size)
    if size > n:
        _checks.fail("size", f"at most the number of examples, {n}", size)
    index = jax.random.choice(key, n, (size,), replace=False)
    probe = Probe(*jax.tree.map(lambda array: _take(array, index), (x, y)))
    if not _checks.is_traced(probe.outcomes):
        _checks.not_one_hot("y", np.asarray(probe.outcomes))
    return probe


def _take(array: Any, index: Int[Array, "size"]) -> Shaped[Array, "size ..."]:
    if isinstance(array, np.ndarray) and not _checks.is_traced(index):
        return jnp.asarray(array[np.asarray(index)])
    return jnp.asarray(array)[index]
