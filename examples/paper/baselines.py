"""The methods that a user would pick instead, each with a rate tuned for it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax
from optax import contrib

from examples.data import Dataset, hold_out
from examples.paper.experiments import Optimizer, Phase, Row, Setting, scheduled
from examples.paper.figures import CHANGE, SAME_RATE

Grid = tuple[float, ...]

_SGD: Grid = (0.01, 0.03, 0.1, 0.3)


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A method that has a rate to be tuned.

    Attributes:
      title: Its name for readers.
      make: Its optimizer at a rate.
      grid: The rates that are tried.
    """

    title: str
    make: Callable[[Setting, float], Optimizer]
    grid: Grid

    def row(self, name: str, rate: float) -> Row:
        """The row of this method at a rate."""
        phase = Phase(lambda setting: self.make(setting, rate))
        return Row(name, f"{self.title}, {rate:g}", [phase], tuned_rate=rate)


def _schedule(make: Callable[[int, float], Any]) -> Callable[..., Optimizer]:
    """SGD under a schedule of (steps, rate)."""

    def with_rate(setting: Setting, rate: float) -> Optimizer:
        steps = setting.epochs * setting.steps_per_epoch
        return scheduled(lambda _: make(steps, rate))(setting)

    return with_rate


def _warm_up(steps: int, rate: float) -> optax.Schedule:
    return optax.linear_schedule(rate / 10, rate, steps // 10)


def _cosine(steps: int, rate: float) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(rate / 10, rate, steps // 10, steps)


def _one_cycle(steps: int, rate: float) -> optax.Schedule:
    return optax.cosine_onecycle_schedule(steps, rate)


def _plateau(setting: Setting, rate: float) -> Optimizer:
    scale = contrib.reduce_on_plateau(
        factor=0.5, patience=3, accumulation_size=setting.steps_per_epoch
    )
    return Optimizer(
        optax.chain(optax.sgd(rate), scale),
        lambda state: {"": rate * float(optax.tree.get(state, "scale"))},
    )


def _constant_rate(make: Callable[[float], Any]) -> Callable[..., Optimizer]:
    def with_rate(setting: Setting, rate: float) -> Optimizer:
        del setting
        tx = optax.with_extra_args_support(make(rate))
        return Optimizer(tx, lambda state: {"": rate})

    return with_rate


def _schedule_free(setting: Setting, rate: float) -> Optimizer:
    tx = contrib.schedule_free_sgd(rate, warmup_steps=setting.steps_per_epoch)
    return Optimizer(
        optax.with_extra_args_support(tx),
        lambda state: {"": rate},
        eval_params=contrib.schedule_free_eval_params,
    )


BASELINES = {
    "constant": Baseline(
        "constant", _schedule(lambda _, rate: optax.constant_schedule(rate)), _SGD
    ),
    "warm_up": Baseline("warm-up", _schedule(_warm_up), _SGD),
    "cosine": Baseline("warm-up and cosine", _schedule(_cosine), _SGD),
    "one_cycle": Baseline("one-cycle", _schedule(_one_cycle), _SGD),
    "plateau": Baseline("reduce on plateau", _plateau, _SGD),
    "adam": Baseline("Adam", _constant_rate(optax.adam), (3e-4, 1e-3, 3e-3)),
    "schedule_free": Baseline("schedule-free SGD", _schedule_free, (0.1, 0.3, 1.0)),
    "prodigy": Baseline("Prodigy", _constant_rate(contrib.prodigy), (0.3, 1.0)),
}
TUNING = "baselines-tuning"

# Nothing of these is tuned but the bounds, which are the paper's.
UNTUNED = [CHANGE, SAME_RATE]


def with_validation(dataset: Dataset) -> Dataset:
    """The data set with held-out training examples in the place of the test set."""
    rest, (x, y) = hold_out(dataset)
    return rest._replace(test_x=x, test_y=y)
