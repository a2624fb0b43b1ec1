"""Lower bounds of mutual information, reached by a trained critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, Real

from optax_mi import _checks
from optax_mi._estimators._neighbours import distances
from optax_mi._types import Numeric


class NeuralEstimate(NamedTuple):
    """The result of training a critic, in nats."""

    mi: Float[Array, ""]  #: on the held-out half of the sample
    curve: Float[Array, "steps"]  #: the bound on each training batch


def mine(
    key: PRNGKeyArray,
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    *,
    steps: int = 1000,
    batch_size: int = 256,
    hidden: int = 64,
    learning_rate: float = 1e-3,
) -> NeuralEstimate:
    r"""Estimates I(X; Y), in nats, by training a critic (MINE).

    A small network T(x, y) is trained with Adam to maximise the Donsker-Varadhan bound
    (Belghazi et al. 2018, equation 5). The second mean is over shuffled pairs:

    .. math:: I \ge \operatorname{mean} T(x_i, y_i)
        - \log \operatorname{mean} \exp T(x_i, y_{\pi(i)})

    The gradient of the logarithm is corrected by a moving average of its argument, as
    in the paper's section 3.2. One half of the sample is for training and the other for
    the estimate, so that what the critic memorises does not count. The estimate may be
    negative. The variance of the bound grows exponentially with the information: beyond
    a few nats no critic reaches it.

    Each feature is first standardised. Give class labels as one-hot codes: a critic,
    unlike a distance, learns their scale.

    Args:
      key: A JAX random key, for the split, the initial critic and the batches.
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d_x features.
      y: Points, likewise d_y features.
      steps: Training steps.
      batch_size: Pairs in a training step, at most half of the samples.
      hidden: Width of the critic's two hidden layers.
      learning_rate: Adam's.

    Returns:
      NeuralEstimate(mi, curve).

    Raises:
      ValueError: If lengths differ, there are fewer than 4 samples, steps, batch_size
        or hidden is not a positive integer, batch_size is below 2 or above half of the
        samples, or learning_rate is not positive.

    Cost: steps * batch_size * hidden * (d_x + d_y + hidden) operations, many times that
    of `ksg` for a probe of 1000.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> x, noise = np.random.default_rng(0).normal(size=(2, 4000))
      >>> y = 0.9 * x + np.sqrt(1 - 0.9**2) * noise           # I = 0.83
      >>> estimate = optax_mi.mine(jax.random.key(0), x, y)
      >>> bool(0.7 < estimate.mi < 0.9), estimate.curve.shape
      (True, (1000,))

    References:
      Belghazi et al., `Mutual information neural estimation
      <https://arxiv.org/abs/1801.04062>`_, 2018, algorithm 1.
    """
    return _trained(
        key, x, y, _DonskerVaradhan, steps, batch_size, hidden, learning_rate
    )


def info_nce(
    key: PRNGKeyArray,
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    *,
    steps: int = 1000,
    batch_size: int = 256,
    hidden: int = 64,
    learning_rate: float = 1e-3,
) -> NeuralEstimate:
    r"""Estimates I(X; Y), in nats, by training a critic to recognise pairs (InfoNCE).

    The bound of van den Oord et al. (2018) with the critic f(x) g(y). The network finds
    each x's own y among the B of its batch:

    .. math:: I \ge \log B + \operatorname{mean}_i \log
        \frac{\exp f(x_i) g(y_i)}{\sum_j \exp f(x_i) g(y_j)}

    The bound varies far less than that of `mine`, but can never exceed log B.
    Everything else is as there.

    Args:
      key: A JAX random key, for the split, the initial critic and the batches.
      x: Points, shape [n] or [n, ...]; trailing axes are flattened to d_x features.
      y: Points, likewise d_y features.
      steps: Training steps.
      batch_size: Pairs in a training step: B, at most half of the samples.
      hidden: Width of the critics' hidden layers, and of the outputs f and g.
      learning_rate: Adam's.

    Returns:
      NeuralEstimate(mi, curve).

    Raises:
      ValueError: As `mine`.

    Cost: steps * batch_size * hidden * (d_x + d_y + hidden + batch_size) operations.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> x, noise = np.random.default_rng(0).normal(size=(2, 4000))
      >>> y = 0.9 * x + np.sqrt(1 - 0.9**2) * noise           # I = 0.83
      >>> bool(0.7 < optax_mi.info_nce(jax.random.key(0), x, y).mi < 0.9)
      True

    References:
      van den Oord et al., `Representation learning with contrastive predictive coding
      <https://arxiv.org/abs/1807.03748>`_, 2018, equation (4).
    """
    return _trained(key, x, y, _InfoNCE, steps, batch_size, hidden, learning_rate)


class _Mlp(nn.Module):
    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        for _ in range(2):
            x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(self.outputs)(x)


class _DonskerVaradhan(nn.Module):
    """Scores of pairs, and of each x with the next one's y."""

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B d_x"], y: Float[Array, "B d_y"]
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        critic = _Mlp(self.hidden, 1)
        paired = critic(jnp.concatenate([x, y], axis=1))
        shuffled = critic(jnp.concatenate([x, jnp.roll(y, 1, axis=0)], axis=1))
        return paired[:, 0], shuffled[:, 0]

    @staticmethod
    def bound(scores: Any) -> Float[Array, ""]:
        paired, shuffled = scores
        return jnp.mean(paired) - _log_mean_exp(shuffled)

    @staticmethod
    def loss(
        scores: Any, average: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Minus the bound, with the gradient of log(average) for that of the log."""
        paired, shuffled = scores
        log_mean = _log_mean_exp(shuffled)
        started = jnp.isfinite(average)
        moved = jnp.logaddexp(average + jnp.log(0.99), log_mean + jnp.log(0.01))
        average = jax.lax.stop_gradient(jnp.where(started, moved, log_mean))
        return jnp.exp(log_mean - average) - jnp.mean(paired), average


class _InfoNCE(nn.Module):
    """Scores of each x with each y."""

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B d_x"], y: Float[Array, "B d_y"]
    ) -> Float[Array, "B B"]:
        of_x, of_y = _Mlp(self.hidden, self.hidden), _Mlp(self.hidden, self.hidden)
        return of_x(x) @ of_y(y).T

    @staticmethod
    def bound(scores: Float[Array, "B B"]) -> Float[Array, ""]:
        own = jnp.diagonal(scores) - jax.nn.logsumexp(scores, axis=1)
        return jnp.mean(own) + jnp.log(float(len(scores)))

    @staticmethod
    def loss(
        scores: Float[Array, "B B"], average: Float[Array, ""]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return -_InfoNCE.bound(scores), average


def _log_mean_exp(scores: Float[Array, "B"]) -> Float[Array, ""]:
    return jax.nn.logsumexp(scores) - jnp.log(float(len(scores)))


def _trained(
    key: PRNGKeyArray,
    x: Numeric[ArrayLike, "n ..."],
    y: Numeric[ArrayLike, "n ..."],
    critic: Callable[..., Any],
    steps: int,
    batch_size: int,
    hidden: int,
    learning_rate: float,
) -> NeuralEstimate:
    x, y = _checks.points("x", x), _checks.points("y", y)
    n = _checks.same_length([("x", x), ("y", y)])
    for name, value in [
        ("steps", steps),
        ("batch_size", batch_size),
        ("hidden", hidden),
    ]:
        _checks.positive_integer(name, value)
    _checks.positive("learning_rate", learning_rate)
    if not 2 <= batch_size <= n // 2:
        _checks.fail(
            "batch_size", f"between 2 and half of the samples, {n // 2}", batch_size
        )
    return _train(
        key,
        x,
        y,
        learning_rate,
        critic=critic(hidden),
        steps=steps,
        batch_size=batch_size,
    )


@partial(jax.jit, static_argnames=("critic", "steps", "batch_size"))
def _train(
    key: PRNGKeyArray,
    x: Float[Array, "n d_x"],
    y: Float[Array, "n d_y"],
    learning_rate: Real[Array, ""],
    *,
    critic: Any,
    steps: int,
    batch_size: int,
) -> NeuralEstimate:
    x, y = jax.lax.stop_gradient((_standardised(x), _standardised(y)))
    n, half = len(x), len(x) // 2
    split_key, init_key, train_key = jax.random.split(key, 3)
    order = jax.random.permutation(split_key, n)
    seen, held_out = order[:half], order[half:]
    params = critic.init(init_key, x[:batch_size], y[:batch_size])
    optimizer = optax.adam(learning_rate)

    def loss(params: Any, batch: Int[Array, "B"], average: Float[Array, ""]) -> Any:
        scores = critic.apply(params, x[batch], y[batch])
        value, average = critic.loss(scores, average)
        return value, (average, critic.bound(scores))

    def step(state: Any, key: PRNGKeyArray) -> Any:
        params, opt_state, average = state
        batch = jax.random.choice(key, seen, (batch_size,), replace=False)
        gradients, (average, bound) = jax.grad(loss, has_aux=True)(
            params, batch, average
        )
        updates, opt_state = optimizer.update(gradients, opt_state)
        return (optax.apply_updates(params, updates), opt_state, average), bound

    start = (params, optimizer.init(params), jnp.asarray(jnp.nan, x.dtype))
    (params, *_), curve = jax.lax.scan(step, start, jax.random.split(train_key, steps))

    batches = held_out[: len(held_out) // batch_size * batch_size]
    bounds = jax.lax.map(
        lambda batch: critic.bound(critic.apply(params, x[batch], y[batch])),
        batches.reshape(-1, batch_size),
    )
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    return NeuralEstimate(jnp.where(finite, jnp.mean(bounds), jnp.nan), curve)


def _standardised(x: Float[Array, "n d"]) -> Float[Array, "n d"]:
    features = jax.vmap(distances.rescale, 1, 1)(x[..., None])
    x = features[..., 0]  # of which squares are representable
    deviation = jnp.std(x, axis=0, keepdims=True)
    x = x - jnp.mean(x, axis=0, keepdims=True)
    return x / jnp.where(deviation > 0, deviation, 1)
