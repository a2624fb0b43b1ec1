"""Mutual information given a third variable."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Array, ArrayLike, Float, Num

from optax_mi import _checks
from optax_mi._estimators import _joint
from optax_mi._estimators._neighbours.sharding import over_points
from optax_mi._types import AxisName, Metric, Numeric, Scaling

_SUBSPACES = ((0, 2), (1, 2), (2,))  # of x, y and z
_SIGNS = (-1, -1, 1)  # of their terms


def ksg_conditional(
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    z: Numeric[ArrayLike, "n ..."],
    *,
    k: int | Sequence[int] = 3,
    metric: Metric = "chebyshev",
    scaling: Scaling = "feature",
    local: bool = False,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> Float[Array, "*n"]:
    r"""Estimates I(X; Y | Z), in nats: the information X has about Y if Z is known.

    The estimator of Frenzel and Pompe (2007). With :math:`\rho` the distance of a point
    to its k-th neighbour in the space of all three (the largest of the distances within
    X, Y and Z) and the numbers of points closer than that in the subspaces:

    .. math:: I = \psi(k) - \langle \psi(n_{xz} + 1) + \psi(n_{yz} + 1)
        - \psi(n_z + 1) \rangle

    Where more than k points coincide, :math:`\rho = 0`, and the term is the one for
    discrete variables (Mesner and Shalizi 2019), which counts the point itself:
    :math:`\psi(\tilde k) - \psi(n_{xz}) - \psi(n_{yz}) + \psi(n_z)`. Ties and units are
    treated as in `ksg`. The estimate is not clipped; it may be slightly negative.

    Integers of shape [n] are classes, in each of the three. Points of different classes
    are infinitely far from each other (Mesner and Shalizi), so a condition of classes
    gives the mean of `ksg` over the classes. A point that shares all its classes with
    no other one is left out.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened. Or classes,
        integers [n].
      y: Points or classes, likewise.
      z: Points or classes of the variable that is known, likewise.
      k: Number of neighbours, or several, as for `ksg`.
      metric: "chebyshev", "euclidean" or "manhattan", the norm within each variable.
      scaling: "feature", "variable" or "none", as for `ksg`.
      local: Whether to return the term of each point, as for `ksg`. NaN for one that
        is left out.
      block_size: Points handled at a time; chosen from n and the backend by default.
      axis_name: The mesh axis over which the points are spread, as for `ksg_discrete`.

    Returns:
      A scalar, in nats, or [n] of them. NaN where a variable holds a NaN or an
      infinity.

    Raises:
      ValueError: For unequal lengths, k < 1, n <= k, or an unknown metric or scaling.

    Cost: about n^2 (d_x + d_y + d_z + 15) operations; memory as that of `ksg`.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> z, a, b = np.random.default_rng(0).normal(size=(3, 2000))
      >>> x, y = z + 0.5 * a, z + 0.5 * b                   # they share z alone
      >>> print(f"{optax_mi.ksg(x, y):.1f}")
      0.5
      >>> print(f"{optax_mi.ksg_conditional(x, y, z):.1f}")
      0.0

    References:
      Frenzel and Pompe, `Partial mutual information for coupling analysis of
      multivariate time series <https://doi.org/10.1103/PhysRevLett.99.204101>`_, 2007;
      Mesner and Shalizi, `Conditional mutual information estimation for mixed discrete
      and continuous data <https://arxiv.org/abs/1912.03387>`_, 2019.
    """
    variables = tuple(
        _checks.classes_or_points(name, v, by_feature=scaling == "feature")
        for name, v in [("x", x), ("y", y), ("z", z)]
    )
    n = _checks.same_length(zip("xyz", variables, strict=True))
    _checks.flag("local", local)
    options = _joint.options(n, k, metric, scaling, block_size, axis_name)
    return _ksg_conditional(
        *variables, options=options, local=local, axis_name=axis_name
    )


@over_points
def _ksg_conditional(
    *variables: Num[Array, "n *_d"],
    options: _joint.Options,
    local: bool,
    axis: AxisName,
) -> Float[Array, "*n"]:
    form = _joint.signed(*_SIGNS)
    return _joint.estimate(variables, _SUBSPACES, form, options, axis, local=local)
