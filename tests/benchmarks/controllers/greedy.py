"""A two-way rule of the loss, after GreedyLR.

The loss counts as better where it is below the best so far by the threshold. After more
than `patience` better ones in a row the rate is divided by `factor`, after more than
`patience` others in a row it is multiplied by it, within the bounds; then `warmup` or
`cooldown` losses are ignored. After `reset` reductions at the lower bound without a
raise in between, all begins anew.

Rule and defaults are those of `GreedyLR` in Hugging Face's Transformers, after
arXiv:2512.14527. Ours is what it leaves to its user: it sees the loss of each training
batch (there, by default, that of each evaluation), so the running mean over a window is
on (there an option); the bounds are the bench's; the rate starts at `start`, and
changes below 1e-8 are made as well.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Rule(NamedTuple):
    """The bounds, the rate at the start, and what else the rule is made of."""

    low: float
    high: float
    start: float
    factor: float = 0.95
    patience: int = 10
    threshold: float = 1e-6
    cooldown: int = 0
    warmup: int = 0
    window: int = 50
    reset: int = 500


class State(NamedTuple):
    """The rate, counters, and the losses of the window, 0 where there is none yet."""

    learning_rate: jax.Array
    best: jax.Array
    good: jax.Array
    bad: jax.Array
    waits: jax.Array  # losses to ignore, after a change
    resets_in: jax.Array  # reductions at the lower bound
    window: jax.Array
    seen: jax.Array  # losses


def begun(rule: Rule) -> State:
    """The state before the first loss."""
    number = jnp.zeros((), jnp.int32)
    return State(
        learning_rate=jnp.float32(rule.start),
        best=jnp.float32(jnp.inf),
        good=number,
        bad=number,
        waits=number,
        resets_in=number + rule.reset,
        window=jnp.zeros(rule.window),
        seen=number,
    )


def judged(rule: Rule, state: State, loss: jax.Array) -> State:
    """The state after one more loss."""
    window = state.window.at[state.seen % rule.window].set(loss)
    seen = state.seen + 1
    mean = window.sum() / jnp.minimum(seen, rule.window)
    active = state.waits == 0
    better = mean < state.best - rule.threshold
    good = jnp.where(active & better, state.good + 1, 0)
    bad = jnp.where(active & ~better, state.bad + 1, 0)
    raised, lowered = good > rule.patience, bad > rule.patience
    rate = state.learning_rate
    rate = jnp.where(raised, jnp.minimum(rate / rule.factor, rule.high), rate)
    rate = jnp.where(lowered, jnp.maximum(rate * rule.factor, rule.low), rate)
    waits = jnp.where(lowered, rule.cooldown, jnp.maximum(state.waits - 1, 0))
    resets_in = state.resets_in - (lowered & (rate <= rule.low))
    after = State(
        learning_rate=rate,
        best=jnp.where(active & better, mean, state.best),
        good=jnp.where(raised, 0, good),
        bad=jnp.where(lowered, 0, bad),
        waits=jnp.where(raised, rule.warmup, waits),
        resets_in=jnp.where(raised, rule.reset, resets_in),
        window=window,
        seen=seen,
    )
    anew = resets_in <= 0
    return jax.tree.map(lambda a, b: jnp.where(anew, a, b), begun(rule), after)


def follow(rule: Rule) -> optax.GradientTransformationExtraArgs:
    """Scales updates by the rule's rate; takes the loss as `value`."""

    def init(params: Any) -> State:
        del params
        return begun(rule)

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any
    ) -> Any:
        del params
        scaled = jax.tree.map(lambda u: state.learning_rate * u, updates)
        return scaled, judged(rule, state, value)

    return optax.GradientTransformationExtraArgs(init, update)
