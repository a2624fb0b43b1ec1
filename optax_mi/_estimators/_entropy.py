"""Entropy of class labels."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from optax_mi import _checks


def label_entropy(labels: ArrayLike) -> jax.Array:
    r"""Entropy of the empirical distribution of class labels, in nats.

    .. math:: H(C) = -\operatorname{mean}_i \log \frac{N_{c(i)}}{n}

    No variable can say more about the labels than this, so it is the reference that
    the mutual information of a layer is held against. It is what the paper's tiled
    reference comes to when (X, Y) is repeated more than k times.

    Args:
      labels: Integer classes, shape [n]. Any integers; only equality matters.

    Returns:
      A scalar, in nats, exact for the sample.

    Raises:
      ValueError: If labels are not integers of shape [n] with n >= 1.

    Cost: n log n.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> print(f"{optax_mi.label_entropy(np.arange(1000) % 10):.4f}")  # log 10
      2.3026
    """
    return _label_entropy(_checks.class_labels("labels", labels))


@jax.jit
def _label_entropy(labels: jax.Array) -> jax.Array:
    ordered = jnp.sort(labels)
    first = jnp.searchsorted(ordered, labels, side="left")
    end = jnp.searchsorted(ordered, labels, side="right")
    return -jnp.mean(jnp.log((end - first) / len(labels)))
