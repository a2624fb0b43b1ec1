"""Policies: how mutual information changes a learning rate, with a memory or without.

The paper prescribes no policy and neither does this package. A policy is any function
from `PolicyInput` to a learning rate that JAX can trace, or a pair of functions if it
has to remember more than two measurements. `change_policy` and `reference_policy` are
the paper's (appendix), `decay_policy` follows its sequel, and
`warmup_stable_decay_policy`, in its own file, is this package's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from optax_mi import _checks


class PolicyInput(NamedTuple):
    """What a policy is given when a measurement has arrived."""

    learning_rate: Float[Array, ""]  #: LR(t-1), the rate in force
    mi: Float[Array, ""]  #: I(t-1), the measurement that has just arrived; finite
    previous_mi: Float[Array, ""]  #: I(t-2), the one before it; finite
    reference: Float[Array, ""]  #: I_XY, or 3.4e38 where none was given
    lr_min: Float[Array, ""]  #: the lower bound
    lr_max: Float[Array, ""]  #: the upper bound
    value_only: Bool[Array, ""]  #: judge by the value of mi, not by its change
    #: the whole network's information, if mi may be a layer's; None means mi itself
    network_mi: Float[Array, ""] | None = None
    #: training has diverged, and there may be no new measurement (with a memory only)
    diverged: Bool[Array, ""] | bool = False


class PolicyAnswer(NamedTuple):
    """A rate, and what happens to the parameters.

    A policy with a memory may return this in place of a bare rate. The transformation
    then holds a copy of the parameters: the initial ones, until it is told to keep
    others.
    """

    learning_rate: Float[Array, ""]  #: in force from now on
    keep: Bool[Array, ""] | bool = False  #: keep the measured parameters
    go_back: Bool[Array, ""] | bool = False  #: go back to the kept parameters


@runtime_checkable
class Policy(Protocol):
    """Any pure, traceable function from a `PolicyInput` to a learning rate (a scalar).

    The answer is clipped to [lr_min, lr_max]; one that is not finite changes nothing.
    Set the attribute ``needs_reference = True`` on a policy that cannot do without a
    reference: a measurement that comes before any reference is then an error.
    """

    def __call__(self, step: PolicyInput, /) -> Float[Array, ""]:
        """Returns the learning rate that follows from a new measurement."""
        ...


class PolicyWithMemory(NamedTuple):
    """A policy that remembers: a pair of functions, as an Optax transformation is one.

    A plain pair ``(init, update)`` works as well. The memory is a pytree of arrays of
    fixed structure, shapes and dtypes. It lives in the optimizer state, and so survives
    jit, scan and checkpoints as that does. `update` is called from the first finite
    measurement on (there with `previous_mi` equal to `mi`), and when training has
    diverged.
    """

    init: Callable[[], Any]  #: returns the memory before the first measurement
    #: from `PolicyInput` and memory to the rate or a `PolicyAnswer`, and the memory
    update: Callable[[PolicyInput, Any], tuple[Any, Any]]
    needs_reference: bool = False  #: as the attribute of a policy without a memory


_NO_SCHEDULE = (
    'write optax.inject_hyperparams(..., static_args="policy"), which takes other '
    "functions for schedules and calls them with the count of steps"
)

AnyPolicy: TypeAlias = Policy | PolicyWithMemory | tuple[Callable[..., Any], ...]


def as_policy(policy: Any) -> Policy | PolicyWithMemory:
    """Returns a policy, a plain pair as a `PolicyWithMemory`."""
    if callable(policy):
        return cast("Policy", policy)
    if isinstance(policy, tuple) and len(policy) in (2, 3):
        known = isinstance(policy, PolicyWithMemory)
        pair = policy if known else PolicyWithMemory(*policy)
        if callable(pair.init) and callable(pair.update):
            return pair
    expected = "a function of a PolicyInput or a pair of functions (init, update)"
    if _checks.is_scalar(policy):
        expected += f" ({_NO_SCHEDULE})"
    return _checks.fail("policy", expected, _checks.described(policy))


def keeps_parameters(policy: Any) -> bool:
    """Whether a policy returns a `PolicyAnswer`; it is traced, not run."""
    policy = as_policy(policy)
    if not isinstance(policy, PolicyWithMemory):
        return False
    one, no = jnp.ones(()), jnp.array(False)
    step = PolicyInput(one, one, one, one, one, one, no, network_mi=one, diverged=no)
    answer, _ = jax.eval_shape(lambda: policy.update(step, policy.init()))
    return isinstance(answer, PolicyAnswer)


def change_policy(
    gamma_up: ScalarLike | None = None,
    gamma_down: ScalarLike | None = None,
    epsilon: ScalarLike = 0.01,
) -> Policy:
    r"""The paper's first policy: raise the rate while the information changes.

    .. math::
        \delta_t &= |I_{t-1} - I_{t-2}| / I_{t-1} \\
        LR_t &= \begin{cases}
            \min(LR_{max}, LR_{t-1} + \gamma_{up} \delta_t) & \delta_t > \epsilon \\
            \max(LR_{min}, LR_{t-1} - \gamma_{down} \delta_t)
                & \delta_t \le \epsilon \end{cases}

    An estimate of zero or less has no meaningful relative change: if
    :math:`I_{t-1} \le 0` the rate stays, and a negative :math:`I_{t-2}` counts as zero.
    This policy aims at no value, so it ignores the reference and `value_only`.

    Args:
      gamma_up: The paper's gamma_1, by default `lr_max`. The paper has 0.1 for MNIST,
        where `lr_max` is 0.1 too, and 0.01 (increases dampened) for CIFAR-10.
      gamma_down: The paper's gamma_2, by default ten times `lr_max`: the paper's 1.
      epsilon: Up to this relative change, from one measurement to the next, the
        information counts as saturated. The paper measures once an epoch; with n
        measurements an epoch, give about 1/n of its value.

    Returns:
      A policy.

    Raises:
      ValueError: If a number is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax_mi
      >>> policy = optax_mi.change_policy()
      >>> step = optax_mi.PolicyInput(
      ...     learning_rate=0.01, mi=jnp.array(2.0), previous_mi=1.0, reference=2.3,
      ...     lr_min=0.001, lr_max=0.1, value_only=False)
      >>> print(f"{policy(step):.3f}")  # 0.01 + 0.1 * |2 - 1| / 2
      0.060
    """
    _nonnegative(gamma_up=gamma_up, gamma_down=gamma_down, epsilon=epsilon)

    def policy(p: PolicyInput) -> Float[Array, ""]:
        _no_schedule(p)
        up = p.lr_max if gamma_up is None else gamma_up
        down = 10 * p.lr_max if gamma_down is None else gamma_down
        delta = _relative_change(p)
        raised = jnp.minimum(p.lr_max, p.learning_rate + up * delta)
        lowered = jnp.maximum(p.lr_min, p.learning_rate - down * delta)
        learning_rate = jnp.where(delta > epsilon, raised, lowered)
        return jnp.where(p.mi > 0, learning_rate, p.learning_rate)

    return policy


def reference_policy(
    gamma_up: ScalarLike | None = None,
    gamma_down: ScalarLike | None = None,
    gamma_over: ScalarLike | None = None,
    epsilon: ScalarLike = 0.003,
) -> Policy:
    r"""The paper's second policy: change, and value relative to the reference.

    .. math::
        d1_t &= 1 - I_{t-1} / I_{XY} \qquad d2_t = |I_{t-1} - I_{t-2}| / I_{t-1} \\
        LR_t &= \begin{cases}
            \min(LR_{max}, LR_{t-1} + \gamma_{up} d1_t)
                & d1_t > 0,\ d2_t > \epsilon \quad \text{(it grows: raise)} \\
            \max(LR_{min}, LR_{t-1} - \gamma_{down} d1_t)
                & d1_t > 0,\ d2_t \le \epsilon \quad \text{(it has saturated: lower)} \\
            \max(LR_{min}, LR_{t-1} + \gamma_{over} d1_t)
                & d1_t \le 0 \quad \text{(above the reference: lower)} \end{cases}

    The paper prints the second case with the condition of its fourth,
    :math:`d1_t \le 0, d2_t \le \epsilon`, which leaves :math:`d1_t > 0, d2_t \le
    \epsilon` without a rule. The table above is our reading, the only one that agrees
    with the paper's text. After a batch-size change (`value_only`), :math:`d2_t` is
    ignored: the rate rises below the reference and falls above it.

    An estimate of zero or less has no meaningful relative change: if
    :math:`I_{t-1} \le 0`, or the reference is zero or less, the rate stays. A negative
    :math:`I_{t-2}` counts as zero.

    The gammas are steps of the rate itself, so by default they are `lr_max`. If the
    bounds are more than two decades apart, these steps are coarse near the lower one;
    `warmup_stable_decay_policy` steps by factors instead.

    Args:
      gamma_up: The paper's gamma_1, by default `lr_max`. The paper has 0.1, where
        `lr_max` is 0.1 too, or 0.01 (increases dampened).
      gamma_down: The paper's gamma_2, by default `lr_max`; 0.01 where gamma_1 is.
      gamma_over: The paper's gamma_3, by default `lr_max`.
      epsilon: Up to this relative change, from one measurement to the next, the
        information counts as saturated. The paper has 0.01; a slow start at `lr_min`
        can stay below that, and then the rate stays at `lr_min`. Both values are for
        one measurement an epoch; with n of them, give about 1/n.

    Returns:
      A policy that needs a reference.

    Raises:
      ValueError: If a number is negative or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax_mi
      >>> policy = optax_mi.reference_policy()
      >>> step = optax_mi.PolicyInput(
      ...     learning_rate=0.01, mi=jnp.array(1.5), previous_mi=1.0, reference=2.0,
      ...     lr_min=0.001, lr_max=0.1, value_only=False)
      >>> print(f"{policy(step):.3f}")  # 0.01 + 0.1 * (1 - 1.5 / 2)
      0.035
    """
    _nonnegative(
        gamma_up=gamma_up,
        gamma_down=gamma_down,
        gamma_over=gamma_over,
        epsilon=epsilon,
    )

    def policy(p: PolicyInput) -> Float[Array, ""]:
        _no_schedule(p)
        up, down, above = (
            p.lr_max if gamma is None else gamma
            for gamma in (gamma_up, gamma_down, gamma_over)
        )
        usable = (p.mi > 0) & (p.reference > 0)
        d1 = 1 - p.mi / jnp.where(usable, p.reference, 1)
        growing = (_relative_change(p) > epsilon) | p.value_only
        raised = jnp.minimum(p.lr_max, p.learning_rate + up * d1)
        lowered = jnp.maximum(p.lr_min, p.learning_rate - down * d1)
        over = jnp.maximum(p.lr_min, p.learning_rate + above * d1)
        learning_rate = jnp.where(d1 > 0, jnp.where(growing, raised, lowered), over)
        return jnp.where(usable, learning_rate, p.learning_rate)

    policy.needs_reference = True  # pyright: ignore[reportFunctionMemberAccess]
    return policy


def decay_policy(gamma: ScalarLike = 0.1, epsilon: ScalarLike = 0.01) -> Policy:
    r"""A rate that only falls, the faster the less the information changes.

    .. math::
        \delta_t &= |I_{t-1} - I_{t-2}| / I_{t-1} \\
        LR_t &= \max(LR_{min}, LR_{t-1} (1 - \gamma \max(0, 1 - \delta_t / \epsilon)))

    While the information changes by `epsilon` or more, the rate stays. Start at the
    top: ``init_lr=lr_max``. Under `layerwise_mi_dynamic_lr` each layer's rate falls at
    its own pace.

    The idea is from the abstract of the paper below. Its equations were not available
    to us, so the equation above is ours.

    Args:
      gamma: The share of the rate that is lost at a measurement without any change.
      epsilon: From this relative change on, from one measurement to the next, the rate
        stays.

    Returns:
      A policy.

    Raises:
      ValueError: If gamma is not within 0 and 1, or epsilon is not finite and > 0.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax_mi
      >>> policy = optax_mi.decay_policy(gamma=0.5)
      >>> step = optax_mi.PolicyInput(
      ...     learning_rate=0.1, mi=jnp.array(2.0), previous_mi=2.0, reference=2.3,
      ...     lr_min=0.001, lr_max=0.1, value_only=False)
      >>> print(f"{policy(step):.3f}")  # no change: 0.1 * (1 - 0.5)
      0.050

    References:
      Vasudevan, `Mutual Information Based Learning Rate Decay for Stochastic Gradient
      Descent Training of Deep Neural Networks <https://doi.org/10.3390/e22050560>`_,
      Entropy 22(5), 560, 2020.
    """
    _checks.within("gamma", gamma, 0, 1)
    _checks.positive("epsilon", epsilon)

    def policy(p: PolicyInput) -> Float[Array, ""]:
        _no_schedule(p)
        stillness = jnp.maximum(0, 1 - _relative_change(p) / epsilon)
        lowered = jnp.maximum(p.lr_min, p.learning_rate * (1 - gamma * stillness))
        return jnp.where(p.mi > 0, lowered, p.learning_rate)

    return policy


def _no_schedule(p: Any) -> None:
    """Refuses what `optax.inject_hyperparams` gives to a schedule."""
    if _checks.is_scalar(p):
        expected = f"called with a PolicyInput ({_NO_SCHEDULE})"
        _checks.fail("policy", expected, _checks.described(p))


def _nonnegative(**numbers: ScalarLike | None) -> None:
    for name, value in numbers.items():
        if value is not None:
            _checks.nonnegative(name, value)


def _relative_change(p: PolicyInput) -> Float[Array, ""]:
    """|I(t-1) - I(t-2)| / I(t-1); meaningless where I(t-1) <= 0, but finite."""
    change = jnp.abs(p.mi - jnp.maximum(p.previous_mi, 0))
    return change / jnp.where(p.mi > 0, p.mi, 1)
