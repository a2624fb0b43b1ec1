"""Mutual information between a continuous variable and class labels."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array, ArrayLike, Float, Int, Integer

from optax_mi import _checks
from optax_mi._estimators import _joint, _scaling
from optax_mi._estimators._neighbours import classes, collectives, distances
from optax_mi._estimators._neighbours.sharding import number_of_points, over_points
from optax_mi._types import AxisName, Discrete, Metric, Numeric, Scaling


def ksg_discrete(
    x: Numeric[ArrayLike, "n ..."],
    labels: Discrete[ArrayLike, "n"],
    *,
    k: int | Sequence[int] = 3,
    metric: Metric = "euclidean",
    scaling: Scaling = "feature",
    local: bool = False,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*n"]:
    r"""Estimates I(X; C), in nats, between points and the classes they belong to.

    The nearest-neighbour estimator of Ross (2014). For each point, the distance
    :math:`r` to its k-th nearest neighbour of the same class is compared with the
    number of points of any class within :math:`r`:

    .. math::
        I = \psi(N) + \operatorname{mean}_i \left[
            \psi(k_i) - \psi(N_{c(i)}) - \mathbb{E}\,\psi(m_i) \right]

    Distances are only ever compared within X, so the estimate does not depend on the
    scale of X, and labels are never embedded in a space of their own. By default each
    feature is first divided by its standard deviation (`scaling`), so that its unit
    does not matter either.

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
        as neighbours of others), and `usable_points` says how many points remain. Of
        several k, the mean of their estimates is returned; the distances are taken
        once.
      metric: "euclidean", "manhattan" or "chebyshev", the norm within X. By default as
        in `estimate_mi`; in the maximum norm layers of many features tell less.
      scaling: "feature" divides each feature by its standard deviation, for columns in
        different units. "variable" and "none", here the same, do not: for features
        that share a unit, as a layer's do.
      local: Whether to return each point's term, shape [n], whose mean is the estimate:
        which points tell and which mislead. A single term means little by itself; it
        may be negative, and that of a point alone in its class is NaN.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.
      axis_name: The mesh axis, or several, over which the points are spread: one of
        `jax.shard_map`, where the arrays are a device's own, or of the mesh in force
        (`jax.set_mesh`). By default arrays are asked for their sharding, which under
        `jit` they know of explicit axes alone.

    Returns:
      A scalar, in nats, or [n] of them. NaN where x holds a NaN or an infinity, or
      where no class has two members.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, labels that are not integers of
        shape [n], or an unknown metric or scaling.

    Cost: about n^2 (d + 10) operations; memory n * d and block_size * n at most. One
    feature is sorted, n log n; of many points in up to five features most pairs are not
    looked at (docs/performance.md).

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
    x = _checks.points("x", x, by_feature=scaling == "feature")
    labels = _checks.class_labels("labels", labels)
    n = _checks.same_length([("x", x), ("labels", labels)])
    ks = _checks.several_neighbours(k, number_of_points(n, axis_name))
    distances.check_options(metric, block_size)
    _scaling.check(scaling)
    _checks.flag("local", local)
    return _ksg_discrete(
        x,
        labels,
        ks=ks,
        metric=metric,
        scaling=scaling,
        local=local,
        block_size=block_size,
        axis_name=axis_name,
    )


def usable_points(
    labels: Discrete[ArrayLike, "n"], *, axis_name: AxisName = None
) -> Int[Array, ""]:
    """The number of points that `ksg_discrete` averages over.

    They are those whose class has another member; of a language model's tokens many
    have none in a sample. That classes are small does not bias the estimate as long as
    it is well below what the outcomes say about themselves, ``ksg_discrete(labels,
    labels)``, the mean of psi(n) - psi(N_c) over these points: it cannot exceed that.

    Args:
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      axis_name: The mesh axis over which they are spread, as for `ksg_discrete`.

    Returns:
      An integer scalar, from 0 to n.

    Raises:
      ValueError: If labels are not integers of shape [n] with n >= 1.

    Cost: n log n.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> tokens = np.random.default_rng(0).zipf(1.5, size=1000)
      >>> int(optax_mi.usable_points(tokens)), len(set(tokens.tolist()))
      (916, 140)
    """
    labels = _checks.class_labels("labels", labels)
    return _usable_points(labels, axis_name=axis_name)


@over_points
def _usable_points(labels: Integer[Array, "n"], *, axis: AxisName) -> Int[Array, ""]:
    return collectives.total(jnp.sum(classes.sizes(labels, axis) > 1), axis)


@over_points
def _ksg_discrete(
    x: Float[Array, "n d"],
    labels: Integer[Array, "n"],
    *,
    ks: Sequence[int],
    metric: Metric,
    scaling: Scaling,
    local: bool,
    block_size: int | None,
    axis: AxisName,
) -> Float[Array, "*n"]:
    x = jax.lax.stop_gradient(x)
    found = _joint.search(
        (x, labels),
        ((0,), (1,)),
        ks=ks,
        metric=metric,
        scaling=scaling,
        block_size=block_size,
        axis=axis,
    )
    # psi(k_i) - psi(m_i) - psi(N_c): a class is a variable whose points coincide.
    terms, used = _joint.terms(found, (-1, -1), x.dtype)
    n = jnp.asarray(len(x) * collectives.size(axis), x.dtype)
    mi = digamma(n) + collectives.mean_or_each(terms, axis, local, where=used)
    return jnp.where(collectives.all_finite(x, axis), mi, jnp.nan)
