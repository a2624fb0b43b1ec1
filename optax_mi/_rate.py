"""How measurements change a rate, with a memory or without, and scale the updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, Bool, Float, ScalarLike

from optax_mi import _checks
from optax_mi._policies import (
    AnyPolicy,
    Policy,
    PolicyAnswer,
    PolicyInput,
    PolicyWithMemory,
    as_policy,
)
from optax_mi._state import (
    MISSING,
    UNBOUNDED,
    MIDynamicLRState,
    PolicyState,
    all_finite,
    entry,
    is_known,
    require_reference,
    scalar,
)
from optax_mi._types import Measurement

Number = Float[Array, ""]
Flag = Bool[Array, ""]


class Numbers(NamedTuple):
    """The bounds of a policy's answer, and the smoothing of measurements."""

    lr_min: Any
    lr_max: Any
    smoothing: Any

    def bounds(self) -> tuple[Number, Number]:
        """The current bounds."""
        # Concrete bounds were checked. A traced one may be anything, and an invalid one
        # holds the rate down.
        low, high = scalar(self.lr_min), scalar(self.lr_max)
        low = jnp.where(jnp.isfinite(low) & (low >= 0), low, 0)
        return low, jnp.where(jnp.isfinite(high) & (high >= 0), high, low)


class News(NamedTuple):
    """What is new for a rate at an update."""

    mi: Number | None = None  # a measurement, which may be missing
    network_mi: Number | None = None  # the whole network's, where it is another
    diverged: Flag | None = None
    ignore: Flag | None = None  # whether measurements count for nothing


class Rate(NamedTuple):
    """A rate in its parts, so that a network with many compiles one body for all."""

    policy: Policy | PolicyWithMemory
    numbers: Numbers
    init_lr: ScalarLike
    reference: ScalarLike

    def init(self) -> MIDynamicLRState | PolicyState:
        """The initial state."""
        rate = MIDynamicLRState(
            count=jnp.zeros((), jnp.int32),
            learning_rate=scalar(self.init_lr),
            mi=scalar(MISSING),
            previous_mi=scalar(MISSING),
            reference=scalar(self.reference),
            value_only=jnp.zeros((), jnp.int32),
            pending=scalar(MISSING),
        )
        if not isinstance(self.policy, PolicyWithMemory):
            return rate
        return PolicyState(
            rate=rate,
            memory=jax.tree.map(jnp.array, self.policy.init()),
            network_mi=scalar(MISSING),
            network_pending=scalar(MISSING),
            keep=jnp.array(False),
            go_back=jnp.array(False),
        )


def checked_rate(
    lr_min: ScalarLike,
    lr_max: ScalarLike,
    *,
    policy: AnyPolicy,
    reference: ScalarLike | None,
    init_lr: ScalarLike | None,
    smoothing: ScalarLike,
) -> Rate:
    """Checks options and returns a rate with them."""
    options = {"init_lr": init_lr, "reference": reference, "smoothing": smoothing}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in {"lr_min": lr_min, "lr_max": lr_max, **given}.items():
        _checks.nonnegative(name, value)
    _checks.less_than_one("smoothing", smoothing)
    _checks.at_most("lr_min", lr_min, "lr_max", lr_max)
    if init_lr is not None:
        _checks.at_most("init_lr", init_lr, "lr_max", lr_max)
        _checks.at_most("lr_min", lr_min, "init_lr", init_lr)
    policy = as_policy(policy)
    if reference is None:
        needed = getattr(policy, "needs_reference", False)
        reference = MISSING if needed else UNBOUNDED
    return Rate(
        policy,
        Numbers(lr_min, lr_max, smoothing),
        lr_min if init_lr is None else init_lr,
        reference,
    )


