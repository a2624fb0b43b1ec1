"""Bounds on the information of a noisy layer, from pairwise distances."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer, ScalarLike

from optax_mi import _checks
from optax_mi._estimators._neighbours import blocks, classes, collectives, distances
from optax_mi._estimators._neighbours.sharding import over_points
from optax_mi._types import AxisName, Discrete, Numeric


class Bounds(NamedTuple):
    """A lower and an upper bound, in nats."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]


def pairwise_distance_bounds(
    x: Numeric[ArrayLike, "n ..."],
    labels: Discrete[ArrayLike, "n"],
    *,
    noise: ScalarLike,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Bounds:
    r"""Bounds I(X + noise; C), in nats, for Gaussian noise added to a layer.

    With noise of standard deviation :math:`\sigma`, the layer's distribution over the
    sample is a mixture of n Gaussians, and so is that of each class. Kolchinsky and
    Tracey (2017) bound the entropy of a mixture by pairwise distances between its
    components (equation 10): above with the Kullback-Leibler divergence
    :math:`D_{ij} = |x_i - x_j|^2 / 2 \sigma^2`, below with the Bhattacharyya distance
    :math:`D_{ij} = |x_i - x_j|^2 / 8 \sigma^2`,

    .. math:: \hat H_D = H(\text{noise}) - \operatorname{mean}_i \log
        \operatorname{mean}_j \exp(-D_{ij})

    The lower bound of the information is the lower bound of H(X + noise) less the upper
    bound of H(X + noise | C), in which j runs over the class of i; the upper bound
    likewise. Both hold exactly for the sample's mixture, not for the distribution that
    the sample was drawn from. Labels that are all different bound the information about
    the input.

    The layer is taken to be deterministic without the noise, so its scale matters: as
    the noise vanishes the information grows up to H(C), and without limit if labels are
    all different.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d features.
      labels: Integer classes, shape [n].
      noise: The standard deviation of the noise, in the units of x.
      block_size: Points handled at a time; chosen from n and the backend by default.
      axis_name: The mesh axis over which the points are spread, as for `ksg_discrete`.

    Returns:
      Bounds(lower, upper), scalars in nats. Not clipped to [0, H(C)].

    Raises:
      ValueError: If lengths differ, labels are not integers of shape [n], or the noise
        is not a positive number.

    Cost: n^2 d operations; memory n * block_size.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> labels = np.arange(1000) % 2
      >>> x = 2.0 * labels                        # I = 0.337 nats with noise of 1
      >>> lower, upper = optax_mi.pairwise_distance_bounds(x, labels, noise=1.0)
      >>> print(f"{lower:.2f} to {upper:.2f}")
      0.22 to 0.57

    References:
      Kolchinsky and Tracey, `Estimating mixture entropy with pairwise distances
      <https://doi.org/10.3390/e19070361>`_, 2017, equation (10) and section 4.
    """
    x = _checks.points("x", x, units=True)
    labels = _checks.class_labels("labels", labels)
    _checks.same_length([("x", x), ("labels", labels)])
    _checks.positive("noise", noise)
    if block_size is not None:
        _checks.positive_integer("block_size", block_size)
    x = x / jnp.asarray(noise, x.dtype)
    return _bounds(x, labels, block_size=block_size, axis_name=axis_name)


@over_points
def _bounds(
    x: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    block_size: int | None,
    axis: AxisName,
) -> Bounds:
    n, devices = len(x), collectives.size(axis)
    padded = distances.as_columns(x), distances.pad_points(labels, 0)
    columns = collectives.spread(padded, axis)

    def log_means(
        block: tuple[
            Float[Array, "rows d"], Integer[Array, "rows"], Int[Array, "rows"]
        ],
    ) -> list[Float[Array, "rows"]]:
        points, label, size = block

        def sums(columns: Any) -> list[Float[Array, "rows"]]:
            others, other_label = columns
            squared = distances.distances(points, others, "euclidean")
            same = label[:, None] == other_label[None]
            # Kullback-Leibler and Bhattacharyya. The point itself adds 1, so no sum
            # vanishes; what pads the columns is infinitely far away and adds 0.
            terms = [jnp.exp(-squared / scale) for scale in (2, 8)]
            return [jnp.sum(t, axis=1, where=w) for w in (True, same) for t in terms]

        totals = collectives.around(sums, columns, jnp.add, lambda _: 0)
        numbers = [jnp.asarray(n * devices)] * 2 + [size] * 2
        return [jnp.log(t / m) for t, m in zip(totals, numbers, strict=True)]

    # All distances of a row count, so it takes as much room as if all were stored.
    means = blocks.map_blocks(
        log_means,
        (x, labels, classes.sizes(labels, axis)),
        blocks.choose_block_size(n, x.shape[1:], n, block_size, devices),
    )
    kl_all, bhattacharyya_all, kl_class, bhattacharyya_class = (
        collectives.mean(of_points, axis) for of_points in means
    )
    return Bounds(
        lower=kl_class - bhattacharyya_all, upper=bhattacharyya_class - kl_all
    )
