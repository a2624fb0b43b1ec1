"""Mutual information between two continuous variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, ArrayLike, Float

from optax_mi import _checks
from optax_mi._estimators import _joint
from optax_mi._estimators._neighbours import collectives
from optax_mi._estimators._neighbours.query import Edge, Found
from optax_mi._estimators._neighbours.sharding import over_points
from optax_mi._estimators._neighbours.ties import mean_digamma
from optax_mi._estimators._psi import digamma
from optax_mi._types import AxisName, Metric, Numeric, Scaling


def ksg(
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    *,
    k: int | Sequence[int] = 3,
    algorithm: Literal[1, 2] = 1,
    metric: Metric = "chebyshev",
    scaling: Scaling = "feature",
    margins: Literal["raw", "gaussian"] = "raw",
    local: bool = False,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*n"]:
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

    If one variable, or one feature, has a much larger scale than the others, it alone
    decides the joint distance. Mutual information does not depend on scales. So each
    feature is first divided by its standard deviation (`scaling`), as in the authors'
    own program. In the two norms that grow with the number of features, Euclidean and
    Manhattan, each variable is then divided by the root mean square distance from its
    mean.

    Points at tied distances (rounded, rectified or repeated values) are taken in random
    order, and the expectation over that order is computed in closed form, as in
    `ksg_discrete`. Let :math:`a` points of the joint space be closer than :math:`\rho`
    and :math:`T` at :math:`\rho`, and within X :math:`m_x` and :math:`T_x`. Algorithm 1
    then has

    .. math:: \psi(n_x + 1) \to \mathbb{E}\,\psi(m_x + p), \quad
        p = \text{rank of the } (k - a)\text{-th of } T \text{ among } T_x

    where :math:`T_x > 0`, and likewise within Y. Without ties that is equation (8);
    where :math:`\rho = 0` it is the rule of Gao et al. (2017) for discrete variables.
    The treatment of ties is this package's own (docs/method.md). Class labels belong in
    `ksg_discrete`, which needs no joint space; one-hot codes give wrong results here.

    The estimate is not clipped: it may be slightly negative for independent variables.
    It has no useful gradient.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d_x features.
        Half-precision and integer values are computed in float32.
      y: Points, shape [n] or [n, ...], likewise d_y features.
      k: Number of neighbours; a small k has less bias and more variance. With several
        k, the mean of their estimates; distances are computed once.
      algorithm: 1 or 2, as in the paper.
      metric: "chebyshev" as in the paper, "euclidean" or "manhattan", the norm within X
        and within Y. `estimate_mi` uses the Euclidean norm, which is less biased for
        layers of many features.
      scaling: "feature" divides each feature by its standard deviation, for columns in
        different units; "variable" divides x and y as a whole, for features that share
        a unit, as a layer's do; "none" leaves both as they are. One enormous value
        makes all others of its feature equal, except with ``margins="gaussian"``.
      margins: "gaussian" first replaces each feature by the Gaussian quantiles of its
        ranks (mean ranks for ties). This is monotone, so it keeps the information, and
        it helps with heavy tails.
      local: Whether to return the term of each point, shape [n], instead of their mean.
        Single terms are noisy and may be negative.
      block_size: Points handled at a time; chosen from n and the backend by default.
        The result does not depend on it.
      axis_name: The mesh axis over which the points are spread, as for `ksg_discrete`.

    Returns:
      A scalar, in nats, or [n] of them. NaN where x or y holds a NaN or an infinity.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, or an unknown algorithm, metric,
        scaling or kind of margins.

    Cost: about n^2 (d_x + d_y + 10) operations. Algorithm 1 needs a small part of that
    for up to five features in all and at least 10,000 to 25,000 points
    (docs/performance.md). Memory n * d and block_size * n at most.

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
    by_feature = scaling == "feature"
    x = _checks.points("x", x, by_feature=by_feature)
    y = _checks.points("y", y, by_feature=by_feature)
    n = _checks.same_length([("x", x), ("y", y)])
    _checks.one_of("algorithm", algorithm, (1, 2))
    _checks.one_of("margins", margins, ("raw", "gaussian"))
    _checks.flag("local", local)
    options = _joint.options(n, k, metric, scaling, block_size, axis_name)
    return _ksg(
        x,
        y,
        algorithm=algorithm,
        margins=margins,
        options=options,
        local=local,
        axis_name=axis_name,
    )


@over_points
def _ksg(
    x: Float[Array, "n d_x"],
    y: Float[Array, "n d_y"],
    *,
    algorithm: Literal[1, 2],
    margins: Literal["raw", "gaussian"],
    options: _joint.Options,
    local: bool,
    axis: AxisName,
) -> Float[Array, "*n"]:
    if margins == "gaussian":
        x, y = gaussian_margins(x, axis), gaussian_margins(y, axis)
    form, edges = (_second, True) if algorithm == 2 else (_first, False)
    mean = _joint.estimate(
        (x, y), ((0,), (1,)), form, options, axis, local=local, edges=edges
    )
    return _joint.digamma_of_number(x, axis) + mean


def gaussian_margins(
    x: Float[Array, "n d"], axis: AxisName = None
) -> Float[Array, "n d"]:
    """Replaces each feature by the Gaussian quantiles of its mean ranks.

    NaN where a value is not finite.
    """

    def feature(values: Float[Array, "n"]) -> Float[Array, "n"]:
        ordered = collectives.varying(
            jnp.sort(collectives.gather(values, axis)), values
        )
        below = jnp.searchsorted(ordered, values, side="left")
        within = jnp.searchsorted(ordered, values, side="right")
        quantiles = ndtri((below + within).astype(values.dtype) / (2 * len(ordered)))
        return jnp.where(jnp.isfinite(values), quantiles, jnp.nan)

    if axis is not None:
        return jax.lax.map(feature, x.T).T  # never all features of all points
    return jax.vmap(feature, in_axes=1, out_axes=1)(x)


# Terms of equation (8): psi(k) - psi(n_x + 1) - psi(n_y + 1).
_first = _joint.signed(-1, -1)


def _second(found: Found, dtype: Any) -> Float[Array, "n"]:
    """Terms of equation (9): psi(k) - 1 / k - psi(n_x) - psi(n_y)."""

    def mean(edge: Edge) -> Float[Array, "n"]:
        closer, tied = (c.astype(dtype) for c in edge.ball)
        neighbours = edge.neighbours.astype(dtype)
        # The farthest neighbour is the last of those at the edge.
        return mean_digamma(closer, neighbours, neighbours, tied)

    k = found.k.astype(dtype)
    terms = digamma(k) - 1 / k - sum(map(mean, found.edges))
    # Which of the points at rho are neighbours decides where the edges are.
    return jnp.where(found.balls[0].tied > 1, _first(found, dtype), terms)
