"""Mutual information between a continuous variable and class labels."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer

from optax_mi import _checks
from optax_mi._estimators import _joint
from optax_mi._estimators._neighbours import classes, collectives
from optax_mi._estimators._neighbours.sharding import over_points
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

    Distances are compared within X only. So the estimate does not depend on the scale
    of X, and labels are not embedded in a space of their own. By default each feature
    is first divided by its standard deviation (`scaling`), so that units do not matter.

    Distances may be tied (saturated outputs, dead units, quantised values, repeated
    rows). Tied points are then taken in random order, and the expectation over that
    order is computed in closed form: the result is deterministic, and no noise is
    added. Let :math:`a` points of the same class be closer than :math:`r` and
    :math:`T_s` at :math:`r`, and :math:`m_0` and :math:`T` points of any class. With
    :math:`j = k_i - a`, the k-th neighbour has the rank :math:`m_i = m_0 + p`, where
    :math:`p` is negative hypergeometric:

    .. math::
        \mathbb{E}\,p &= \frac{j (T+1)}{T_s+1} \qquad
        \operatorname{Var} p =
            \frac{j (T-T_s)(T+1)(T_s-j+1)}{(T_s+1)^2 (T_s+2)} \\
        \mathbb{E}\,\psi(p) &= \psi(j) + \psi(T+1) - \psi(T_s+1)
            \quad \text{(exact, used where } m_0 = 0) \\
        \mathbb{E}\,\psi(m_0 + p) &\approx \psi(\mu) + \tfrac12 \psi''(\mu)
            \operatorname{Var} p, \quad \mu = m_0 + \mathbb{E}\,p

    Without ties this is Ross's estimator. The treatment of ties is this package's own.

    The estimate is not clipped: it may be slightly negative if X and C are independent.
    It has no useful gradient.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d features.
        Half-precision and integer values are computed in float32.
      labels: Integer classes, shape [n]. Any integers; only equality matters.
      k: Number of neighbours. A class of at most k points uses its size less one. A
        class of one point is left out of the mean, though the point still counts as a
        neighbour of others; `usable_points` says how many points remain. With several
        k, the mean of their estimates; distances are computed once.
      metric: "euclidean", "manhattan" or "chebyshev", the norm within X. The maximum
        norm is biased more in layers of many features.
      scaling: "feature" divides each feature by its standard deviation, for columns in
        different units. "variable" and "none", here the same, do not: for features
        that share a unit, as a layer's do.
      local: Whether to return the term of each point, shape [n], instead of their mean.
        Single terms are noisy and may be negative; NaN for a point alone in its class.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.
      axis_name: The mesh axis, or several, over which the points are spread: an axis
        of `jax.shard_map`, where the arrays are this device's own, or of the mesh set
        by `jax.set_mesh`. By default it is read from the arrays' sharding; under `jit`
        that works for explicit mesh axes only.

    Returns:
      A scalar, in nats, or [n] of them. NaN where x holds a NaN or an infinity, or
      where no class has two members.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, labels that are not integers of
        shape [n], or an unknown metric or scaling.

    Cost: about n^2 (d + 10) operations; memory n * d and block_size * n at most. One
    feature is sorted, n log n; many points in up to five features need a small part of
    all pairs (docs/performance.md).

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
    _checks.flag("local", local)
    options = _joint.options(n, k, metric, scaling, block_size, axis_name)
    return _ksg_discrete(x, labels, options=options, local=local, axis_name=axis_name)


def usable_points(
    labels: Discrete[ArrayLike, "n"], *, axis_name: AxisName = None
) -> Int[Array, ""]:
    """The number of points that `ksg_discrete` averages over.

    A point is usable if its class has another member; many tokens of a language model
    have none in a sample. Small classes do not bias the estimate as long as it is well
    below its maximum, ``ksg_discrete(labels, labels)``, the mean of psi(n) - psi(N_c)
    over these points.

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
    options: _joint.Options,
    local: bool,
    axis: AxisName,
) -> Float[Array, "*n"]:
    # psi(k_i) - psi(m_i) - psi(N_c): a class is a variable whose points coincide.
    form = _joint.signed(-1, -1)
    spaces = ((0,), (1,))
    mean = _joint.estimate((x, labels), spaces, form, options, axis, local=local)
    return _joint.digamma_of_number(x, axis) + mean
