"""Mutual information between two discrete variables."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer

from optax_mi import _checks
from optax_mi._estimators._neighbours import classes, collectives
from optax_mi._estimators._neighbours.sharding import over_points
from optax_mi._types import AxisName, Discrete


def plug_in_mi(
    x: Discrete[ArrayLike, "n"],
    y: Discrete[ArrayLike, "n"],
    *,
    miller_madow: bool = False,
    axis_name: AxisName = None,
) -> Float[Array, ""]:
    r"""Estimates I(X; Y), in nats, between two variables of integer classes.

    The plug-in estimate, the information of the empirical distribution:

    .. math:: I = \operatorname{mean}_i \log \frac{n N_{xy(i)}}{N_{x(i)} N_{y(i)}}

    It is biased upwards, more so with more pairs of classes. Miller and Madow's (1955)
    correction of the three entropies removes the first order of the bias, with K the
    numbers of classes and of pairs that occur:

    .. math:: I_{MM} = I + \frac{K_x + K_y - K_{xy} - 1}{2 n}

    Args:
      x: Integer classes, shape [n].
      y: Integer classes, shape [n].
      miller_madow: Whether to correct; the corrected estimate may be negative.
      axis_name: The mesh axis over which they are spread, as for `ksg_discrete`.

    Returns:
      A scalar, in nats.

    Raises:
      ValueError: If lengths differ or classes are not integers of shape [n].

    Cost: n log n.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> x, y = np.random.default_rng(0).integers(0, 10, (2, 500))   # I = 0
      >>> print(f"{optax_mi.plug_in_mi(x, y):.3f}")
      0.069
      >>> print(f"{optax_mi.plug_in_mi(x, y, miller_madow=True):.3f}")
      -0.012

    References:
      Miller, Note on the bias of information estimates, in Information Theory in
      Psychology, 1955.
    """
    x, y = _checks.class_labels("x", x), _checks.class_labels("y", y)
    _checks.same_length([("x", x), ("y", y)])
    plug_in, correction = _plug_in_mi(x, y, axis_name=axis_name)
    return plug_in + correction if miller_madow else plug_in


@over_points
def _plug_in_mi(
    x: Integer[Array, "n"], y: Integer[Array, "n"], *, axis: AxisName
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    x, y = collectives.gather(x, axis), collectives.gather(y, axis)
    n = len(x)
    pair: Any = classes.in_common((x, y))
    n_pair, n_x, n_y = (
        classes.sizes(each).astype(jnp.result_type(float)) for each in (pair, x, y)
    )
    log_pair, log_x, log_y = (jnp.log(m / n) for m in (n_pair, n_x, n_y))
    plug_in = jnp.mean(log_pair - log_x - log_y)
    number = [jnp.sum(1 / m) for m in (n_x, n_y, n_pair)]
    return plug_in, (number[0] + number[1] - number[2] - 1) / (2 * n)
