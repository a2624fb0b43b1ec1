"""The uncertainty of an estimate: its standard error and its p-value."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, Shaped

from optax_mi import _checks
from optax_mi._estimators import _scaling
from optax_mi._measure import estimate_mi
from optax_mi._types import Estimator, Numeric, Scaling

# Random halvings of the sample: their choice moves the standard error by about 13 %.
_PARTITIONS = 30

# The least number of samples whose halves give a usable estimate.
FEWEST = 50


class MIInterval(NamedTuple):
    """An estimate in nats, with its uncertainty."""

    mi: Float[Array, ""]  #: the estimate from the whole sample
    standard_error: Float[Array, ""]  #: of that estimate
    p_value: Float[Array, ""]  #: of independence; NaN where there are no permutations


def mi_with_error(
    key: PRNGKeyArray,
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    *,
    estimator: Estimator | None = None,
    scaling: Scaling | None = None,
    permutations: int = 100,
    blocks: int = 1,
) -> MIInterval:
    r"""Estimates I(X; Y), in nats, with a standard error and a p-value.

    The variance of nearest-neighbour estimates falls as 1/n (Holmes and Nemenman), so
    that of the whole sample follows from parts of it. Here the sample is cut at random
    into halves, 30 times; halves keep most members of a class together:

    .. math:: \operatorname{SE}^2 = \frac{1}{2} \operatorname{mean}_{partitions}
        \operatorname{var}(I_{half}, I_{other\ half})

    The standard error is the spread over samples of this size. It does not include the
    bias: in high dimension an estimate can be far too low with a small error. If a
    layer separates classes of equal size perfectly, the variance falls faster, and the
    standard error is about 1.5 times too large.

    The p-value tests independence. X is paired with Y at random, and the p-value is the
    share, among the estimate and those of the random pairings, that is at least as
    large as the estimate. It is never below 1 / (1 + permutations).

    Both assume exchangeable rows, as those of a random sample are. Rows of a time
    series are not: for two independent series that change slowly the p-value is far too
    small. Then give `blocks`, longer than the series' memory, and whole blocks of rows
    are paired and cut at random.

    Args:
      key: A JAX random key.
      x: Inputs, shape [n, ...], or a layer's activations.
      y: True outcomes, shape [n] classes or [n, ...] real numbers.
      estimator: As for `estimate_mi`, with the same default.
      scaling: "feature" (the default), "variable" or "none", as for `ksg`. "variable"
        is what `estimate_mi` does with layers. With an estimator: bind it there.
      permutations: Random pairings; 0 for no p-value.
      blocks: Number of consecutive rows that stay together, for time series.

    Returns:
      MIInterval(mi, standard_error, p_value). NaN if an estimate behind it is NaN, for
      example that of a half without two members of any class.

    Raises:
      ValueError: If lengths differ, there are fewer than 50 samples, permutations is no
        integer or negative, there are fewer than four blocks, y holds one-hot codes, or
        the estimator refuses half of the samples, for example with more neighbours than
        there are.

    Cost: that of 16 + permutations estimates.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> rng = np.random.default_rng(0)
      >>> labels = rng.integers(0, 2, 1000)
      >>> x = rng.normal(size=1000) + 2.0 * labels      # I = 0.34
      >>> found = optax_mi.mi_with_error(jax.random.key(0), x, labels)
      >>> print(f"{found.mi:.2f} +- {found.standard_error:.2f}, p {found.p_value:.2f}")
      0.38 +- 0.02, p 0.01

    References:
      After Holmes and Nemenman, `Estimation of mutual information for real-valued data
      with error bars and controlled bias
      <https://doi.org/10.1103/PhysRevE.100.022404>`_, 2019, who use parts of several
      sizes; Phipson and Smyth, `Permutation p-values should never be zero
      <https://doi.org/10.2202/1544-6115.1585>`_, 2010.
    """
    # An estimator is given numbers whose units are as they came.
    by_feature = estimator is None and scaling in (None, "feature")
    x = _checks.points("x", x, by_feature=by_feature)
    y = _checks.outcomes("y", y, by_feature=by_feature)
    n = _checks.same_length([("x", x), ("y", y)])
    if n < FEWEST:
        _checks.fail("x", f"of at least {FEWEST} samples", n)
    if isinstance(permutations, bool) or permutations != 0:
        _checks.positive_integer("permutations", permutations)
    _checks.positive_integer("blocks", blocks)
    if 4 * blocks > n:
        _checks.fail("blocks", f"at most a quarter of the {n} samples", blocks)
    if estimator is None:
        scaling = "feature" if scaling is None else scaling
        _scaling.check(scaling)
    for_halves, for_pairs = jax.random.split(key)
    return _interval(
        x,
        y,
        jax.random.split(for_halves, _PARTITIONS),
        jax.random.split(for_pairs, int(permutations)),
        blocks=int(blocks),
        estimator=estimator,
        scaling=scaling,
    )


def _in_blocks(key: PRNGKeyArray, n: int, blocks: int) -> Int[Array, "n"]:
    """A random order in which `blocks` consecutive rows stay together."""
    order = jax.random.permutation(key, -(-n // blocks))
    return jnp.argsort(order[jnp.arange(n) // blocks], stable=True)


@partial(jax.jit, static_argnames=("estimator", "scaling", "blocks"))
def _interval(
    x: Float[Array, "n d"],
    y: Numeric[Array, "n ..."],
    for_halves: Shaped[Array, "partitions ..."],
    for_pairs: Shaped[Array, "permutations ..."],
    *,
    blocks: int,
    estimator: Estimator | None,
    scaling: Scaling | None,
) -> MIInterval:
    n = len(x)

    def estimate(
        x: Float[Array, "m d"], y: Numeric[Array, "m ..."]
    ) -> Float[Array, ""]:
        return estimate_mi({"x": x}, y, estimator=estimator, scaling=scaling)["x"]

    def variance_of_halves(key: PRNGKeyArray) -> Float[Array, ""]:
        half = n // 2
        halves = _in_blocks(key, n, blocks)[: 2 * half].reshape(2, half)
        return jnp.var(jax.lax.map(lambda i: estimate(x[i], y[i]), halves), ddof=1)

    variance = jnp.mean(jax.lax.map(variance_of_halves, for_halves)) / 2
    # The estimate is that of the first pairing, the true one: one body for all of them.
    pairings = jax.vmap(lambda key: _in_blocks(key, n, blocks))(for_pairs)
    pairings = jnp.concatenate([jnp.arange(n)[None], pairings])
    estimates = jax.lax.map(lambda order: estimate(x, y[order]), pairings)
    mi = estimates[0]
    if not len(for_pairs):
        return MIInterval(mi, jnp.sqrt(variance), jnp.full_like(mi, jnp.nan))
    others = estimates[1:]
    # The same sum in another order is as large, but for its rounding.
    reached = others >= mi - 1e-5 * jnp.maximum(1, jnp.abs(mi))
    p_value = ((1 + jnp.sum(reached)) / (1 + len(for_pairs))).astype(mi.dtype)
    known = jnp.isfinite(mi) & jnp.isfinite(others).all()
    return MIInterval(mi, jnp.sqrt(variance), jnp.where(known, p_value, jnp.nan))
