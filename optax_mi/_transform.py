"""The transformation: a learning rate that measurements of information move."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, Bool, Float, ScalarLike

from optax_mi import _checks
from optax_mi._going_back import able_to_go_back
from optax_mi._policies import (
    AnyPolicy,
    Policy,
    PolicyAnswer,
    PolicyInput,
    PolicyWithMemory,
    as_policy,
    keeps_parameters,
)
from optax_mi._state import (
    MISSING,
    UNBOUNDED,
    MIDynamicLRState,
    PolicyState,
    entry,
    is_known,
    require_reference,
    scalar,
)
from optax_mi._types import Measurement
from optax_mi._warmup_stable_decay import warmup_stable_decay_policy

Number = Float[Array, ""]
Flag = Bool[Array, ""]


def mi_dynamic_lr(
    lr_min: ScalarLike,
    lr_max: ScalarLike,
    *,
    policy: AnyPolicy | None = None,
    reference: ScalarLike | None = None,
    layer: str | None = None,
    init_lr: ScalarLike | None = None,
    smoothing: ScalarLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by a learning rate that mutual information sets.

    The rate starts at `lr_min`. From the second measurement of I(H; Y) on, each new one
    moves it as the policy says, within [lr_min, lr_max]; between measurements it stays.
    Measure once an epoch and give the result in either way:

    - in the step, ``tx.update(grads, state, params, mi=mi)``;
    - outside it, ``opt_state = optax_mi.record_mi(opt_state, mi)``: the next update
      that runs applies it. This is the way within ``optax.MultiSteps`` and
      ``optax.apply_if_finite``, which drop what is given in a step that they skip
      (nothing can see it there; given in every mini-step it counts once), and where no
      ``mi=`` is taken: ``TrainState.apply_gradients``, ``optax.contrib.sam``.

    A measurement is a scalar, or a mapping of which `layer` names the entry. One that
    is None or not finite is no measurement: rate and history stay as they are. The rate
    also stays where the policy's answer is not finite; what the policies of this
    package do with estimates of zero or less, their docstrings say.

    A run that diverges is another matter: its measurements are NaN, and the rate would
    stay where it was. Give the loss as ``tx.update(..., value=loss)``, as for
    ``optax.contrib.reduce_on_plateau``: one that is not finite brings the rate down to
    `lr_min`, from where measurements raise it again (docs/reliability.md).

    A policy may have a memory, and may go back to good parameters, as
    `warmup_stable_decay_policy` does. For one that goes back

    - ``update`` needs `params`, and the state holds a copy of them;
    - an update that is not finite, or a hundred times larger than any before, is not
      applied: the parameters go back and the policy is told;
    - this transformation must be the last in the chain. What is behind it would change
      the updates that lead back.

    The updates are multiplied by the rate and keep their dtype (the state is float32,
    or float64 under x64). What comes before in the chain must therefore have a rate of
    its own of 1 and carry the minus sign, as with ``optax.contrib.reduce_on_plateau``:
    ``optax.sgd(0.01)`` there would train a hundred times too slowly.

    Args:
      lr_min: Lower bound, and the rate at the start.
      lr_max: Upper bound. Bounds may be traced and may change, as in
        ``optax.inject_hyperparams(mi_dynamic_lr, static_args="policy")(...)``: every
        update keeps the rate within those in force.
      policy: What follows from a measurement, by default
        ``warmup_stable_decay_policy()``. A pure function from `PolicyInput` to the new
        rate, as the paper's `change_policy` and `reference_policy`, whose answer counts
        from the second finite measurement on; or a pair ``(init, update)`` with a
        memory, see `PolicyWithMemory`, whose answer counts from the first.
      reference: What the information can reach, in nats, see `reference_mi`. It may be
        given later by `record_mi`.
      layer: The entry of a mapping to follow. By default the whole network's: the entry
        "" (the model's own output), or the only entry. `record_mi` cannot know it and
        has a `layer` of its own.
      init_lr: The rate at the start, if not lr_min.
      smoothing: The weight of the past, 0 <= smoothing < 1, in an exponential average
        of the measurements, which policy and history then see in their place. It keeps
        the noise of estimates from passing for learning and delays the rest by about
        smoothing / (1 - smoothing) measurements (docs/reliability.md).

    Returns:
      A ``GradientTransformationExtraArgs`` with state `MIDynamicLRState`, which lies
      within another where the policy has a memory; `learning_rates`, `record_mi` and
      ``optax.tree.get(opt_state, "learning_rate")`` find it there.

    Raises:
      ValueError: If a bound is not a number (a schedule is none), or is negative, not
        finite or the wrong way round (of traced ones only the kind is checked; one that
        comes out as no number >= 0 keeps the rate down). From `update`: if a mapping
        lacks the layer, a measurement is not a scalar, or (where values are concrete)
        the policy needs a reference and none was given; where they are not (compiled
        updates, wrappers built on ``lax.cond``) the rate stays as it is instead. If the
        policy's answer is not a scalar.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> tx = optax.chain(
      ...     optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-3, 0.1, reference=2.3))
      >>> params = {"w": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> for mi in (0.5, 1.0, None):
      ...     updates, state = tx.update(params, state, params, mi=mi)
      ...     print(f"{optax.tree.get(state, 'learning_rate'):.3f}")
      0.001
      0.058
      0.058

    References:
      Vasudevan, `Dynamic learning rate using Mutual Information
      <https://arxiv.org/abs/1805.07249>`_, 2018.
    """
    policy = warmup_stable_decay_policy() if policy is None else policy
    rate = rate_alone(
        lr_min,
        lr_max,
        policy=policy,
        reference=reference,
        layer=layer,
        init_lr=init_lr,
        smoothing=smoothing,
    )
    return able_to_go_back(rate) if keeps_parameters(policy) else rate


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
            low, _ = options.bounds()
            rate = jnp.where(_diverged(value), low, state.learning_rate)
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

    def apply_measurement(
        state: PolicyState, mi: Number, network_mi: Number, diverged: Flag
    ) -> PolicyState:
        rate, before = state.rate, state.rate.mi
        mi = _averaged(mi, before, options.smoothing)
        network_mi = _averaged(network_mi, state.network_mi, options.smoothing)
        judged = (is_known(mi) | diverged) & is_known(rate.reference)
        network_mi = jnp.where(is_known(network_mi), network_mi, state.network_mi)
        # Ones where its answer is then discarded, as policies divide by what they see.
        current = _first_known(mi, before, otherwise=jnp.where(judged, 0, 1))
        step = _input(rate, options)._replace(
            mi=current,
            previous_mi=_first_known(before, otherwise=current),
            reference=jnp.where(is_known(rate.reference), rate.reference, 1),
            network_mi=_first_known(network_mi, otherwise=current),
            diverged=diverged,
        )
        answer, memory = policy.update(step, state.memory)
        if not isinstance(answer, PolicyAnswer):
            answer = PolicyAnswer(answer)
        return state._replace(
            rate=_moved(_measured(rate, mi), answer.learning_rate, judged, options),
            memory=_remembered(state.memory, memory, judged),
            network_mi=network_mi,
            keep=state.keep | (judged & answer.keep),
            go_back=state.go_back | (judged & answer.go_back),
        )

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
            diverged = diverged | _diverged(value)
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


def _diverged(value: Any) -> Flag:
    return ~jnp.all(jnp.isfinite(jnp.asarray(value)))


def _scaled(updates: Any, learning_rate: Number) -> Any:
    def scaled(update: Any) -> Any:
        update = jnp.asarray(update)  # NumPy's doubles are floats here
        return learning_rate.astype(update.dtype) * update

    return jax.tree.map(scaled, updates)


def _counted(state: MIDynamicLRState) -> MIDynamicLRState:
    """The state after an update, in which nothing is pending any more."""
    count = optax.safe_increment(state.count)
    return state._replace(count=count, pending=scalar(MISSING))
