"""Mutual information between two continuous variables."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jax.typing import ArrayLike

from optax_mi import _checks
from optax_mi._estimators import _neighbours
from optax_mi._types import Metric


def ksg(
    x: ArrayLike,
    y: ArrayLike,
    *,
    k: int = 3,
    algorithm: Literal[1, 2] = 1,
    metric: Metric = "chebyshev",
    block_size: int | None = None,
) -> jax.Array:
    r"""Estimates I(X; Y), in nats, between two continuous variables.

    The nearest-neighbour estimators of Kraskov, Stoegbauer and Grassberger (2004). The
    joint distance of two points is the larger of their distances in X and in Y;
    :math:`\rho` is the joint distance from a point to its k-th nearest neighbour.
    Algorithm 1 counts the points closer than :math:`\rho` in each variable (equation
    8); algorithm 2 counts the points within the rectangle that the k neighbours span
    (equation 9), with less bias and more variance:

    .. math::
        I_1 &= \psi(k) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle + \psi(N) \\
        I_2 &= \psi(k) - 1/k - \langle \psi(n_x) + \psi(n_y) \rangle + \psi(N)

    Each variable is first divided by its spread, the root mean square distance from its
    mean in the metric in force, since a joint distance between variables of very
    different scales sees only the larger one. Mutual information is unchanged by it.

    Where more than k points coincide with a point in both variables,
    :math:`\rho = 0` and the point's term is the one for discrete variables (Gao et al.
    2017), :math:`\psi(\tilde k) - \psi(n_x) - \psi(n_y)` with the point itself counted.
    Ties at a positive distance are counted as the equations above say; on coarse grids
    of values that is biased. Class labels belong in `ksg_discrete`: as one-hot codes
    here they make the estimate depend on the scale of X.

    The raw estimate is returned: it may be slightly negative for independent variables.
    It has no useful gradient.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d_x features.
        Half-precision and integer values are computed in float32.
      y: Points, shape [n] or [n, ...], likewise d_y features.
      k: Number of neighbours; small k means less bias and more variance.
      algorithm: 1 or 2, as in the paper.
      metric: "chebyshev" or "euclidean", the norm within X and within Y.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.

    Returns:
      A scalar, in nats. NaN where x or y holds a NaN or an infinity.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, or an unknown algorithm or metric.

    Cost: n^2 (d_x + d_y) operations for the distances and about 2 k n^2 for the
    neighbours; memory n * block_size.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> x, noise = np.random.default_rng(0).normal(size=(2, 2000))
      >>> y = 0.9 * x + np.sqrt(1 - 0.9**2) * noise    # I = -log(1 - 0.9^2) / 2 = 0.83
      >>> print(f"{optax_mi.ksg(x, y):.2f}")
      0.84

    References:
      Kraskov et al., `Estimating mutual information
      <https://doi.org/10.1103/PhysRevE.69.066138>`_, 2004, equations (8) and (9);
      Gao et al., `Estimating mutual information for discrete-continuous mixtures
      <https://arxiv.org/abs/1709.06212>`_, 2017, algorithm 1.
    """
    x, y = _checks.points("x", x), _checks.points("y", y)
    n = _checks.same_length([("x", x), ("y", y)])
    _checks.neighbours(k, n)
    _checks.one_of("algorithm", algorithm, (1, 2))
    _neighbours.check_options(metric, block_size)
    return _ksg(x, y, k=k, algorithm=algorithm, metric=metric, block_size=block_size)


class Counts(NamedTuple):
    """Points that one point, or each of n, finds near itself. The point not counted."""

    joint: jax.Array  # k, or more where more are tied at the k-th neighbour
    x: jax.Array  # n_x
    y: jax.Array  # n_y
    coincident: jax.Array  # whether the k-th neighbour is at distance zero


@partial(jax.jit, static_argnames=("k", "algorithm", "metric", "block_size"))
def _ksg(x, y, *, k, algorithm, metric, block_size):
    x, y = jax.lax.stop_gradient((x, y))
    counts = neighbour_counts(
        x, y, k=k, algorithm=algorithm, metric=metric, block_size=block_size
    )
    mi = _mutual_information(counts, algorithm, jnp.result_type(x, y))
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    return jnp.where(finite, mi, jnp.nan)


def neighbour_counts(
    x: jax.Array,
    y: jax.Array,
    *,
    k: int,
    algorithm: int,
    metric: Metric,
    block_size: int | None,
) -> Counts:
    """Counts each point's neighbours in X, in Y and in both."""
    x, y = _neighbours.rescale(x), _neighbours.rescale(y)
    x_unit, y_unit = _inverse_spread(x, metric), _inverse_spread(y, metric)
    x_features, y_features = x.T, y.T
    index = jnp.arange(len(x))

    def count(row: Any) -> Counts:
        i, x_i, y_i = row
        # Scaling the distances rather than the data keeps tied distances tied.
        x_distance = _neighbours.distances(x_i, x_features, metric) * x_unit
        y_distance = _neighbours.distances(y_i, y_features, metric) * y_unit
        joint = jnp.maximum(x_distance, y_distance)
        other = index != i
        radius = _neighbours.kth_smallest(joint, other, k, max_k=k)
        neighbour = other & (joint <= radius)
        coincident = radius == 0
        if algorithm == 1:
            n_joint = jnp.where(coincident, jnp.sum(neighbour), k)
            near_x = jnp.where(coincident, x_distance <= 0, x_distance < radius)
            near_y = jnp.where(coincident, y_distance <= 0, y_distance < radius)
        else:
            n_joint = jnp.sum(neighbour)
            near_x = x_distance <= jnp.max(x_distance, where=neighbour, initial=0)
            near_y = y_distance <= jnp.max(y_distance, where=neighbour, initial=0)
        return Counts(
            joint=n_joint,
            x=jnp.sum(other & near_x),
            y=jnp.sum(other & near_y),
            coincident=coincident,
        )

    return _neighbours.map_points(count, (index, x, y), block_size)


def _inverse_spread(x: jax.Array, metric: Metric) -> jax.Array:
    """1 / root mean square distance from the mean, squared where distances are."""
    distance = _neighbours.distances(jnp.mean(x, axis=0), x.T, metric)
    squared = metric == "euclidean"
    spread = jnp.mean(distance) if squared else jnp.sqrt(jnp.mean(distance**2))
    return jnp.where(spread > 0, 1 / spread, 1)


def _mutual_information(counts: Counts, algorithm: int, dtype: Any) -> jax.Array:
    n = len(counts.joint)
    joint, n_x, n_y = (c.astype(dtype) for c in counts[:3])
    if algorithm == 1:
        terms = digamma(joint) - digamma(n_x + 1) - digamma(n_y + 1)  # eq. (8)
    else:
        terms = digamma(joint) - 1 / joint - digamma(n_x) - digamma(n_y)  # eq. (9)
    # Gao et al. (2017): a point among coincident ones, itself counted in all three.
    discrete = digamma(joint + 1) - digamma(n_x + 1) - digamma(n_y + 1)
    terms = jnp.where(counts.coincident, discrete, terms)
    return digamma(jnp.asarray(n, dtype)) + jnp.mean(terms)
