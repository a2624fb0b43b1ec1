"""The transformation: a learning rate that measurements of information move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, Bool, Float, Int32, ScalarLike

from optax_mi import _checks
from optax_mi._policies import Policy, PolicyInput, reference_policy
from optax_mi._types import Measurement

# What is not there yet. Finite, since a state of NaN or infinities cannot live under
# ``jax_debug_nans``, and wrappers that choose between states by factors of 0 and 1
# (``optax.contrib.sam``) would spread it.
MISSING = float(np.finfo(np.float32).min)
UNBOUNDED = float(np.finfo(np.float32).max)


class MIDynamicLRState(NamedTuple):
    """State of `mi_dynamic_lr`: finite scalar arrays alone, of fixed dtypes.

    What is not there yet is -3.4e38, the lowest float32.
    """

    #: updates so far
    count: Int32[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    learning_rate: Float[Array, ""]  #: in force at the next update
    mi: Float[Array, ""]  #: the last finite measurement in nats
    previous_mi: Float[Array, ""]  #: the one before it
    #: in nats, 3.4e38 where the policy needs none, missing where it needs one
    reference: Float[Array, ""]
    value_only: Int32[Array, ""]  #: measurements still to be judged by value alone
    pending: Float[Array, ""]  #: recorded but not yet applied


def mi_dynamic_lr(
    lr_min: ScalarLike,
    lr_max: ScalarLike,
    *,
    policy: Policy | None = None,
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

    The updates are multiplied by the rate and keep their dtype (the state is float32,
    or float64 under x64). What comes before in the chain must therefore have a rate of
    its own of 1 and carry the minus sign, as with ``optax.contrib.reduce_on_plateau``:
    ``optax.sgd(0.01)`` there would train a hundred times too slowly.

    Args:
      lr_min: Lower bound, and the rate at the start.
      lr_max: Upper bound. Bounds may be traced and may change, as in
        ``optax.inject_hyperparams(mi_dynamic_lr, static_args="policy")(...)``: every
        update keeps the rate within those in force.
      policy: A pure function from `PolicyInput` to the new rate, by default
        ``reference_policy()``. Its answer counts from the second finite measurement on.
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
      A ``GradientTransformationExtraArgs`` with state `MIDynamicLRState`.

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
    options = {"init_lr": init_lr, "reference": reference, "smoothing": smoothing}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in {"lr_min": lr_min, "lr_max": lr_max, **given}.items():
        _checks.nonnegative(name, value)
    _checks.less_than_one("smoothing", smoothing)
    _checks.at_most("lr_min", lr_min, "lr_max", lr_max)
    if init_lr is not None:
        _checks.at_most("init_lr", init_lr, "lr_max", lr_max)
        _checks.at_most("lr_min", lr_min, "init_lr", init_lr)
    policy = reference_policy() if policy is None else policy
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

    def bounds() -> tuple[Float[Array, ""], Float[Array, ""]]:
        # Of numbers they were checked; one that is traced may be anything, and then
        # holds the rate down.
        low, high = scalar(lr_min), scalar(lr_max)
        low = jnp.where(jnp.isfinite(low) & (low >= 0), low, 0)
        return low, jnp.where(jnp.isfinite(high) & (high >= 0), high, low)

    def apply_measurement(
        state: MIDynamicLRState, mi: Float[Array, ""]
    ) -> MIDynamicLRState:
        low, high = bounds()
        measured, compared = is_known(mi), is_known(state.mi)
        mi = jnp.where(measured, mi, state.mi)
        average = smoothing * state.mi + (1 - smoothing) * mi
        averaged = measured & compared & jnp.isfinite(average)
        mi = jnp.where(averaged, average, mi)
        judged = measured & compared & is_known(state.reference)
        # A policy sees finite numbers even where its answer is then discarded.
        answer = policy(
            PolicyInput(
                learning_rate=state.learning_rate,
                mi=jnp.where(judged, mi, 1),
                previous_mi=jnp.where(judged, state.mi, 1),
                reference=jnp.where(judged, state.reference, 1),
                lr_min=low,
                lr_max=high,
                value_only=state.value_only > 0,
            )
        )
        if jnp.ndim(answer) != 0:
            _checks.fail("policy", "a function to a scalar", jnp.shape(answer))
        held = jnp.where(jnp.isfinite(state.learning_rate), state.learning_rate, low)
        learning_rate = jnp.where(judged & jnp.isfinite(answer), answer, held)
        return state._replace(
            learning_rate=scalar(jnp.clip(learning_rate, low, high)),
            mi=mi,
            previous_mi=jnp.where(measured, state.mi, state.previous_mi),
            value_only=jnp.maximum(state.value_only - measured.astype(jnp.int32), 0),
        )

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
        mi = entry(mi, layer)
        if mi is not None:
            require_reference(state)
            state = apply_measurement(state, mi)
        learning_rate = state.learning_rate
        if value is not None:
            diverged = ~jnp.all(jnp.isfinite(jnp.asarray(value)))
            learning_rate = jnp.where(diverged, bounds()[0], learning_rate)
            state = state._replace(learning_rate=learning_rate)

        def scaled(update: Any) -> Any:
            update = jnp.asarray(update)  # NumPy's doubles are floats here
            return learning_rate.astype(update.dtype) * update

        updates = jax.tree.map(scaled, updates)
        count = optax.safe_increment(state.count)
        return updates, state._replace(count=count, pending=scalar(MISSING))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def scalar(value: Any) -> Float[Array, ""]:
    """A number as the state holds it."""
    # A copy: a state that shares a buffer with its hyperparameters cannot be donated.
    return jnp.array(value, jnp.result_type(float))


def is_known(value: Float[Array, "*runs"]) -> Bool[Array, "*runs"]:
    """Whether a number was given: finite and not the mark of what is missing."""
    return jnp.isfinite(value) & (value > MISSING)


def entry(
    values: Measurement | None, layer: str | None, argument: str = "mi"
) -> Float[Array, ""] | None:
    """The value of one layer from a scalar or a mapping, or None for nothing new."""
    value: Any = values
    if isinstance(values, Mapping):
        if layer is None:
            layer = next(iter(values)) if len(values) == 1 else ""
        if layer not in values:
            wanted = repr(layer) if layer else "the whole network, '',"
            _checks.fail(argument, f"a mapping with {wanted} in it", list(values))
        value = values[layer]
    if value is None:
        return None
    if not _checks.is_scalar(value):
        _checks.fail(
            argument, "a scalar or a mapping of scalars", _checks.described(value)
        )
    return jax.lax.stop_gradient(scalar(value))


def require_reference(state: MIDynamicLRState) -> None:
    """Raises where a needed reference is missing, unless the values are traced."""
    known = is_known(state.reference)
    if not _checks.is_traced(known) and not known.all():
        raise ValueError(
            "`reference` must be given: the policy compares mutual information with "
            "it. Pass mi_dynamic_lr(..., reference=optax_mi.reference_mi(probe)) or "
            "record_mi(opt_state, mi, reference=optax_mi.reference_mi(probe))."
        )
