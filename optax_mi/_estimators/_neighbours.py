"""Distances from one point to all others, the k-th smallest of them, row blocks.

Estimators are written for one point against all; `map_points` runs them over blocks
of points, so that no n x n matrix is ever held. Distances only ever meet distances
taken by the same metric within the same variable, so any increasing function of the
metric will do, and the Euclidean one stays squared. A distance is accumulated over the
features in one fixed order: rows that coincide are at exactly equal distances, and
counts of `<`, `==` and `<=` against a neighbour's distance need no tolerance.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from optax_mi import _checks
from optax_mi._types import Metric

METRICS: tuple[Metric, ...] = ("euclidean", "chebyshev")

# Up to this many features the loop over them is written out: XLA then fuses it with
# whatever reads the distances.
_UNROLLED_FEATURES = 16

# Largest magnitude after `rescale`, as a power of two. Squares of differences, summed
# over 2^20 features and 2^20 samples, stay below the largest float32; differences down
# to 1e-31 of the largest value keep a square that does not underflow.
_LARGEST_EXPONENT = 40


def rescale(x: jax.Array) -> jax.Array:
    """Multiplies x by the power of two that keeps squared distances representable.

    A power of two changes no mantissa: ties stay ties and every comparison of two
    distances comes out as before.
    """
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x)))
    return jnp.ldexp(x, _LARGEST_EXPONENT - exponent)


def distances(point: jax.Array, features: jax.Array, metric: Metric) -> jax.Array:
    """Distances from one point [d] to n points given as features [d, n].

    Euclidean distances come squared.
    """

    def add_feature(f, total):
        difference = point[f] - features[f]
        if metric == "euclidean":
            return total + difference * difference
        return jnp.maximum(total, jnp.abs(difference))

    d, n = features.shape
    total = jnp.zeros(n, features.dtype)
    if d <= _UNROLLED_FEATURES:
        for f in range(d):
            total = add_feature(f, total)
        return total
    return jax.lax.fori_loop(0, d, add_feature, total, unroll=4)


def kth_smallest(
    values: jax.Array, candidates: jax.Array, k: jax.Array | int, max_k: int
) -> jax.Array:
    """The k-th smallest of values [n] where candidates [n], counting multiplicity.

    `k` may be traced and is at most the static `max_k`; k = 0 gives -inf. Each round
    steps to the next larger distinct value while fewer than k candidates lie at or
    below the present one, which XLA compiles into far faster code than `top_k`.
    """

    def step(_, kth):
        reached = jnp.sum(candidates & (values <= kth))
        larger = candidates & (values > kth)
        following = jnp.min(values, where=larger, initial=jnp.inf)
        return jnp.where(reached < k, following, kth)

    start = jnp.asarray(-jnp.inf, values.dtype)
    return jax.lax.fori_loop(0, max_k, step, start)


def map_points(fn: Callable[..., Any], rows: Any, block_size: int | None) -> Any:
    """Applies `fn` to every row of a pytree of arrays [n, ...], a block at a time."""
    n = jax.tree.leaves(rows)[0].shape[0]
    return jax.lax.map(fn, rows, batch_size=min(n, block_size or _block_size(n)))


def check_options(metric: Metric, block_size: int | None) -> None:
    """Checks the options that every neighbour estimator takes."""
    _checks.one_of("metric", metric, METRICS)
    if block_size is not None:
        _checks.positive_integer("block_size", block_size)


def _block_size(n: int) -> int:
    """Rows of a block: its distances should fit into a core's cache, or fill a GPU."""
    elements = 2**17 if jax.default_backend() == "cpu" else 2**24
    blocks = -(-n * n // elements)
    return -(-n // blocks)
