"""What an experiment is made of: rows, their phases and how they are measured."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from examples.paper.optimizers import MI_DRIVEN, Optimizer, Setting


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training under one optimizer and batch size.

    Attributes:
      optimizer: Made anew, its state too; SGD has none of its own.
      options: And what it is made with.
      batches: How many times larger its batches are than the run's.
      start: The epoch it starts at.
      value_only: Measurements judged by their value alone from its start on.
    """

    optimizer: Callable[..., Optimizer]
    options: Mapping[str, Any]
    batches: int = 1
    start: int = 0
    value_only: int = 0

    def make(self, setting: Setting) -> Optimizer:
        """Its optimizer in a run."""
        return self.optimizer(setting, **self.options)

    @property
    def config(self) -> dict[str, Any]:
        """All of it, as its results tell it."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "optimizer": self.optimizer.__name__}


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

    @property
    def follows_mi(self) -> bool:
        """Whether it needs what is measured."""
        return any(phase.optimizer in MI_DRIVEN for phase in self.phases)

    @property
    def config(self) -> dict[str, Any]:
        """What its results depend on."""
        return {
            "row": self.name,
            "tuned_rate": self.tuned_rate,
            "phases": [phase.config for phase in self.phases],
            "layers": self.layers,
            "measuring": dataclasses.asdict(self.measuring),
            "augment": self.augment,
        }
