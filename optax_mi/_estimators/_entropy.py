"""Entropies: of class labels, and of continuous points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float, Integer

from optax_mi import _checks
from optax_mi._estimators._neighbours import classes, collectives, counting, distances
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._estimators._neighbours.query import Found, Query, Space
from optax_mi._estimators._neighbours.sharding import number_of_points, over_points
from optax_mi._estimators._psi import digamma
from optax_mi._types import AxisName, Discrete, Metric, Numeric


def label_entropy(
    labels: Discrete[ArrayLike, "n"], *, axis_name: AxisName = None
) -> Float[Array, ""]:
    r"""Entropy of the empirical distribution of class labels, in nats.

    .. math:: H(C) = -\operatorname{mean}_i \log \frac{N_{c(i)}}{n}

    No variable can have more information about the labels than this. So it is the
    reference for the mutual information of a layer. The paper's tiled reference equals
    it when (X, Y) is repeated more than k times.

    Args:
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      axis_name: The mesh axis over which they are spread, as for `ksg_discrete`.

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
    labels = _checks.class_labels("labels", labels)
    return _label_entropy(labels, axis_name=axis_name)


@over_points
def _label_entropy(labels: Integer[Array, "n"], *, axis: AxisName) -> Float[Array, ""]:
    sizes = classes.sizes(labels, axis).astype(jnp.result_type(float))
    return collectives.mean(jnp.log(len(labels) * collectives.size(axis) / sizes), axis)


def knn_entropy(
    x: Numeric[ArrayLike, "n ..."],
    *,
    k: int | Sequence[int] = 3,
    metric: Metric = "euclidean",
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    r"""Estimates the differential entropy h(X), in nats.

    The nearest-neighbour estimator of Kozachenko and Leonenko (1987), with
    :math:`\epsilon_i` the distance of a point to its k-th neighbour and :math:`c_d` the
    volume of the unit ball of the metric:

    .. math:: h = \psi(N) - \psi(k) + \log c_d + d \langle \log \epsilon_i \rangle

    Unlike mutual information it depends on the units of X: h(aX) = h(X) + d log a.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d features.
      k: Number of neighbours. Of several, the mean of their estimates is returned.
      metric: "euclidean", "manhattan" or "chebyshev".
      block_size: Points handled at a time; chosen from n and the backend by default.
      axis_name: The mesh axis over which the points are spread, as for `ksg_discrete`.

    Returns:
      A scalar, in nats. Minus infinity where more than k points coincide, since such a
      variable has no density. NaN where x holds a NaN or an infinity.

    Raises:
      ValueError: For k < 1, n <= k or an unknown metric.

    Cost: that of `ksg_discrete`.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> x = np.random.default_rng(0).uniform(0, 2, 5000)      # h = log 2 = 0.69
      >>> print(f"{optax_mi.knn_entropy(x):.2f}")
      0.70

    References:
      Kozachenko and Leonenko, Problems of Information Transmission 23, 1987; Kraskov
      et al., `Estimating mutual information
      <https://doi.org/10.1103/PhysRevE.69.066138>`_, 2004, equation (20).
    """
    x = _checks.points("x", x, units=True)
    ks = _checks.several_neighbours(k, number_of_points(len(x), axis_name))
    distances.check_options(metric, block_size)
    return _knn_entropy(
        x, ks=ks, metric=metric, block_size=block_size, axis_name=axis_name
    )


@over_points
def _knn_entropy(
    x: Float[Array, "n d"],
    *,
    ks: Sequence[int],
    metric: Metric,
    block_size: int | None,
    axis: AxisName,
) -> Float[Array, ""]:
    x = jax.lax.stop_gradient(x)
    n, d = len(x) * collectives.size(axis), x.shape[1]
    # So that no distance over- or underflows; undone in the end.
    exponent = distances.scale_exponent(x, axis)
    scaled = distances.times_power_of_two(x, exponent)
    query = Query([Variable(scaled)], [Space((0,))], ks, metric, radii=True)

    def entropy(found: Found, k: int) -> Float[Array, ""]:
        log_radius = jnp.log(distances.decode(found.radius))
        if metric == "euclidean":
            log_radius = log_radius / 2  # it came squared
        mean = collectives.mean(log_radius - exponent * math.log(2), axis)
        number, own_k = (jnp.asarray(m, x.dtype) for m in (n, k))
        ball = _log_unit_ball(d, metric)
        return digamma(number) - digamma(own_k) + ball + d * mean

    counted = counting.count(query, block_size=block_size, axis=axis)
    mean = sum(map(entropy, counted, ks)) / len(ks)
    return jnp.where(collectives.all_finite(x, axis), mean, jnp.nan)


def _log_unit_ball(d: int, metric: Metric) -> Float[Array, ""]:
    """Logarithm of the volume of the unit ball in d dimensions."""
    if metric == "euclidean":
        return d / 2 * np.log(np.pi) - gammaln(d / 2 + 1)
    if metric == "manhattan":
        return d * np.log(2.0) - gammaln(d + 1.0)
    return jnp.asarray(d * np.log(2.0))
