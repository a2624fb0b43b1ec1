"""How measurements move a rate, with a memory or without: what scales the updates."""

from __future__ import annotations

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


class _Options(NamedTuple):
    lr_min: ScalarLike
    lr_max: ScalarLike
    layer: str | None
    smoothing: ScalarLike

    def bounds(self) -> tuple[Number, Number]:
        # Of numbers they were checked; one that is traced may be anything, and then
        # holds the rate down.
        low, high = scalar(self.lr_min), scalar(self.lr_max)
        low = jnp.where(jnp.isfinite(low) & (low >= 0), low, 0)
        return low, jnp.where(jnp.isfinite(high) & (high >= 0), high, low)


def rate_alone(
    lr_min: ScalarLike,
    lr_max: ScalarLike,
    *,
    policy: AnyPolicy,
    reference: ScalarLike | None,
    layer: str | None,
    init_lr: ScalarLike | None,
    smoothing: ScalarLike,
) -> optax.GradientTransformationExtraArgs:
    """`mi_dynamic_lr` without the means to go back to parameters."""
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

    def init_fn(params: optax.Params) -> MIDynamicLRState:
        del params
        start = lr_min if init_lr is None else init_lr
        return MIDynamicLRState(
            count=jnp.zeros((), jnp.int32),
            learning_rate=scalar(start),
            mi=scalar(MISSING),
            previous_mi=scalar(MISSING),
            reference=scalar(reference),
            value_only=jnp.zeros((), jnp.int32),
            pending=scalar(MISSING),
        )

    known = _Options(lr_min, lr_max, layer, smoothing)
    if isinstance(policy, PolicyWithMemory):
        return _with_memory(init_fn, policy, known)
    return _without_memory(init_fn, policy, known)


def _without_memory(
    init_fn: Any, policy: Policy, options: _Options
) -> optax.GradientTransformationExtraArgs:
    def apply_measurement(state: MIDynamicLRState, mi: Number) -> MIDynamicLRState:
        mi = _averaged(mi, state.mi, options.smoothing)
        judged = is_known(mi) & is_known(state.mi) & is_known(state.reference)
        # A policy sees finite numbers even where its answer is then discarded.
        step = _input(state, options)._replace(
            mi=jnp.where(judged, mi, 1),
            previous_mi=jnp.where(judged, state.mi, 1),
            reference=jnp.where(judged, state.reference, 1),
        )
        answer = policy(step)
        return _moved(_measured(state, mi), answer, judged, options)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        mi: Measurement | None = None,
        diverged: Flag | None = None,
        value: Float[Array, ""] | float | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MIDynamicLRState]:
        del params, extra_args
        state = apply_measurement(state, state.pending)
        given = entry(mi, options.layer)
        if given is not None:
            require_reference(state)
            state = apply_measurement(state, given)
        if value is not None:
            diverged = ~all_finite(value)
        if diverged is not None:
            low, _ = options.bounds()
            rate = jnp.where(diverged, low, state.learning_rate)
            state = state._replace(learning_rate=rate)
        return _scaled(updates, state.learning_rate), _counted(state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _with_memory(
    init_rate: Any, policy: PolicyWithMemory, options: _Options
) -> optax.GradientTransformationExtraArgs:
    def init_fn(params: optax.Params) -> PolicyState:
        return PolicyState(
            rate=init_rate(params),
            memory=jax.tree.map(jnp.array, policy.init()),
            network_mi=scalar(MISSING),
            network_pending=scalar(MISSING),
            keep=jnp.array(False),
            go_back=jnp.array(False),
        )

    def apply_measurement(state: PolicyState, *measurement: Any) -> PolicyState:
        return _asked(policy, options, state, *measurement)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        mi: Measurement | None = None,
        network_mi: Number | None = None,
        diverged: Flag | bool = False,
        ignore: Flag | bool = False,
        value: Float[Array, ""] | float | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PolicyState]:
        del params, extra_args
        if value is not None:
            diverged = diverged | ~all_finite(value)
        no = jnp.array(False)
        state = state._replace(keep=no, go_back=no)

        def unless_ignored(value: Number) -> Number:
            return jnp.where(ignore, MISSING, value)

        state = apply_measurement(
            state,
            unless_ignored(state.rate.pending),
            unless_ignored(state.network_pending),
            jnp.asarray(diverged),
        )
        given = entry(mi, options.layer)
        if given is not None:
            require_reference(state.rate)
            network = unless_ignored(given if network_mi is None else network_mi)
            state = apply_measurement(state, unless_ignored(given), network, no)
        rate = _counted(state.rate)
        state = state._replace(rate=rate, network_pending=scalar(MISSING))
        return _scaled(updates, rate.learning_rate), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _asked(
    policy: PolicyWithMemory,
    options: _Options,
    state: PolicyState,
    mi: Number,
    network_mi: Number,
    diverged: Flag,
) -> PolicyState:
    """The state after the policy's answer to a measurement, or to a divergence."""
    rate, before = state.rate, state.rate.mi
    mi = _averaged(mi, before, options.smoothing)
    network_mi = _averaged(network_mi, state.network_mi, options.smoothing)
    judged = (is_known(mi) | diverged) & is_known(rate.reference)
    network_mi = jnp.where(is_known(network_mi), network_mi, state.network_mi)
    # Ones where its answer is then discarded, as policies divide by what they see.
    current = _first_known(mi, before, otherwise=jnp.where(judged, scalar(0.0), 1))
    step = _input(rate, options)._replace(
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
        rate=_moved(_measured(rate, mi), answer.learning_rate, judged, options),
        memory=_remembered(state.memory, memory, judged),
        network_mi=network_mi,
        keep=state.keep | (judged & answer.keep),
        go_back=state.go_back | (judged & answer.go_back),
    )


