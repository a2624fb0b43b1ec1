"""The gradient transformation whose learning rate follows mutual information."""

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
    """Multiplies updates by a learning rate that mutual information sets.

    The rate starts at `lr_min`. With each measurement of I(H; Y) the policy changes it,
    within [lr_min, lr_max]; between measurements it stays. Measure often at first and
    later once an epoch (`measurement_steps`). Pass a measurement in one of two ways:

    - in the step: ``tx.update(grads, state, params, mi=mi)``;
    - outside it: ``opt_state = optax_mi.record_mi(opt_state, mi)``. The next update
      that runs applies it. Use this where no ``mi=`` is accepted
      (``TrainState.apply_gradients``, ``optax.contrib.sam``), and within
      ``optax.MultiSteps`` and ``optax.apply_if_finite``: they drop, unnoticed, an
      ``mi=`` given in a step that they skip. Given in every mini-step, it counts once.

    Put this transformation last in the chain. The updates are multiplied by the rate
    and keep their dtype (the state is float32, or float64 under x64). The optimizer
    before it must have a rate of 1 and carry the minus sign, as with
    ``optax.contrib.reduce_on_plateau``: ``optax.sgd(0.01)`` would train a hundred times
    too slowly. An optimizer such as Adam behind it would undo the rate; `record_mi` and
    `learning_rates` warn of that.

    A measurement is a scalar, or a mapping of which `layer` names the entry. A None,
    NaN or infinite measurement is ignored: rate and history stay as they are. The rate
    also stays if the policy's answer is not finite. How the policies of this package
    treat estimates of zero or less is said in their docstrings.

    If training diverges, its measurements are NaN, and the rate would stay where it
    was. So pass the loss as well, ``tx.update(..., value=loss)``, as for
    ``optax.contrib.reduce_on_plateau``: a loss that is not finite sets the rate to
    `lr_min`, and measurements raise it again from there (docs/reliability.md).

    A policy may have a memory, and may go back to good parameters, as
    `warmup_stable_decay_policy` does. With a policy that goes back

    - ``update`` needs `params`, and the state holds a copy of them;
    - an update that is not finite, or a hundred times larger than any before, is not
      applied: the parameters go back and the policy is told. The same happens if losses
      are given and their moving average is halfway back to the first one;
    - nothing may stand behind this transformation: it would change the updates that
      lead back.

    Args:
      lr_min: Lower bound, and the rate at the start.
      lr_max: Upper bound. Bounds may be traced and may change, as in
        ``optax.inject_hyperparams(mi_dynamic_lr, static_args="policy")(...)``: every
        update keeps the rate within the current ones.
      policy: How a measurement changes the rate, by default
        ``warmup_stable_decay_policy()``. Either a pure function from `PolicyInput` to
        the new rate, as the paper's `change_policy` and `reference_policy`; its answer
        counts from the second finite measurement on. Or a pair ``(init, update)`` with
        a memory, see `PolicyWithMemory`; its answer counts from the first.
      reference: The most that the information can reach, in nats, see `reference_mi`.
        `record_mi` can set it later.
      layer: The entry of a mapping to follow. By default that of the whole network: the
        entry "" (the model's own output), or the only entry. The state carries the
        name, so that `record_mi` follows it too.
      init_lr: The rate at the start, if not lr_min.
      smoothing: The weight of the past, 0 <= smoothing < 1, in an exponential average
        of the measurements. Policy and history see the average in place of the
        measurements. It keeps noise from passing for learning, and delays everything
        else by about smoothing / (1 - smoothing) measurements (docs/reliability.md).

    Returns:
      A ``GradientTransformationExtraArgs`` with state `MIDynamicLRState`, which lies
      within another state if the policy has a memory or a `layer` is named;
      `learning_rates`, `record_mi` and ``optax.tree.get(opt_state, "learning_rate")``
      find it there.

    Raises:
      ValueError: If a bound is not a number (as a schedule), negative, not finite,
        or the wrong way round. (Of traced bounds only the kind is checked; one that
        turns out to be no number >= 0 keeps the rate down.) From `update`: if a mapping
        lacks the layer, a measurement or the policy's answer is not a scalar, or the
        policy needs a reference and none was given. The last needs concrete values: in
        compiled updates and wrappers built on ``lax.cond`` the rate stays as it is
        instead, and `learning_rates` warns.

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
