"""What an experiment is made of: rows, their phases and their optimizers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optax

import optax_mi

LR_MIN, LR_MAX = 0.001, 0.1  # the paper's bounds
SGD = optax.sgd(1.0)  # plain, its rate set by what follows it


class Setting(NamedTuple):
    """What an optimizer has to know of its run."""

    epochs: int
    steps_per_epoch: int
    reference: float  # nats


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


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training under one optimizer and batch size.

    Attributes:
      optimizer: Made anew, its state too; SGD has none of its own.
      batches: How many times larger its batches are than the run's.
      start: The epoch it starts at.
      value_only: Measurements judged by their value alone from its start on.
    """

    optimizer: Callable[[Setting], Optimizer]
    batches: int = 1
    start: int = 0
    value_only: int = 0


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How a row is measured.

    Attributes:
      size: Examples in the probe, or all where there are fewer.
      seed: Which of them.
      held_out: Whether they come from examples that are not trained on.
      k: Neighbours of the estimate.
    """

    size: int = 1000
    seed: int = 0
    held_out: bool = False
    k: int = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a figure.

    Attributes:
      name: Its name in file names.
      title: Its name for readers.
      phases: How it trains, in their order.
      layers: What is measured; "" is the output.
      measuring: And how.
      augment: Whether training images are flipped and shifted.
      paper: What the paper reports.
      tuned_rate: The learning rate, where it was tuned.
    """

    name: str
    title: str
    phases: Sequence[Phase]
    layers: str | tuple[str, ...] = ""
    measuring: Measuring = Measuring()
    augment: bool = False
    paper: str = ""
    tuned_rate: float | None = None


def scheduled(
    schedule: Callable[[Setting], Any],
    base: optax.GradientTransformation = SGD,
) -> Callable[[Setting], Optimizer]:
    """An optimizer of rate 1 under a rate that is known beforehand."""

    def make(setting: Setting) -> Optimizer:
        rate = optax.inject_hyperparams(optax.scale)(schedule(setting))
        return Optimizer(
            optax.with_extra_args_support(optax.chain(base, rate)),
            lambda state: {"": float(state[1].hyperparams["step_size"])},
        )

    return make


def dynamic(
    base: optax.GradientTransformation = SGD, **options: Any
) -> Callable[[Setting], Optimizer]:
    """An optimizer of rate 1 under a rate that the output's information sets."""

    def make(setting: Setting) -> Optimizer:
        arguments: dict[str, Any] = {
            "lr_min": LR_MIN,
            "lr_max": LR_MAX,
            "reference": setting.reference,
            **options,
        }
        rate = optax_mi.mi_dynamic_lr(**arguments)
        return Optimizer(
            optax.chain(base, rate), optax_mi.learning_rates, follows_mi=True
        )

    return make


def layerwise(lr_max: float, **policy: float) -> Callable[[Setting], Optimizer]:
    """Plain SGD with a rate for each layer."""

    def make(setting: Setting) -> Optimizer:
        rates = optax_mi.layerwise_mi_dynamic_lr(
            "auto",
            LR_MIN,
            lr_max,
            policy=optax_mi.reference_policy(**policy),
            reference=setting.reference,
        )
        return Optimizer(
            optax.chain(SGD, rates), optax_mi.learning_rates, follows_mi=True
        )

    return make