def rate_alone(
    rate: Rate, layer: str | None = None
) -> optax.GradientTransformationExtraArgs:
    """`mi_dynamic_lr` without the ability to go back to parameters."""

    def init_fn(params: optax.Params) -> MIDynamicLRState | PolicyState:
        del params
        return rate.init()

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        mi: Measurement | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del params
        given = entry(mi, layer)
        if given is not None:
            require_reference(rate_state(state))
        news = news_of(extra_args)._replace(mi=given)
        state = moved(rate.policy, rate.numbers, state, news)
        return scaled(updates, rate_state(state).learning_rate), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def news_of(extra_args: Mapping[str, Any]) -> News:
    """What the arguments of `update`, other than the measurement, tell a rate."""
    diverged = extra_args.get("diverged")
    if (value := extra_args.get("value")) is not None:
        infinite = ~all_finite(value)
        diverged = infinite if diverged is None else diverged | infinite
    return News(diverged=diverged, ignore=extra_args.get("ignore"))


def rate_state(state: Any) -> MIDynamicLRState:
    """The part of a state that all policies have."""
    return state.rate if isinstance(state, PolicyState) else state


def moved(
    policy: Policy | PolicyWithMemory, numbers: Numbers, state: Any, news: News
) -> Any:
    """The state after an update."""
    if isinstance(policy, PolicyWithMemory):
        return _with_memory(policy, numbers, state, news)
    return _without_memory(policy, numbers, state, news)


def _without_memory(
    policy: Policy, numbers: Numbers, state: MIDynamicLRState, news: News
) -> MIDynamicLRState:
    def asked(state: MIDynamicLRState, mi: Number) -> MIDynamicLRState:
        mi = _averaged(mi, state.mi, numbers.smoothing)
        judged = is_known(mi) & is_known(state.mi) & is_known(state.reference)
        # A policy sees finite numbers even where its answer is then discarded.
        step = _input(state, numbers)._replace(
            mi=jnp.where(judged, mi, 1),
            previous_mi=jnp.where(judged, state.mi, 1),
            reference=jnp.where(judged, state.reference, 1),
        )
        return _answered(_measured(state, mi), policy(step), judged, numbers)

    state = asked(state, state.pending)
    if news.mi is not None:
        state = asked(state, news.mi)
    if news.diverged is not None:
        low, _ = numbers.bounds()
        rate = jnp.where(news.diverged, low, state.learning_rate)
        state = state._replace(learning_rate=rate)
    return _counted(state)


def _with_memory(
    policy: PolicyWithMemory, numbers: Numbers, state: PolicyState, news: News
) -> PolicyState:
    no = jnp.array(False)
    diverged = no if news.diverged is None else jnp.asarray(news.diverged)
    state = state._replace(keep=no, go_back=no)

    def unless_ignored(value: Number) -> Number:
        return value if news.ignore is None else jnp.where(news.ignore, MISSING, value)

    state = _asked(
        policy,
        numbers,
        state,
        unless_ignored(state.rate.pending),
        unless_ignored(state.network_pending),
        diverged,
    )
    if news.mi is not None:
        network = news.mi if news.network_mi is None else news.network_mi
        measured = unless_ignored(news.mi), unless_ignored(network)
        state = _asked(policy, numbers, state, *measured, no)
    rate = _counted(state.rate)
    return state._replace(rate=rate, network_pending=scalar(MISSING))


