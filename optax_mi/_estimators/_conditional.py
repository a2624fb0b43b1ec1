"""Mutual information given a third variable."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from optax_mi import _checks
from optax_mi._estimators import _conditional_classes, _distances, _joint, _scaling
from optax_mi._types import Metric, Numeric, Scaling

_SUBSPACES = ((0, 2), (1, 2), (2,))  # of x, y and z
_ROWS = 32  # handled at a time where there are classes


def conditional_ksg(
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    z: Numeric[ArrayLike, "n ..."],
    *,
    k: int = 3,
    metric: Metric = "chebyshev",
    scaling: Scaling = "feature",
    block_size: int | None = None,
) -> Float[Array, ""]:
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
    first, as in `ksg`. The raw estimate is returned; it may be slightly
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
      k: Number of neighbours.
      metric: "chebyshev", "euclidean" or "manhattan", the norm within each variable.
      scaling: "feature", "variable" or "none", as for `ksg`.
      block_size: Points handled at a time; chosen from n and the backend by default.

    Returns:
      A scalar, in nats. NaN where a variable holds a NaN or an infinity.

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
      >>> print(f"{optax_mi.conditional_ksg(x, y, z):.1f}")
      0.0

    References:
      Frenzel and Pompe, `Partial mutual information for coupling analysis of
      multivariate time series <https://doi.org/10.1103/PhysRevLett.99.204101>`_, 2007;
      Mesner and Shalizi, `Conditional mutual information estimation for mixed discrete
      and continuous data <https://arxiv.org/abs/1912.03387>`_, 2019.
    """
    variables = tuple(
        _checks.classes_or_points(name, v) for name, v in [("x", x), ("y", y), ("z", z)]
    )
    n = _checks.same_length(zip("xyz", variables, strict=True))
    _checks.neighbours(k, n)
    _distances.check_options(metric, block_size)
    _scaling.check(scaling)
    return _conditional_ksg(
        variables, k=k, metric=metric, scaling=scaling, block_size=block_size
    )


@partial(jax.jit, static_argnames=("k", "metric", "scaling", "block_size"))
def _conditional_ksg(
    variables: tuple[Num[Array, "n *_d"], ...],
    *,
    k: int,
    metric: Metric,
    scaling: Scaling,
    block_size: int | None,
) -> Float[Array, ""]:
    variables = jax.lax.stop_gradient(variables)
    numbers = [v for v in variables if v.ndim > 1]
    finite = jnp.all(jnp.stack([jnp.array(True), *map(_all_finite, numbers)]))
    if len(numbers) < len(variables):
        means, used = _conditional_classes.mean_digammas(
            variables,
            _SUBSPACES,
            k=k,
            metric=metric,
            scaling=scaling,
            block_size=block_size or _ROWS,
        )
        return jnp.where(finite, jnp.mean(_terms(means), where=used), jnp.nan)
    (counts,) = _joint.joint_counts(
        variables,
        _SUBSPACES,
        ks=(k,),
        metric=metric,
        scaling=scaling,
        block_size=block_size,
    )
    dtype = jnp.result_type(*variables)
    terms = _terms(_joint.mean_digammas(counts, k, dtype))
    return jnp.where(finite, jnp.mean(terms), jnp.nan)


def _all_finite(x: Float[Array, "n d"]) -> Bool[Array, ""]:
    return jnp.all(jnp.isfinite(x))


def _terms(means: list[Float[Array, "n"]]) -> Float[Array, "n"]:
    joint, near_xz, near_yz, near_z = means
    return joint - near_xz - near_yz + near_z
