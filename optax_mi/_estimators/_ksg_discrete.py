"""Mutual information between a continuous variable and class labels."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, polygamma
from jax.typing import ArrayLike

from optax_mi import _checks
from optax_mi._estimators import _gram, _neighbours
from optax_mi._estimators._entropy import class_sizes
from optax_mi._types import Metric


def ksg_discrete(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    k: int = 3,
    metric: Metric = "euclidean",
    block_size: int | None = None,
) -> jax.Array:
    r"""Estimates I(X; C), in nats, between points and the classes they belong to.

    The nearest-neighbour estimator of Ross (2014). For each point, the distance
    :math:`r` to its k-th nearest neighbour of the same class is compared with the
    number of points of any class within :math:`r`:

    .. math::
        I = \psi(N) + \operatorname{mean}_i \left[
            \psi(k_i) - \psi(N_{c(i)}) - \mathbb{E}\,\psi(m_i) \right]

    Distances are only ever compared within X, so the estimate does not depend on the
    scale of X, and labels are never embedded in a space of their own.

    Points at exactly equal distances (saturated outputs, dead units, quantised values,
    repeated rows) are ordered at random, and the expectation over that order is taken
    in closed form, so the result is deterministic and no noise is added. With
    :math:`a, T_s` points of the same class closer than :math:`r` and at :math:`r`,
    :math:`m_0, T` points of any class likewise, and :math:`j = k_i - a`, the k-th
    neighbour has the rank :math:`m_i = m_0 + p`, where :math:`p` is negative
    hypergeometric:

    .. math::
        \mathbb{E}\,p &= \frac{j (T+1)}{T_s+1} \qquad
        \operatorname{Var} p =
            \frac{j (T-T_s)(T+1)(T_s-j+1)}{(T_s+1)^2 (T_s+2)} \\
        \mathbb{E}\,\psi(p) &= \psi(j) + \psi(T+1) - \psi(T_s+1)
            \quad \text{(exact, used where } m_0 = 0) \\
        \mathbb{E}\,\psi(m_0 + p) &\approx \psi(\mu) + \tfrac12 \psi''(\mu)
            \operatorname{Var} p, \quad \mu = m_0 + \mathbb{E}\,p

    Without ties this is Ross's estimator. The treatment of ties is this package's own.

    The raw estimate is returned: it may be slightly negative where X says nothing.
    It has no useful gradient.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d features.
        Half-precision and integer values are computed in float32.
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      k: Number of neighbours. In a class of size at most k it is capped at the size
        less one; a class of one member is left out of the mean (its points still count
        as neighbours of others).
      metric: "euclidean", "manhattan" or "chebyshev", the norm within X.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.

    Returns:
      A scalar, in nats. NaN where x holds a NaN or an infinity, or where no class has
      two members.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, labels that are not integers of
        shape [n], or an unknown metric.

    Cost: n^2 d operations for the distances and about 2 k n^2 for the neighbours;
    memory n * block_size.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> rng = np.random.default_rng(0)
      >>> labels = rng.integers(0, 2, 1000)
      >>> x = rng.normal(size=1000) + 4.0 * labels     # I = 0.63
      >>> print(f"{optax_mi.ksg_discrete(x, labels):.2f} of {np.log(2):.2f} nats")
      0.65 of 0.69 nats

    References:
      Ross, `Mutual information between discrete and continuous data sets
      <https://doi.org/10.1371/journal.pone.0087357>`_, 2014, equation (2).
    """
    x = _checks.points("x", x)
    labels = _checks.class_labels("labels", labels)
    n = _checks.same_length([("x", x), ("labels", labels)])
    _checks.neighbours(k, n)
    _neighbours.check_options(metric, block_size)
    return _ksg_discrete(x, labels, k=k, metric=metric, block_size=block_size)


class Counts(NamedTuple):
    """What one point sees, or all n points. Integers, the point itself excluded."""

    class_size: jax.Array  # N_c, the point itself included
    k: jax.Array  # k capped at N_c - 1
    same_closer: jax.Array  # a: same class, closer than r
    same_tied: jax.Array  # T_s: same class, at r
    any_closer: jax.Array  # m0: any class, closer than r
    any_tied: jax.Array  # T: any class, at r


@partial(jax.jit, static_argnames=("k", "metric", "block_size"))
def _ksg_discrete(x, labels, *, k, metric, block_size):
    x = jax.lax.stop_gradient(x)
    counts = neighbour_counts(x, labels, k=k, metric=metric, block_size=block_size)
    mi = _mutual_information(counts, x.dtype)
    return jnp.where(jnp.all(jnp.isfinite(x)), mi, jnp.nan)


class _Rows(NamedTuple):
    """A block of points."""

    position: jax.Array
    label: jax.Array
    class_size: jax.Array
    k: jax.Array
    x: jax.Array


def neighbour_counts(
    x: jax.Array,
    labels: jax.Array,
    *,
    k: int,
    metric: Metric,
    block_size: int | None,
) -> Counts:
    """Counts, for each point, the neighbours within its k-th of the same class."""
    n = len(x)
    block_size = _neighbours.choose_block_size(n, block_size)
    x = _neighbours.rescale(x)
    size = class_sizes(labels)
    rows = _Rows(jnp.arange(n), labels, size, jnp.minimum(k, size - 1), x)
    columns = _neighbours.as_columns(x)
    column_label = _neighbours.pad_points(labels, 0)

    def flagged(distance: jax.Array, block: _Rows) -> jax.Array:
        """Codes, with the highest bit set where the class is another one."""
        codes = _neighbours.code(distance)
        other_class = block.label[:, None] != column_label[None]
        codes = jnp.where(other_class, codes | _neighbours.highest_bit(codes), codes)
        return _neighbours.without_itself(codes, block.position, n)

    def radius(codes: jax.Array, block: _Rows) -> jax.Array:
        return _neighbours.kth_smallest(lambda c: c, codes, k=block.k, max_k=k)

    def between(codes, low, high, block: _Rows) -> Counts:
        """Counts the points closer than low and those from low to high."""
        low, high = low[:, None], high[:, None]
        mask = ~_neighbours.highest_bit(codes)
        same_closer = _neighbours.count(lambda c: c < low, codes)
        same_within = _neighbours.count(lambda c: c <= high, codes)
        any_closer = _neighbours.count(lambda c: (c & mask) < low, codes)
        any_within = _neighbours.count(lambda c: (c & mask) <= high, codes)
        alone = block.k == 0
        return Counts(
            block.class_size,
            block.k,
            same_closer=jnp.where(alone, 0, same_closer),
            same_tied=jnp.where(alone, 0, same_within - same_closer),
            any_closer=jnp.where(alone, 0, any_closer),
            any_tied=jnp.where(alone, 0, any_within - any_closer),
        )

    def exact(block: _Rows) -> Counts:
        codes = flagged(_neighbours.distances(block.x, columns, metric), block)
        r = radius(codes, block)
        return between(codes, r, r, block)

    if metric != "euclidean" or x.shape[1] < _gram.MIN_FEATURES:
        return _neighbours.map_blocks(exact, rows, block_size)

    gram_rows, gram_columns = _gram.prepare(x)

    def approximate(block: tuple[_Rows, _gram.Points]) -> tuple[Counts, jax.Array]:
        points, gram = block
        codes = flagged(_gram.squared_distances(gram, gram_columns), points)
        r = _neighbours.decode(radius(codes, points))
        margin = 2 * _gram.error(gram, r)
        low = _neighbours.code(jnp.maximum(r - margin, 0))
        high = _neighbours.code(r + margin)
        counts = between(codes, low, high, points)
        return counts, (counts.same_tied > 1) | (counts.any_tied > 1)

    counts, doubtful = _neighbours.map_blocks(
        approximate, (rows, gram_rows), block_size
    )
    return _gram.recheck(exact, counts, doubtful, rows, block_size)


def _mutual_information(counts: Counts, dtype: Any) -> jax.Array:
    counted = counts.k > 0
    n = len(counts.k)
    # A class of one member has no radius; ones keep its unused terms finite.
    size, k_i, a, t_same, m0, t_any = (
        jnp.where(counted, c, 1).astype(dtype) for c in counts
    )
    terms = digamma(k_i) - digamma(size) - _mean_digamma(m0, k_i - a, t_same, t_any)
    return digamma(jnp.asarray(n, dtype)) + jnp.mean(terms, where=counted)


def _mean_digamma(m0, j, t_same, t_any):
    """E psi(m0 + p), p the rank of the j-th of t_same among t_any in random order."""
    exact = digamma(j) + digamma(t_any + 1) - digamma(t_same + 1)
    mean = j * (t_any + 1) / (t_same + 1)
    variance = mean * (t_any - t_same) * (t_same - j + 1)
    variance = variance / ((t_same + 1) * (t_same + 2))
    mu = m0 + mean
    expansion = digamma(mu) + polygamma(2, mu) * variance / 2
    return jnp.where(m0 == 0, exact, expansion)
