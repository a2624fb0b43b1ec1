"""The results of experiments, as `examples.paper.run` wrote them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import optax_mi
from examples.paper.baselines import BASELINES, UNTUNED
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES

METRIC = "test accuracy (%)"

Result = dict[str, Any]  # a JSON file: one row, one seed


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


def read(folder: Path) -> Results:
    """All results by setting and row, each row's by seed."""
    results: Results = {}
    for path in sorted(folder.glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        config = result["config"]
        group = Group(*(config[name] for name in Group._fields))
        row = _key(config["row"], config["tuned_rate"])
        results.setdefault(group, {}).setdefault(row, []).append(result)
    for by_row in results.values():
        for runs in by_row.values():
            runs.sort(key=lambda result: result["config"]["seed"])
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
    return 100 * np.array([[e["accuracy"] for e in r["epochs"]] for r in runs])


def history(result: Result) -> optax_mi.MIHistory:
    """A run as a history: a row for each layer that was measured."""
    run = optax_mi.MIHistory()
    for epoch in result["epochs"]:
        rates = epoch["learning_rate"]
        metrics: dict[str, Any] = {METRIC: 100 * epoch["accuracy"]}
        for layer, mi in epoch["mi"].items():
            run.add(
                epoch=epoch["epoch"],
                learning_rate=rates.get(layer, rates.get("", np.nan)),
                mi=np.nan if mi is None else mi,  # what diverged is not a number
                reference=epoch["reference"],
                layer=layer,
                **metrics,
            )
    return run


def machine(result: Result) -> str:
    """Where it was run."""
    environment = result["environment"]
    device = " ".join(dict.fromkeys(environment["device"].split()))
    parts = [environment["machine"], device, f"jax {environment['jax']}"]
    if "processors" in environment:
        parts.insert(1, f"processors: {environment['processors']}")
    return ", ".join(parts) + "."