def _input(state: MIDynamicLRState, options: _Options) -> PolicyInput:
    low, high = options.bounds()
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
    """The new measurement, averaged with those before it where there are any."""
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
    """The history after a measurement, which may be none."""
    known = is_known(mi)
    return state._replace(
        mi=jnp.where(known, mi, state.mi),
        previous_mi=jnp.where(known, state.mi, state.previous_mi),
        value_only=jnp.maximum(state.value_only - known.astype(jnp.int32), 0),
    )


def _moved(
    state: MIDynamicLRState, answer: Any, judged: Flag, options: _Options
) -> MIDynamicLRState:
    """The rate that a policy answers with, where it was asked, within the bounds."""
    if jnp.ndim(answer) != 0:
        _checks.fail("policy", "a function to a scalar", jnp.shape(answer))
    low, high = options.bounds()
    held = jnp.where(jnp.isfinite(state.learning_rate), state.learning_rate, low)
    learning_rate = jnp.where(judged & jnp.isfinite(answer), answer, held)
    return state._replace(learning_rate=scalar(jnp.clip(learning_rate, low, high)))


def _remembered(before: Any, after: Any, judged: Flag) -> Any:
    """The memory that a policy answers with, where it was asked."""
    kept, given = (jax.tree.map(jnp.shape, memory) for memory in (before, after))
    if given != kept:
        expected = f"a pair whose memory keeps its structure and shapes, {kept}"
        _checks.fail("policy", expected, given)

    def chosen(old: Array, new: Any) -> Array:
        return jnp.where(judged, jnp.asarray(new, old.dtype), old)

    return jax.tree.map(chosen, before, after)


def _scaled(updates: Any, learning_rate: Number) -> Any:
    def scaled(update: Any) -> Any:
        update = jnp.asarray(update)  # NumPy's doubles are floats here
        return learning_rate.astype(update.dtype) * update

    return jax.tree.map(scaled, updates)


def _counted(state: MIDynamicLRState) -> MIDynamicLRState:
    """The state after an update, in which nothing is pending any more."""
    count = optax.safe_increment(state.count)
    return state._replace(count=count, pending=scalar(MISSING))
