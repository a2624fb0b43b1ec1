"""A fixed sample of the data on which mutual information is measured."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Integer, PRNGKeyArray

from optax_mi import _arrays, _checks
from optax_mi._types import Numeric


class Probe(NamedTuple):
    """Examples drawn once and measured on throughout training."""

    inputs: Any  #: pytree of arrays [size, ...], as the model takes them
    outcomes: Numeric[Array, "size ..."]  #: integers are classes


def sample_probe(
    key: PRNGKeyArray,
    x: Any,
    y: Numeric[ArrayLike, "n ..."],
    size: int = 1000,
    *,
    stratify: bool = False,
) -> Probe:
    """Draws a probe from the data, uniformly and without replacement.

    The paper measures on 1000 examples of the training data, and always on the same
    ones: between two measurements on one probe, only the network has changed.

    Args:
      key: A JAX random key.
      x: Inputs, an array [n, ...] or a pytree of them. NumPy arrays, memory-mapped ones
        too, stay on the host; only the probe goes to the device.
      y: True outcomes, shape [n] or [n, ...]. Integers are classes, floats are
        continuous.
      size: Number of examples.
      stratify: Whether to draw equally many examples of each class, and all of a class
        that has fewer. For rare classes, of which a uniform probe holds only a handful.
        Information and reference are then those for these shares of the classes: with
        two classes, one of them 1 % of the data, H(Y) is 0.69 in place of 0.06 nats.

    Returns:
      A Probe(inputs, outcomes), a pytree of JAX arrays.

    Raises:
      ValueError: If lengths differ, size is not an integer in 1..n, y holds one-hot
        codes, or `stratify` is given and y does not hold classes of shape [n].

    Warns:
      UserWarning: If y holds floats with few different whole numbers (classes must be
        integers), or integers of which most are alone in their class (amounts must be
        floats).

    Cost: n for the permutation; n log n with `stratify`.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> x, y = np.zeros((5000, 8, 8)), np.arange(5000) % 10
      >>> probe = optax_mi.sample_probe(jax.random.key(0), x, y, size=1000)
      >>> probe.inputs.shape, probe.outcomes.shape
      ((1000, 8, 8), (1000,))
    """
    x, y = jax.tree.map(_arrays.as_array, x), _checks.numbers("y", y)
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
    if stratify:
        index = _of_each_class(key, _checks.class_labels("y", y), size)
    else:
        index = jax.random.choice(key, n, (size,), replace=False)
    inputs = jax.tree.map(lambda array: _arrays.inputs(taken(array, index)), x)
    outcomes = _arrays.outcomes_on_device("y", taken(y, index))
    _checks.no_coded_classes("y", outcomes)
    _checks.tell_of_amounts("y", outcomes)
    return Probe(inputs, outcomes)


def _of_each_class(
    key: PRNGKeyArray, labels: Integer[Array, "n"], size: int
) -> Int[Array, "size"]:
    """Which examples: the first of each class in a random order, then the second."""
    order = jax.random.permutation(key, len(labels))
    by_class = order[jnp.argsort(labels[order], stable=True)]
    grouped = labels[by_class]
    turn = jnp.arange(len(labels)) - jnp.searchsorted(grouped, grouped)
    turns = jnp.zeros_like(order).at[by_class].set(turn)
    # Within a turn in the random order, so that the last one prefers no class.
    return order[jnp.argsort(turns[order], stable=True)[:size]]


def taken(array: Any, index: Int[Array, "size"]) -> Any:
    """The examples, of a NumPy array on the host."""
    if not isinstance(array, np.ndarray) or _checks.is_traced(index):
        return jnp.asarray(array)[index]
    return array[np.asarray(index)]
