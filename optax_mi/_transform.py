"""The transformation: a learning rate that measurements of information move."""

from __future__ import annotations

import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import ScalarLike

from optax_mi._going_back import able_to_go_back
from optax_mi._place import carrying
from optax_mi._policies import AnyPolicy, keeps_parameters
from optax_mi._rate import checked_rate, rate_alone
from optax_mi._state import LayerState
from optax_mi._warmup_stable_decay import warmup_stable_decay_policy


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

    The rate starts at `lr_min`. Each measurement of I(H; Y) moves it as the policy
    says, within [lr_min, lr_max]; between measurements it stays. Measure often at first
    and later once an epoch (`measurement_steps`), and give the result in either way:

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
      applied: the parameters go back and the policy is told. So they do where losses
      were given and their moving average is halfway back to the first one;
    - this transformation must be the last in the chain. What is behind it would change
      the updates that lead back.

    The updates are multiplied by the rate and keep their dtype (the state is float32,
    or float64 under x64). What comes before in the chain must therefore have a rate of
    its own of 1 and carry the minus sign, as with ``optax.contrib.reduce_on_plateau``:
    ``optax.sgd(0.01)`` there would train a hundred times too slowly. Behind it stands
    nothing: an optimizer such as Adam would undo the rate, of which `record_mi` and
    `learning_rates` warn.

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
        "" (the model's own output), or the only entry. The state carries it, so that
        `record_mi` follows it too.
      init_lr: The rate at the start, if not lr_min.
      smoothing: The weight of the past, 0 <= smoothing < 1, in an exponential average
        of the measurements, which policy and history then see in their place. It keeps
        the noise of estimates from passing for learning and delays the rest by about
        smoothing / (1 - smoothing) measurements (docs/reliability.md).

    Returns:
      A ``GradientTransformationExtraArgs`` with state `MIDynamicLRState`, which lies
      within another where the policy has a memory or a `layer` is named;
      `learning_rates`, `record_mi` and ``optax.tree.get(opt_state, "learning_rate")``
      find it there.

    Raises:
      ValueError: If a bound is not a number (a schedule is none), or is negative, not
        finite or the wrong way round (of traced ones only the kind is checked; one that
        comes out as no number >= 0 keeps the rate down). From `update`: if a mapping
        lacks the layer, a measurement is not a scalar, or (where values are concrete)
        the policy needs a reference and none was given; where they are not (compiled
        updates, wrappers built on ``lax.cond``) the rate stays as it is instead, and
        `learning_rates` warns. If the policy's answer is not a scalar.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> tx = optax.chain(
      ...     optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-4, 3.0, reference=2.3))
      >>> params = {"w": jnp.ones(3)}
      >>> state = tx.init(params)
      >>> for mi in (0.5, 1.0, None):
      ...     updates, state = tx.update(params, state, params, mi=mi)
      ...     print(f"{optax.tree.get(state, 'learning_rate'):.4f}")
      0.0002
      0.0004
      0.0004

    References:
      Vasudevan, `Dynamic learning rate using Mutual Information
      <https://arxiv.org/abs/1805.07249>`_, 2018.
    """
    policy = warmup_stable_decay_policy() if policy is None else policy
    rate = checked_rate(
        lr_min,
        lr_max,
        policy=policy,
        reference=reference,
        init_lr=init_lr,
        smoothing=smoothing,
    )
    rate = carrying(LayerState, layer, rate_alone(rate, layer))
    return able_to_go_back(rate) if keeps_parameters(policy) else rate
