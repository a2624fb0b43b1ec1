"""Results by setting, and what is read off them."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.common.results import Result, recorded
from examples.paper.experiments import CURVES, EXPERIMENTS, PAPER, TUNING, Row

METRIC = "test accuracy (%)"
FULL = {"mnist": 60_000, "cifar10": 50_000}  # images, as in the paper


class Group(NamedTuple):
    """What the runs of one table share."""

    figure: str
    model: str
    dataset: str
    train_size: int
    epochs: int
    batch_size: int

    @property
    def data(self) -> str:
        """The data set and the model."""
        return f"{self.dataset}, {self.train_size:,} images, model `{self.model}`"

    @property
    def title(self) -> str:
        """The title of a table."""
        run = f", {self.epochs} epochs, batches of {self.batch_size}"
        return f"{self.figure}: {self.data}{run if self.epochs else ''}"

    def reported(self, row: str) -> str:
        """What the paper reports of a row, empty for a part of the images."""
        whole = self.train_size == FULL.get(self.dataset)
        return PAPER.get((self.figure, row), "") if whole else ""

    def picture(self, out: Path, suffix: str = "") -> Path:
        """The path of a picture."""
        data = f"{self.model}-{self.dataset}-{self.train_size}"
        run = f"{self.epochs}x{self.batch_size}"
        return out / f"{self.figure}-{data}-{run}{suffix}.png"


Runs = dict[str, list[Result]]  # by row and seed


def read(folder: Path) -> dict[Group, Runs]:
    """All results by setting, their accuracy in percent too."""
    groups: dict[Group, Runs] = {}
    for name in (*CURVES, *EXPERIMENTS, TUNING):
        path = folder / f"{name}.jsonl"
        for run in sorted(recorded(path), key=lambda run: run.config["seed"]):
            config = run.config
            group = Group(*(config[field] for field in Group._fields))
            row = Row(config["row"], "", [], tuned_rate=config["tuned_rate"])
            seeds = groups.setdefault(group, {}).setdefault(row.key, [])
            if seeds and seeds[-1].config["seed"] == config["seed"]:
                told = f"{path} has two runs {run.about['name']!r}"
                sys.exit(f"{told}: take the line of one of them out.")
            for epoch in run.history.rows:
                epoch[METRIC] = 100 * epoch["accuracy"]
            seeds.append(run)
    return dict(sorted(groups.items()))


def column(runs: Sequence[Result], name: str = METRIC) -> np.ndarray:
    """A quantity [seeds, epochs], that of the first layer where each has its own."""
    histories = [run.history for run in runs]
    return np.stack([each.column(name, each.layers[0]) for each in histories])


def final(runs: Sequence[Result]) -> np.ndarray:
    """The accuracy of each seed after the last epoch, in percent."""
    return column(runs)[:, -1]


def rows_of(group: Group, runs: Runs) -> list[Row]:
    """The rows that have results, each rate of a grid as a row of its own."""
    known = EXPERIMENTS[group.figure]
    tuned = [[row.at(rate) for rate in row.grid] or [row] for row in known]
    rows = [row for each in tuned for row in each if row.key in runs]
    if strays := set(runs) - {row.key for row in rows}:
        sys.exit(f"{group.figure} has results of unknown rows: {strays}")
    return rows


def ends_of(group: Group, rows: Sequence[Row], runs: Runs) -> dict[int, float]:
    """The first row's final accuracy by seed, none where that row was not run."""
    if rows[0].name != EXPERIMENTS[group.figure][0].name:
        return {}
    return {run.config["seed"]: final([run])[0] for run in runs[rows[0].key]}


def reached(seeds: Sequence[Result], goals: Mapping[int, float]) -> str:
    """The epoch at which each seed first has the accuracy that is its goal."""
    told = []
    for run, accuracy in zip(seeds, column(seeds), strict=True):
        goal = goals.get(run.config["seed"], math.nan)
        there = accuracy >= goal
        never = "" if math.isnan(goal) else "never"
        told.append(str(there.argmax()) if there.any() else never)
    return ", ".join(filter(None, told))
