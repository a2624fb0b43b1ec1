"""Tied distances: the mean over their random order."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

# Above this the first terms of the asymptotic series are exact to 1e-10.
_SHIFT = 6


def mean_digamma(
    closer: Float[Array, "*shape"],
    j: Float[Array, "*shape"],
    subset: Float[Array, "*shape"],
    tied: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    r"""E psi(m), m the rank of a neighbour among points of which some are tied.

    `closer` points are nearer than the neighbour and `tied` are as near, itself among
    them; it is the j-th of a `subset` of the tied ones in random order. So
    m = closer + p, and p is negative hypergeometric. Exact where nothing is closer,

    .. math:: \mathbb{E}\,\psi(p) = \psi(j) + \psi(T + 1) - \psi(T_s + 1),

    and to second order about the mean elsewhere (docs/method.md). Without ties,
    psi(closer + 1).
    """
    mean = j * (tied + 1) / (subset + 1)
    variance = mean * (tied - subset) * (subset - j + 1)
    variance = variance / ((subset + 1) * (subset + 2))
    mu = closer + mean
    # All in one call: each would be compiled by itself.
    of_j, of_tied, of_subset, of_mu = digamma(
        jnp.stack(jnp.broadcast_arrays(j, tied + 1, subset + 1, mu))
    )
    exact = of_j + (of_tied - of_subset)
    return jnp.where(closer == 0, exact, of_mu + _second_derivative(mu) * variance / 2)


def digamma(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """psi(x) for x >= 1: by recurrence from where its asymptotic series is exact.

    Abramowitz and Stegun (1964), equations 6.3.5 and 6.3.18. XLA compiles it in a tenth
    of the time that it needs for the `digamma` of any number.
    """
    y = x + _SHIFT
    square = 1 / (y * y)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square / 240)))
    # The small terms first, so that the logarithm is rounded once.
    return jnp.log(y) - (sum(1 / (x + i) for i in range(_SHIFT)) + 0.5 / y + series)


def _second_derivative(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """That of psi, likewise (equations 6.4.6 and 6.4.14)."""
    y = x + _SHIFT
    square = 1 / (y * y)
    series = square * (1 + square * (1 / 2 - square * (1 / 6 - square / 6)))
    return -series - square / y - 2 * sum((x + i) ** -3 for i in range(_SHIFT))
