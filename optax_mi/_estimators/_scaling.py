"""The units that distances within a variable are measured in.

A joint distance of variables of very different scales sees the larger one alone, and
so does a distance within a variable whose features have different units. Mutual
information depends on neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from optax_mi import _checks
from optax_mi._estimators._neighbours import collectives, distances
from optax_mi._estimators._neighbours.once import once
from optax_mi._types import AxisName, Metric, Scaling

SCALINGS: tuple[Scaling, ...] = ("feature", "variable", "none")

# Units of variables of equal scale differ by this much, so that the distances of one
# are never tied with those of another one.
_APART = 2.0**-20


def check(scaling: Scaling) -> None:
    """Checks the option that estimators take."""
    _checks.one_of("scaling", scaling, SCALINGS)


def in_units(
    variables: Sequence[Float[Array, "n _d"]],
    scaling: Scaling,
    metric: Metric,
    axis: AxisName = None,
) -> tuple[list[Float[Array, "n _d"]], list[Float[Array, ""] | float]]:
    """Points of each variable, and what its distances are multiplied by.

    Args:
      variables: Points of each variable.
      scaling: "variable" divides distances by the variable's scale. "feature" first
        divides each feature by its own, and then that is all where the distance is that
        of one feature, as in the maximum norm. "none" leaves all units as they are.
      metric: The norm within a variable. Euclidean distances are squared, and so is
        their unit.
      axis: That of the devices over which the points are spread.
    """
    if not variables:
        return [], []
    if len(variables) == 1:  # one unit is as good as another
        by = scaling == "feature" and variables[0].shape[1] > 1
        x = by_feature(variables[0], axis) if by else variables[0]
        return [distances.rescale(x, axis)], [1.0]
    if scaling == "none":
        exponents = [distances.scale_exponent(v, axis) for v in variables]
        common = jnp.min(jnp.stack(exponents))
        variables = [distances.times_power_of_two(v, common) for v in variables]
        units = [jnp.ones((), v.dtype) for v in variables]
    else:
        pairs = [_in_unit(v, scaling, metric, axis) for v in variables]
        variables, units = (list(each) for each in zip(*pairs, strict=True))
    return list(variables), [unit * (1 + i * _APART) for i, unit in enumerate(units)]


def _in_unit(
    x: Float[Array, "n d"], scaling: Scaling, metric: Metric, axis: AxisName
) -> tuple[Float[Array, "n d"], Float[Array, ""]]:
    # Of a single feature the distances are scaled, which keeps tied ones tied.
    several = x.shape[1] > 1
    if scaling == "feature" and several:
        x = by_feature(x, axis)
        if metric == "chebyshev":
            return x, jnp.ones((), x.dtype)
    x = distances.rescale(x, axis)
    return x, _unit(x, metric, axis)


def by_feature(x: Float[Array, "n d"], axis: AxisName = None) -> Float[Array, "n d"]:
    """Divides each feature by its standard deviation, a constant one by nothing.

    The factors are rounded to two thirds of the digits that a float has. So values
    within 256 steps of a grid, as grades, pixels and years, are multiplied exactly and
    stay on a grid: tied distances stay tied.
    """

    def mean(values: Float[Array, "n d"]) -> Float[Array, "1 d"]:
        return collectives.mean(values, axis)[None]

    largest = collectives.largest(jnp.max(x, axis=0), axis)[None]
    smallest = -collectives.largest(jnp.max(-x, axis=0), axis)[None]
    _, exponent = jnp.frexp(jnp.maximum(largest, -smallest))
    # So that squares are finite.
    first, second = distances.powers_of_two(-exponent, x.dtype)
    low, high = (end * first * second for end in (smallest, largest))
    # Not again for each number of a feature, which would take 15 ns.
    first, second, constant = once(tuple, (first, second, _constant(low, high)))
    x = x * first * second - constant
    from_mean = x - mean(x)
    # A mean of large numbers is rounded, by the same for all of them.
    from_mean -= mean(from_mean)
    deviation = jnp.sqrt(mean(from_mean**2))
    varies = (largest > smallest) & (deviation > 0)
    return x * once(jnp.asarray, jnp.where(varies, _rounded(1 / deviation), 1))


def _constant(low: Float[Array, "1 d"], high: Float[Array, "1 d"]) -> Any:
    """What is subtracted without any rounding, a multiple of the range; mostly 0."""
    _, exponent = jnp.frexp(high - low)
    step = distances.times_power_of_two(jnp.ones_like(low), exponent)
    constant = jnp.rint((low + high) / 2 / step) * step
    sizes = jnp.abs(jnp.concatenate([low, high]))
    # Differences of numbers that are within a factor of two are exact (Sterbenz).
    near = (2 * sizes >= jnp.abs(constant)) & (sizes <= 2 * jnp.abs(constant))
    exact = near.all(axis=0)[None] & (jnp.sign(low) == jnp.sign(high)) & (high > low)
    return jnp.where(exact, constant, 0)


def _rounded(factor: Float[Array, "1 d"]) -> Float[Array, "1 d"]:
    digits = 2 * (jnp.finfo(factor.dtype).nmant + 1) // 3
    mantissa, exponent = jnp.frexp(factor)
    whole = jnp.rint(mantissa * 2.0**digits)
    return distances.times_power_of_two(whole, exponent - digits)


def _unit(x: Float[Array, "n d"], metric: Metric, axis: AxisName) -> Float[Array, ""]:
    """1 / root mean square distance from the mean, squared where distances are."""
    mean = collectives.mean(x, axis)[None]
    distance = distances.distances(mean, x.T, metric)[0]
    if metric == "euclidean":
        scale = collectives.mean(distance, axis)
    else:
        scale = jnp.sqrt(collectives.mean(distance**2, axis))
    return jnp.where(scale > 0, 1 / scale, 1)
