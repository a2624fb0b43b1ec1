"""How an estimate depends on the number of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Int, PRNGKeyArray

from optax_mi import _checks
from optax_mi._measure import estimate_mi
from optax_mi._probe import sample_probe, taken
from optax_mi._types import Estimator, Numeric


class SampleSizeCurve(NamedTuple):
    """Estimates for every sample size, in nats."""

    sizes: Int[np.ndarray, "sizes"]  #: examples drawn
    mean: Float[np.ndarray, "sizes"]  #: over the repeats
    std: Float[np.ndarray, "sizes"]  #: over the repeats (n - 1 in the denominator)
    estimates: Float[np.ndarray, "sizes repeats"]  #: each of them


def sample_size_curve(
    key: PRNGKeyArray,
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    sizes: Sequence[int],
    repeats: int = 10,
    *,
    estimator: Estimator | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> SampleSizeCurve:
    """Estimates I(X; Y) from samples of several sizes (the paper's Figure 1).

    Shows how well a probe of a given size can do. If the mean still rises with the
    size, estimates are biased downwards; the standard deviation is that of one probe.

    Args:
      key: A JAX random key, from which the keys of all samples are drawn.
      x: Inputs, shape [n, ...], or a layer's activations.
      y: True outcomes, shape [n] classes or [n, ...] real numbers.
      sizes: Sample sizes, each at most n.
      repeats: Samples of each size, drawn independently of each other.
      estimator: As for `estimate_mi`, with the same default.
      progress: Wraps the list of samples to be done, for example ``tqdm.tqdm``.

    Returns:
      SampleSizeCurve(sizes, mean, std, estimates).

    Raises:
      ValueError: If lengths differ, a size is not an integer in k + 1..n, or repeats is
        not a positive integer.

    Cost: for each size, `repeats` estimates and one compilation.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> y = np.arange(2000) % 2
      >>> x = np.random.default_rng(0).normal(size=(2000, 5)) + y[:, None]
      >>> curve = optax_mi.sample_size_curve(jax.random.key(0), x, y, (50, 500), 5)
      >>> curve.sizes.tolist(), curve.estimates.shape, bool(curve.std[1] < curve.std[0])
      ([50, 500], (2, 5), True)

    References:
      Vasudevan, `Dynamic learning rate using Mutual Information
      <https://arxiv.org/abs/1805.07249>`_, 2018, figure 1.
    """
    _checks.positive_integer("repeats", repeats)
    if len(sizes) == 0:
        _checks.fail("sizes", "at least one sample size", sizes)
    x, y = _checks.numbers("x", x), _checks.numbers("y", y)
    n = _checks.same_length([("x", x), ("y", y)])
    for size in sizes:
        _checks.positive_integer("sizes", size)
        if size > n:
            _checks.fail("sizes", f"at most the number of examples, {n}", size)

    keys = jax.random.split(key, (len(sizes), repeats))
    estimates = np.zeros((len(sizes), repeats))
    for i, j in progress(list(np.ndindex(*estimates.shape))):
        rows, outcomes = sample_probe(keys[i, j], np.arange(n), y, sizes[i])
        # Not through the probe, which makes float64 narrower without moving it.
        mi = estimate_mi({"x": taken(x, rows)}, outcomes, estimator=estimator)
        estimates[i, j] = mi["x"]
    spread = estimates.std(axis=1, ddof=1) if repeats > 1 else np.zeros(len(sizes))
    return SampleSizeCurve(np.asarray(sizes), estimates.mean(axis=1), spread, estimates)
