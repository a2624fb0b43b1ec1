"""The methods that a user would pick instead, each with a rate tuned for it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
from optax import contrib

from examples.data import Dataset, hold_out
from examples.paper.experiments import Phase, Row
from examples.paper.figures import CHANGE, FINE, SAME_RATE
from examples.paper.optimizers import Optimizer, Setting, constant, scheduled

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
    make: Callable[..., Optimizer]
    grid: Grid

    def row(self, name: str, rate: float) -> Row:
        """The row of this method at a rate."""
        phase = Phase(self.make, {"rate": rate})
        return Row(name, f"{self.title}, {rate:g}", [phase], tuned_rate=rate)


def tenth_warm_up(setting: Setting, *, rate: float) -> Optimizer:
    """From a tenth of the rate, over a tenth of the run."""
    steps = setting.steps // 10
    return scheduled(optax.linear_schedule(rate / 10, rate, steps))


def cosine(setting: Setting, *, rate: float) -> Optimizer:
    """The same warm-up, and then half a cosine down to zero."""
    steps = setting.steps
    return scheduled(
        optax.warmup_cosine_decay_schedule(rate / 10, rate, steps // 10, steps)
    )


def one_cycle(setting: Setting, *, rate: float) -> Optimizer:
    """Optax's cosine one-cycle schedule."""
    return scheduled(optax.cosine_onecycle_schedule(setting.steps, rate))


def plateau(setting: Setting, *, rate: float) -> Optimizer:
    """Half the rate after three epochs without a lower training loss."""
    scale = contrib.reduce_on_plateau(
        factor=0.5, patience=3, accumulation_size=setting.steps_per_epoch
    )
    return Optimizer(
        optax.chain(optax.sgd(rate), scale),
        lambda state: {"": rate * float(optax.tree.get(state, "scale"))},
    )


def adam(setting: Setting, *, rate: float) -> Optimizer:
    """Adam at a constant rate."""
    del setting
    return _constant_rate(optax.adam(rate), rate)


def prodigy(setting: Setting, *, rate: float) -> Optimizer:
    """Prodigy, whose rate multiplies the one that it finds."""
    del setting
    return _constant_rate(contrib.prodigy(rate), rate)


def schedule_free(setting: Setting, *, rate: float) -> Optimizer:
    """Schedule-free SGD after an epoch of warm-up."""
    tx = contrib.schedule_free_sgd(rate, warmup_steps=setting.steps_per_epoch)
    return _constant_rate(tx, rate, eval_params=contrib.schedule_free_eval_params)


def _constant_rate(transformation: Any, rate: float, **options: Any) -> Optimizer:
    tx = optax.with_extra_args_support(transformation)
    return Optimizer(tx, lambda state: {"": rate}, **options)


BASELINES = {
    "constant": Baseline("constant", constant, _SGD),
    "warm_up": Baseline("warm-up", tenth_warm_up, _SGD),
    "cosine": Baseline("warm-up and cosine", cosine, _SGD),
    "one_cycle": Baseline("one-cycle", one_cycle, _SGD),
    "plateau": Baseline("reduce on plateau (training loss)", plateau, _SGD),
    "adam": Baseline("Adam", adam, (3e-4, 1e-3, 3e-3)),
    "schedule_free": Baseline("schedule-free SGD", schedule_free, (0.1, 0.3, 1.0)),
    "prodigy": Baseline("Prodigy", prodigy, (0.3, 1.0)),
}
TUNING = "baselines-tuning"

# Nothing of these is tuned but the bounds, which are the paper's.
UNTUNED = [CHANGE, SAME_RATE, FINE]


def score(accuracy: np.ndarray) -> float:
    """What a rate is judged by: its mean accuracy over the last five epochs.

    Those of single epochs are often equal, as few examples are held out.
    """
    return math.fsum(accuracy[-5:]) / len(accuracy[-5:])


def with_validation(dataset: Dataset) -> Dataset:
    """The data set with held-out training examples in the place of the test set."""
    rest, (x, y) = hold_out(dataset)
    return rest._replace(test_x=x, test_y=y)
