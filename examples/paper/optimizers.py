"""The optimizers of the rows: each a function of the run's setting and its options."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax

import optax_mi

LR_MIN, LR_MAX = 0.001, 0.1  # the paper's bounds
LR = 0.01  # its fixed rate, and the end of its warm-up


class Setting(NamedTuple):
    """What an optimizer has to know of its run."""

    epochs: int
    steps_per_epoch: int
    reference: float  # nats

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch


def _as_trained(opt_state: Any, params: Any) -> Any:
    del opt_state
    return params


class Optimizer(NamedTuple):
    """A transformation, and what is read from its state.

    Attributes:
      transformation: Its learning rate included.
      learning_rates: Reads the rates in force from the state.
      follows_mi: Whether it takes measurements.
      eval_params: Maps state and parameters to those that are tested and measured.
    """

    transformation: optax.GradientTransformationExtraArgs
    learning_rates: Callable[[Any], Mapping[str, float]]
    follows_mi: bool = False
    eval_params: Callable[[Any, Any], Any] = _as_trained


def scheduled(schedule: Any, **sgd: float) -> Optimizer:
    """SGD under a rate that is known beforehand."""
    rate = optax.inject_hyperparams(optax.scale)(schedule)
    return Optimizer(
        optax.with_extra_args_support(optax.chain(_sgd(**sgd), rate)),
        lambda state: {"": float(state[1].hyperparams["step_size"])},
    )


def constant(setting: Setting, *, rate: float, **sgd: float) -> Optimizer:
    """One rate throughout."""
    del setting
    return scheduled(optax.constant_schedule(rate), **sgd)


def warm_up(
    setting: Setting, *, start: float, rate: float, epochs: int, **sgd: float
) -> Optimizer:
    """A rate that rises in a line for some epochs."""
    steps = epochs * setting.steps_per_epoch
    return scheduled(optax.linear_schedule(start, rate, steps), **sgd)


def decayed(
    setting: Setting, *, rate: float, ends: tuple[float, ...], **sgd: float
) -> Optimizer:
    """A rate that falls to a tenth after each of several parts of the run."""
    tenths = {round(setting.steps * end): 0.1 for end in ends}
    return scheduled(optax.piecewise_constant_schedule(rate, tenths), **sgd)


def change(
    setting: Setting,
    *,
    gamma_up: float,
    gamma_down: float,
    epsilon: float,
    **options: float,
) -> Optimizer:
    """SGD under the paper's policy A."""
    policy = optax_mi.change_policy(gamma_up, gamma_down, epsilon)
    return _dynamic(setting, policy, **options)


def reference(
    setting: Setting,
    *,
    gamma_up: float,
    gamma_down: float,
    gamma_over: float,
    epsilon: float,
    **options: float,
) -> Optimizer:
    """SGD under the paper's policy B."""
    policy = optax_mi.reference_policy(gamma_up, gamma_down, gamma_over, epsilon)
    return _dynamic(setting, policy, **options)


def layerwise(setting: Setting, *, lr_max: float, **gammas: float) -> Optimizer:
    """SGD under policy B, with a rate for each layer."""
    rates = optax_mi.layerwise_mi_dynamic_lr(
        "auto",
        LR_MIN,
        lr_max,
        policy=optax_mi.reference_policy(**gammas),
        reference=setting.reference,
    )
    return _following(rates)


MI_DRIVEN = (change, reference, layerwise)


def _dynamic(
    setting: Setting,
    policy: optax_mi.Policy,
    *,
    lr_max: float = LR_MAX,
    init_lr: float | None = None,
    **sgd: float,
) -> Optimizer:
    rate = optax_mi.mi_dynamic_lr(
        LR_MIN, lr_max, policy=policy, reference=setting.reference, init_lr=init_lr
    )
    return _following(rate, **sgd)


def _following(rate: optax.GradientTransformation, **sgd: float) -> Optimizer:
    chain = optax.chain(_sgd(**sgd), rate)
    return Optimizer(chain, optax_mi.learning_rates, follows_mi=True)


def _sgd(
    momentum: float | None = None, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """SGD at a rate of 1, which what follows it scales."""
    sgd = optax.sgd(1.0, momentum=momentum)
    if not weight_decay:
        return sgd
    return optax.chain(optax.add_decayed_weights(weight_decay), sgd)
