"""Tied distances: the mean over their random order."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from optax_mi._estimators._psi import digamma, second_derivative


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
    of_j, of_tied, of_subset, of_mu = digamma(
        jnp.stack(jnp.broadcast_arrays(j, tied + 1, subset + 1, mu))
    )
    exact = of_j + (of_tied - of_subset)
    expansion = of_mu + second_derivative(mu) * variance / 2
    return jnp.where(closer == 0, exact, expansion)
