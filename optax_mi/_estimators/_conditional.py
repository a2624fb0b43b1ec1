"""Mutual information given a third variable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Num

from optax_mi import _checks
from optax_mi._estimators import _joint, _scaling
from optax_mi._estimators._neighbours import collectives, distances
from optax_mi._estimators._neighbours.sharding import number_of_points, over_points
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
    r"""Estimates I(X; Y | Z), in nats: what X says of Y to who knows Z.

    The estimator of Frenzel and Pompe (2007). With :math:`\rho` the distance of a point
    to its k-th neighbour in the space of all three (the largest of the distances within
    X, Y and Z) and the numbers of points closer than that in the subspaces:

    .. math:: I = \psi(k) - \langle \psi(n_{xz} + 1) + \psi(n_{yz} + 1)
        - \psi(n_z + 1) \rangle

    Where more than k points coincide, :math:`\rho = 0` and the term is the one for
    discrete variables (Mesner and Shalizi 2019), with the point itself counted:
    :math:`\psi(\tilde k) - \psi(n_{xz}) - \psi(n_{yz}) + \psi(n_z)`. Ties at a positive
    distance are averaged over their random order, and features are brought to one unit
    first (`scaling`), as in `ksg`. The raw estimate is returned; it may be slightly
    negative.

    Integers of shape [n] are classes, in each of the three. Points of different classes
    are infinitely far from each other (Mesner and Shalizi), so that a condition of
    classes gives the mean of `ksg` over the classes. A point is left out where no other
    one shares all its classes.

    Args:
      x: Points, shape [n] or [n, ...]; trailing axes are flattened. Or classes,
        integers [n].
      y: Points or classes, likewise.
      z: Points or classes of the variable that is known, likewise.
      k: Number of neighbours. Of several, the mean of their estimates is returned; the
        distances are taken once.
      metric: "chebyshev", "euclidean" or "manhattan", the norm within each variable.
      scaling: "feature", "variable" or "none", as for `ksg`.
      local: Whether to return each point's term, shape [n], whose mean is the estimate:
        which points tell and which mislead. A single term means little by itself; it
        may be negative, and that of a point left out is NaN.
      block_size: Points handled at a time; chosen from n and the backend by default.
      axis_name: The mesh axis, or several, over which the points are spread: one of
        `jax.shard_map`, where the arrays are a device's own, or of the mesh in force
        (`jax.set_mesh`). By default arrays are asked for their sharding, which under
        `jit` they know of explicit axes alone.

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
    ks = _checks.several_neighbours(k, number_of_points(n, axis_name))
    distances.check_options(metric, block_size)
    _scaling.check(scaling)
    _checks.flag("local", local)
    return _ksg_conditional(
        *variables,
        ks=ks,
        metric=metric,
        scaling=scaling,
        local=local,
        block_size=block_size,
        axis_name=axis_name,
    )


@over_points
def _ksg_conditional(
    *variables: Num[Array, "n *_d"],
    ks: Sequence[int],
    metric: Metric,
    scaling: Scaling,
    local: bool,
    block_size: int | None,
    axis: AxisName,
) -> Float[Array, "*n"]:
    variables = jax.lax.stop_gradient(variables)
    found = _joint.search(
        variables,
        _SUBSPACES,
        ks=ks,
        metric=metric,
        scaling=scaling,
        block_size=block_size,
        axis=axis,
    )
    numbers = [v for v in variables if v.ndim > 1]
    terms, used = _joint.terms(found, _SIGNS, jnp.result_type(float, *numbers))
    mi = collectives.mean_or_each(terms, axis, local, where=used)
    finite = [collectives.all_finite(v, axis) for v in numbers]
    return jnp.where(reduce(jnp.logical_and, finite, True), mi, jnp.nan)
