"""Which learning rates are useful: a sweep that watches loss and information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, ScalarLike

from optax_mi import _checks
from optax_mi._state import entry
from optax_mi._types import Measurement

State = TypeVar("State")
Batch = TypeVar("Batch")

# The share of the information's rise that counts as noise, at its start and its top.
_MARGIN = 0.05

# A rise of pure noise is up to 5 times the median step between measurements; of digits
# and MNIST it was 40 times that and more.
_SIGNIFICANT = 10

# A rate that teaches nothing in its few steps here may teach much in an epoch of a
# hundred. With ten times higher lower bounds digits ended 0.3 points lower.
_EPOCH = 10


class LRRangeTest(NamedTuple):
    """The measurements of a sweep, and the bounds that they suggest."""

    #: the last rate applied before each measurement
    learning_rate: Float[np.ndarray, "measurements"]
    loss: Float[np.ndarray, "measurements"]  #: mean over the steps since the last one
    mi: Float[np.ndarray, "measurements"]  #: nats
    lr_min: float  #: NaN where the information never rose above its noise
    lr_max: float  #: NaN likewise


def lr_range_test(
    train_step: Callable[[State, Batch, float], tuple[State, ScalarLike]],
    state: State,
    batches: Iterable[Batch],
    measure: Callable[[State], Measurement],
    *,
    lr_low: float = 1e-5,
    lr_high: float = 10.0,
    steps: int = 300,
    measure_every: int = 5,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> LRRangeTest:
    """Sweeps the learning rate and suggests bounds for it from I(H; Y).

    The rate grows geometrically from `lr_low` to `lr_high`, one step at each rate. The
    information about the outcomes does not change while rates are too low to teach
    anything in their few steps. Then it rises, and it falls once rates destroy what was
    learnt. `lr_max` is the rate at which the rise is complete. `lr_min` is a tenth of
    the last rate before the rise, as an epoch has more steps than a rate has here. Both
    are read to within 5 % of the rise, from medians of three measurements. The sweep
    ends early if loss or information is no longer finite.

    Args:
      train_step: Maps (state, batch, learning rate) to (state, loss): one step of your
        optimizer, its updates multiplied by the rate. Compile it.
      state: What a step changes: parameters, optimizer state and so on. The state after
        the sweep is dropped; start training from the same one again. An NNX model is
        changed in place: pass a copy, ``nnx.clone(model)``. Likewise if a step donates
        its arguments: ``jax.tree.map(jnp.copy, state)``.
      batches: Any iterable of batches. A list, or another iterable that can be repeated
        (a data loader), may be shorter than the sweep and starts over. An iterator must
        have at least `steps` batches.
      measure: Maps a state to I(H; Y) in nats: a scalar, or a mapping such as
        `estimate_mi` returns, of which the entry "" or the only one is used. Compile
        it.
      lr_low: The first rate.
      lr_high: The last one.
      steps: Steps of the sweep.
      measure_every: Steps between measurements; there is one before the first, too.
      progress: Wraps the list of steps, for example ``tqdm.tqdm``.

    Returns:
      LRRangeTest(learning_rate, loss, mi, lr_min, lr_max), drawn by
      ``optax_mi.plots.range_test``. Look at it before you use the bounds: if `mi`
      still rises at `lr_high`, or no part of it is flat, the sweep was too short.

    Raises:
      ValueError: If rates are not 0 < lr_low < lr_high, steps or measure_every is not a
        positive integer, there are fewer than five measurements, batches has none, or
        it is an iterator that ends before the sweep.

    Cost: steps of training and steps / measure_every measurements.

    Example:
      >>> import jax, jax.numpy as jnp, numpy as np, optax_mi
      >>> y = np.arange(200) % 2
      >>> x = np.random.default_rng(0).normal(size=(200, 3)) + 2 * y[:, None]
      >>> def loss(w, x, y):
      ...     return jnp.mean((jnp.tanh(x @ w) - 2 * y + 1) ** 2)
      >>> @jax.jit
      ... def train_step(w, batch, learning_rate):
      ...     value, gradient = jax.value_and_grad(loss)(w, *batch)
      ...     return w - learning_rate * gradient, value
      >>> measure = jax.jit(lambda w: optax_mi.ksg_discrete(jnp.tanh(x @ w), y))
      >>> w = jnp.array([1.0, 0.0, -1.0])
      >>> batches = [(x[i::4], y[i::4]) for i in range(4)]
      >>> result = optax_mi.lr_range_test(train_step, w, batches, measure, steps=100)
      >>> result.lr_min < 0.1 < result.lr_max
      True

    References:
      Vasudevan, `Mutual information based learning rate decay for stochastic gradient
      descent training of deep neural networks <https://doi.org/10.3390/e22050560>`_,
      Entropy 22(5), 560, 2020, proposes a range test by information, after Smith,
      `Cyclical learning rates <https://arxiv.org/abs/1506.01186>`_, 2015. The rule that
      reads the bounds is ours.
    """
    for name, value in [("lr_low", lr_low), ("lr_high", lr_high)]:
        _checks.positive(name, value)
    if lr_low >= lr_high:
        _checks.fail("lr_low", f"less than `lr_high` = {lr_high}", lr_low)
    _checks.positive_integer("steps", steps)
    _checks.positive_integer("measure_every", measure_every)
    if steps // measure_every < 4:
        _checks.fail("steps", "at least 4 times `measure_every`", steps)

    seen = [(lr_low, np.nan, _nats(measure(state)))]
    rates = np.geomspace(lr_low, lr_high, steps).tolist()
    losses, done = [], 0
    for done, (rate, batch) in enumerate(
        zip(progress(rates), _over_and_over(batches), strict=False), start=1
    ):
        state, loss = train_step(state, batch, rate)
        losses.append(loss)
        if done % measure_every == 0:
            mean_loss = float(np.mean([float(value) for value in losses]))
            seen.append((rate, mean_loss, _nats(measure(state))))
            losses = []
            if not np.isfinite(seen[-1]).all():
                break
    else:
        if done < steps:
            expected = f"an iterator over {steps} batches, or a list of any number"
            _checks.fail("batches", expected, done)
    learning_rate, loss, mi = np.array(seen).T
    return LRRangeTest(learning_rate, loss, mi, *_bounds(learning_rate, loss, mi))


def _over_and_over(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Starts again at the end. An iterator is then empty: it ends."""
    some = True
    while some:
        some = False
        for batch in batches:
            some = True
            yield batch


