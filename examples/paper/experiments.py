"""What each of the paper's figures compares: its rows and their optimizers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import optax

import optax_mi

LR = 0.01  # the paper's fixed rate, and the end of its warm-up
LR_MIN, LR_MAX = 0.001, 0.1
WARM_UP_EPOCHS = 5


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
class Row:
    """One line of a figure.

    Attributes:
      name: Its name in file names.
      title: Its name for readers.
      phases: How it trains, in their order.
      layers: What is measured; "" is the output.
      paper: What the paper reports.
      tuned_rate: The learning rate, where it was tuned.
    """

    name: str
    title: str
    phases: Sequence[Phase]
    layers: str | tuple[str, ...] = ""
    paper: str = ""
    tuned_rate: float | None = None


def scheduled(schedule: Callable[[Setting], Any]) -> Callable[[Setting], Optimizer]:
    """Plain SGD with a rate that is known beforehand."""

    def make(setting: Setting) -> Optimizer:
        sgd = optax.inject_hyperparams(optax.sgd)(schedule(setting))
        return Optimizer(optax.with_extra_args_support(sgd), _injected)

    return make


def dynamic(**options: Any) -> Callable[[Setting], Optimizer]:
    """Plain SGD with a rate that the output's information sets."""

    def make(setting: Setting) -> Optimizer:
        arguments: dict[str, Any] = {
            "lr_min": LR_MIN,
            "lr_max": LR_MAX,
            "reference": setting.reference,
            **options,
        }
        rate = optax_mi.mi_dynamic_lr(**arguments)
        return Optimizer(
            optax.chain(optax.sgd(1.0), rate), optax_mi.learning_rates, follows_mi=True
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
            optax.chain(optax.sgd(1.0), rates), optax_mi.learning_rates, follows_mi=True
        )

    return make


def _injected(state: Any) -> dict[str, float]:
    return {"": float(state.hyperparams["learning_rate"])}


def _warm_up(setting: Setting) -> optax.Schedule:
    return optax.linear_schedule(LR_MIN, LR, WARM_UP_EPOCHS * setting.steps_per_epoch)


_fixed = scheduled(lambda setting: optax.constant_schedule(LR))
_change = optax_mi.change_policy
_reference = optax_mi.reference_policy
_LAYERS = ("Conv_0", "Conv_1", "Dense_0", "logits")

FIXED = Row("fixed", "fixed 0.01", [Phase(_fixed)])
WARM_UP = Row("warm_up", "warm-up to 0.01", [Phase(scheduled(_warm_up))])
CHANGE = Row(
    "change",
    "MI: change (A)",
    [Phase(dynamic(policy=_change(gamma_up=0.1, gamma_down=1.0)))],
)
CHANGE_DAMPENED = Row(
    "change_dampened",
    "MI: change (A), increases dampened",
    [Phase(dynamic(policy=_change(gamma_up=0.01, gamma_down=1.0)))],
)
DAMPENED = Row(
    "dampened",
    "MI: change and value (B), increases dampened",
    [Phase(dynamic(policy=_reference(0.01, 0.01, 0.1)))],
)
SAME_RATE = Row(
    "same_rate",
    "MI: change and value (B), same rate",
    [Phase(dynamic(policy=_reference(0.1, 0.1, 0.1)))],
)

FIGURES: dict[str, list[Row]] = {
    # The paper's captions give the dampened row of Figure 3 no policy.
    "figure3": [
        dataclasses.replace(FIXED, paper="98.94 (98.99 at 38)"),
        dataclasses.replace(WARM_UP, paper="98.95 (98.99 at 38)"),
        dataclasses.replace(CHANGE, paper="99.05 (99.11 at 19)"),
        DAMPENED,
        dataclasses.replace(SAME_RATE, paper="99.22 (99.24 at 25)"),
    ],
    "figure4": [
        dataclasses.replace(FIXED, paper="62.99 (63.27 at 115)"),
        dataclasses.replace(WARM_UP, paper="63.29 (63.36 at 130)"),
        dataclasses.replace(CHANGE_DAMPENED, paper="63.11 (63.99 at 43)"),
        dataclasses.replace(DAMPENED, paper="65.61 (65.67 at 42)"),
        SAME_RATE,
    ],
    "figure5": [
        Row("base", "fixed 0.01, batches of 100", [Phase(_fixed)], paper="98.93"),
        Row(
            "fixed",
            "fixed 0.01, batches of 500 from epoch 3",
            [Phase(_fixed), Phase(_fixed, batches=5, start=3)],
            paper="98.68 (98.68 at 49)",
        ),
        Row(
            "dynamic",
            "MI: change and value (B), batches of 500 from epoch 3",
            [
                Phase(_fixed),
                Phase(dynamic(init_lr=LR), batches=5, start=3, value_only=5),
            ],
            paper="99.07 (99.09 at 31)",
        ),
    ],
    "figure6": [
        Row(
            "layerwise",
            "MI: change and value (B), a rate for each layer",
            [Phase(layerwise(lr_max=0.05))],
            layers=_LAYERS,
            paper="98.99 (99.08 at 11)",
        ),
        # Wide layers of random weights say nearly all from the start: at the paper's
        # epsilon of 1 % their information never changes.
        Row(
            "layerwise_fine",
            "the same, with an epsilon of 0.01 %",
            [Phase(layerwise(lr_max=0.05, epsilon=1e-4))],
            layers=_LAYERS,
        ),
    ],
}
