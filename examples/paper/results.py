"""The results of experiments: a JSON-Lines file for each, a line for each run."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import optax_mi
from examples.paper.baselines import BASELINES, TUNING, UNTUNED
from examples.paper.curves import CURVES
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES

NAMES = (*CURVES, *FIGURES, "baselines", TUNING)
METRIC = "test accuracy (%)"


class Result(NamedTuple):
    """One row, one seed: what was said of it, and how it trained."""

    about: Mapping[str, Any]  # its name, configuration and environment, or its curve
    history: optax_mi.MIHistory

    @property
    def config(self) -> dict[str, Any]:
        """What it depends on."""
        return self.about["config"]


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
        """What was trained on, and with what."""
        return f"{self.dataset}, {self.train_size:,} images, model `{self.model}`"

    @property
    def title(self) -> str:
        """All of it."""
        run = f", {self.epochs} epochs, batches of {self.batch_size}" * (
            self.epochs > 0
        )
        return f"{self.figure}: {self.data}{run}"

    @property
    def stem(self) -> str:
        """A name for a file."""
        data = f"{self.model}-{self.dataset}-{self.train_size}"
        return f"{self.figure}-{data}-{self.epochs}x{self.batch_size}"


Results = dict[Group, dict[str, list[Result]]]


def experiment(folder: Path, figure: str) -> Path:
    """The file of an experiment's runs."""
    return folder / f"{figure}.jsonl"


def recorded(path: Path) -> list[Result]:
    """The runs of one experiment."""
    if not path.exists():
        return []
    return [Result(*run) for run in optax_mi.MIHistory.from_jsonl(path)]


def find(results: Sequence[Result], config: Mapping[str, Any]) -> Result | None:
    """The run of a configuration, if it is there."""
    as_kept = json.loads(json.dumps(config))
    return next((result for result in results if result.config == as_kept), None)


def read(folder: Path) -> Results:
    """All results by setting and row, each row's by seed.

    Raises:
      ValueError: If two of them are of one row and seed in the same setting.
    """
    results: Results = {}
    for figure in NAMES:
        for result in recorded(experiment(folder, figure)):
            config = result.config
            group = Group(*(config[name] for name in Group._fields))
            row = _key(config["row"], config["tuned_rate"])
            runs = results.setdefault(group, {}).setdefault(row, [])
            if config["seed"] in (run.config["seed"] for run in runs):
                raise ValueError(
                    f"{experiment(folder, figure)} has two runs "
                    f"{result.about['name']!r}: take out the line of one of them."
                )
            runs.append(result)
    for by_row in results.values():
        for runs in by_row.values():
            runs.sort(key=lambda result: result.config["seed"])
    return results


def _key(row: str, rate: float | None) -> str:
    return row if rate is None else f"{row} {rate:g}"


def rows_of(group: Group, by_row: dict[str, list[Result]]) -> list[Row]:
    """The rows that have results, the tuned ones by the rates that were run.

    Raises:
      ValueError: If there is a result of a row that there is no longer.
    """
    tuned = [
        dataclasses.replace(baseline.row(name, rate), name=_key(name, rate))
        for name, baseline in BASELINES.items()
        for rate in baseline.grid
    ]
    known = FIGURES.get(group.figure, [*tuned, *UNTUNED])
    rows = [row for row in known if row.name in by_row]
    strays = set(by_row) - {row.name for row in rows}
    if strays:
        raise ValueError(f"{group.figure} has results of unknown rows: {strays}")
    return rows


def final(runs: Sequence[Result]) -> np.ndarray:
    """The accuracy of each seed after the last epoch, in percent."""
    return accuracies(runs)[:, -1]


def accuracies(runs: Sequence[Result]) -> np.ndarray:
    """Accuracies [seeds, epochs] in percent."""
    return 100 * np.stack([column(run, "accuracy") for run in runs])


def column(result: Result, name: str) -> np.ndarray:
    """What a run recorded of all layers, or of the first one."""
    return result.history.column(name, result.history.layers[0])


def in_percent(history: optax_mi.MIHistory) -> optax_mi.MIHistory:
    """The same run with its accuracy in percent, for pictures."""
    rows = [row | {METRIC: 100 * row["accuracy"]} for row in history.rows]
    return optax_mi.MIHistory(rows)


def machine(result: Result) -> str:
    """Where it was run."""
    environment = result.about["environment"]
    device = " ".join(dict.fromkeys(environment["device"].split()))
    parts = [environment["machine"], device, f"jax {environment['jax']}"]
    if "processors" in environment:
        parts.insert(1, f"processors: {environment['processors']}")
    return ", ".join(parts) + "."