def _nats(mi: Measurement) -> float:
    value = entry(mi, None, "measure")
    return np.nan if value is None else float(value)


def _bounds(
    learning_rate: Float[np.ndarray, "measurements"],
    loss: Float[np.ndarray, "measurements"],
    mi: Float[np.ndarray, "measurements"],
) -> tuple[float, float]:
    """A tenth of the rate where information begins to rise, and where it has risen."""
    finite = np.isfinite(mi) & np.isfinite(np.append(0, loss[1:]))
    learning_rate, mi = learning_rate[finite], mi[finite]
    if len(mi) < 3:
        return np.nan, np.nan
    noise = np.median(np.abs(np.diff(mi)))
    # The median of three takes out an estimate that strays.
    inner = np.median([mi[:-2], mi[1:-1], mi[2:]], axis=0)
    mi = np.concatenate([mi[:1], inner, mi[-1:]])
    top = int(np.argmax(mi))
    low = np.min(mi[: top + 1])
    rise = mi[top] - low
    if rise == 0 or rise < _SIGNIFICANT * noise:
        return np.nan, np.nan
    margin = _MARGIN * rise
    still = np.flatnonzero(mi[:top] <= low + margin)[-1]
    risen = still + np.flatnonzero(mi[still:] >= mi[top] - margin)[0]
    return float(learning_rate[still] / _EPOCH), float(learning_rate[risen])