def _asked(
    policy: PolicyWithMemory,
    numbers: Numbers,
    state: PolicyState,
    mi: Number,
    network_mi: Number,
    diverged: Flag,
) -> PolicyState:
    """The state after the policy answers a measurement or a divergence."""
    rate, before = state.rate, state.rate.mi
    mi = _averaged(mi, before, numbers.smoothing)
    network_mi = _averaged(network_mi, state.network_mi, numbers.smoothing)
    judged = (is_known(mi) | diverged) & is_known(rate.reference)
    network_mi = jnp.where(is_known(network_mi), network_mi, state.network_mi)
    # Ones where its answer is then discarded, as policies divide by what they see.
    current = _first_known(mi, before, otherwise=jnp.where(judged, scalar(0.0), 1))
    step = _input(rate, numbers)._replace(
        mi=current,
        previous_mi=_first_known(before, otherwise=current),
        reference=jnp.where(is_known(rate.reference), rate.reference, 1),
        network_mi=_first_known(network_mi, otherwise=current),
        diverged=diverged,
    )
    # Wrappers that choose between states by factors of 0 and 1 make flags integers.
    kinds = jax.eval_shape(policy.init)
    memory = jax.tree.map(lambda a, kind: a.astype(kind.dtype), state.memory, kinds)
    answer, memory = policy.update(step, memory)
    if not isinstance(answer, PolicyAnswer):
        answer = PolicyAnswer(answer)
    return state._replace(
        rate=_answered(_measured(rate, mi), answer.learning_rate, judged, numbers),
        memory=_remembered(state.memory, memory, judged),
        network_mi=network_mi,
        keep=state.keep | (judged & answer.keep),
        go_back=state.go_back | (judged & answer.go_back),
    )


def _input(state: MIDynamicLRState, numbers: Numbers) -> PolicyInput:
    low, high = numbers.bounds()
    return PolicyInput(
        learning_rate=state.learning_rate,
        mi=state.mi,
        previous_mi=state.previous_mi,
        reference=state.reference,
        lr_min=low,
        lr_max=high,
        value_only=state.value_only > 0,
    )


def _averaged(new: Number, before: Number, smoothing: ScalarLike) -> Number:
    """The new measurement, averaged with the earlier ones if there are any."""
    average = smoothing * before + (1 - smoothing) * new
    usable = is_known(new) & is_known(before) & jnp.isfinite(average)
    return jnp.where(usable, average, new)


def _first_known(*values: Number, otherwise: Number) -> Number:
    """The first value that is known."""
    found = otherwise
    for value in reversed(values):
        found = jnp.where(is_known(value), value, found)
    return found


def _measured(state: MIDynamicLRState, mi: Number) -> MIDynamicLRState:
    """The history after a measurement, which may be missing."""
    known = is_known(mi)
    return state._replace(
        mi=jnp.where(known, mi, state.mi),
        previous_mi=jnp.where(known, state.mi, state.previous_mi),
        value_only=jnp.maximum(state.value_only - known.astype(jnp.int32), 0),
    )


def _answered(
    state: MIDynamicLRState, answer: Any, judged: Flag, numbers: Numbers
) -> MIDynamicLRState:
    """The state with the policy's rate, if it was asked, within the bounds."""
    if jnp.ndim(answer) != 0:
        _checks.fail("policy", "a function to a scalar", jnp.shape(answer))
    low, high = numbers.bounds()
    held = jnp.where(jnp.isfinite(state.learning_rate), state.learning_rate, low)
    learning_rate = jnp.where(judged & jnp.isfinite(answer), answer, held)
    return state._replace(learning_rate=scalar(jnp.clip(learning_rate, low, high)))


def _remembered(before: Any, after: Any, judged: Flag) -> Any:
    """The policy's new memory, if it was asked."""
    kept, given = (jax.tree.map(jnp.shape, memory) for memory in (before, after))
    if given != kept:
        expected = f"a pair whose memory keeps its structure and shapes, {kept}"
        _checks.fail("policy", expected, given)

    def chosen(old: Array, new: Any) -> Array:
        return jnp.where(judged, jnp.asarray(new, old.dtype), old)

    return jax.tree.map(chosen, before, after)


def scaled(updates: Any, learning_rate: Number) -> Any:
    """Updates times the rate, in their own dtypes."""

    def times_rate(update: Any) -> Any:
        update = jnp.asarray(update)  # NumPy's doubles are floats here
        return learning_rate.astype(update.dtype) * update

    return jax.tree.map(times_rate, updates)


def _counted(state: MIDynamicLRState) -> MIDynamicLRState:
    """The state after an update, with nothing pending."""
    count = optax.safe_increment(state.count)
    return state._replace(count=count, pending=scalar(MISSING))
