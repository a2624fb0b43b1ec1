"""From mutual information to a learning rate: pure functions of a `PolicyInput`.

The paper prescribes no policy and neither does this package: a policy is any function
from `PolicyInput` to a learning rate that can be traced by JAX. The two here are the
paper's (appendix).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, ScalarLike

from optax_mi import _checks


class PolicyInput(NamedTuple):
    """What a policy knows when a measurement has arrived."""

    learning_rate: Float[Array, ""]  #: LR(t-1), the rate in force
    mi: Float[Array, ""]  #: I(t-1), the measurement that has just arrived; finite
    previous_mi: Float[Array, ""]  #: I(t-2), the one before it; finite
    reference: Float[Array, ""]  #: I_XY, or 3.4e38 where none was given
    lr_min: Float[Array, ""]  #: the lower bound
    lr_max: Float[Array, ""]  #: the upper bound
    value_only: Bool[Array, ""]  #: judge by the value of mi, not by its change


@runtime_checkable
class Policy(Protocol):
    """Any pure, traceable function from a `PolicyInput` to a learning rate (a scalar).

    The answer is clipped to [lr_min, lr_max], and one that is not finite changes
    nothing. Set the attribute ``needs_reference = True`` on a policy that cannot do
    without a reference: giving it a measurement before one is known is then an error.
    """

    def __call__(self, step: PolicyInput, /) -> Float[Array, ""]:
        """Returns the learning rate that follows from a new measurement."""
        ...


def change_policy(
    gamma_up: ScalarLike = 0.1,
    gamma_down: ScalarLike = 1.0,
    epsilon: ScalarLike = 0.01,
) -> Policy:
    r"""The paper's first policy: raise the rate while the information changes.

    .. math::
        \delta_t &= |I_{t-1} - I_{t-2}| / I_{t-1} \\
        LR_t &= \begin{cases}
            \min(LR_{max}, LR_{t-1} + \gamma_{up} \delta_t) & \delta_t > \epsilon \\
            \max(LR_{min}, LR_{t-1} - \gamma_{down} \delta_t)
                & \delta_t \le \epsilon \end{cases}

    An estimate of zero or less says nothing by which a change could be judged: where
    :math:`I_{t-1} \le 0` the rate stays as it is, and a negative :math:`I_{t-2}` counts
    as zero. This policy knows no value to aim at, so it ignores the reference and
    `value_only`.

    Args:
      gamma_up: The paper's gamma_1: 0.1 for MNIST, 0.01 (increases dampened) for
        CIFAR-10.
      gamma_down: The paper's gamma_2: 1 for both.
      epsilon: The relative change up to which the information counts as saturated.

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
    for name, value in [
        ("gamma_up", gamma_up),
        ("gamma_down", gamma_down),
        ("epsilon", epsilon),
    ]:
        _checks.nonnegative(name, value)

    def policy(p: PolicyInput) -> Float[Array, ""]:
        delta = _relative_change(p)
        raised = jnp.minimum(p.lr_max, p.learning_rate + gamma_up * delta)
        lowered = jnp.maximum(p.lr_min, p.learning_rate - gamma_down * delta)
        learning_rate = jnp.where(delta > epsilon, raised, lowered)
        return jnp.where(p.mi > 0, learning_rate, p.learning_rate)

    return policy


def reference_policy(
    gamma_up: ScalarLike = 0.1,
    gamma_down: ScalarLike = 0.1,
    gamma_over: ScalarLike = 0.1,
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

    An estimate of zero or less says nothing by which a change could be judged: where
    :math:`I_{t-1} \le 0` the rate stays as it is, and so it does where the reference is
    zero or less; a negative :math:`I_{t-2}` counts as zero.

    The gammas are steps of the rate itself, and 0.1 is as large as the paper's upper
    bound. With bounds far below, as Adam needs them, give gammas near `lr_max`, or the
    rate will jump from one bound to the other.

    Args:
      gamma_up: The paper's gamma_1: 0.1, or 0.01 (increases dampened).
      gamma_down: The paper's gamma_2: 0.1, or 0.01 where gamma_1 is.
      gamma_over: The paper's gamma_3: 0.1.
      epsilon: The relative change up to which the information counts as saturated. The
        paper's is 0.01, of which a slow start at `lr_min` can fall short: the rate
        then stays there.

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
    for name, value in [
        ("gamma_up", gamma_up),
        ("gamma_down", gamma_down),
        ("gamma_over", gamma_over),
        ("epsilon", epsilon),
    ]:
        _checks.nonnegative(name, value)

    def policy(p: PolicyInput) -> Float[Array, ""]:
        usable = (p.mi > 0) & (p.reference > 0)
        d1 = 1 - p.mi / jnp.where(usable, p.reference, 1)
        growing = (_relative_change(p) > epsilon) | p.value_only
        raised = jnp.minimum(p.lr_max, p.learning_rate + gamma_up * d1)
        lowered = jnp.maximum(p.lr_min, p.learning_rate - gamma_down * d1)
        over = jnp.maximum(p.lr_min, p.learning_rate + gamma_over * d1)
        learning_rate = jnp.where(d1 > 0, jnp.where(growing, raised, lowered), over)
        return jnp.where(usable, learning_rate, p.learning_rate)

    policy.needs_reference = True  # pyright: ignore[reportFunctionMemberAccess]
    return policy


def _relative_change(p: PolicyInput) -> Float[Array, ""]:
    """|I(t-1) - I(t-2)| / I(t-1); of no meaning where I(t-1) <= 0, but finite."""
    change = jnp.abs(p.mi - jnp.maximum(p.previous_mi, 0))
    return change / jnp.where(p.mi > 0, p.mi, 1)
