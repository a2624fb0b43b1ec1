"""Tables and pictures of all results: `python -m examples.paper.report`.

Reads the files that `examples.paper.run` wrote, and writes a picture for each
experiment and setting and one page of tables beside them.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

import optax_mi
from examples.common.networks import KINDS
from examples.common.report import dots, markdown, mean, over_seeds
from examples.common.results import recorded
from examples.paper.experiments import (
    CURVES,
    EXPERIMENTS,
    PAPER,
    TUNING,
    Row,
    score,
)
from optax_mi import plots

METRIC = "test accuracy (%)"
INTRODUCTION = (
    "Written by `python -m examples.paper.report` from the `.jsonl` files beside it, "
    "which hold every number. Accuracies are of the test set, but for "
    f"`{TUNING}`, whose are of held-out training examples; over seeds as mean and "
    "standard deviation. Epochs count from 0. Seconds are those of all epochs, by the "
    "median one, for training, and for measuring where the rate follows it; runs "
    "beside each other on one machine slow each other down, so that only large "
    "differences mean something."
)


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
    def panel(self) -> str:
        """What tells it apart in a picture."""
        return f"{self.dataset}\n{self.train_size:,} images, {self.epochs} epochs"

    @property
    def title(self) -> str:
        """All of it."""
        run = f", {self.epochs} epochs, batches of {self.batch_size}"
        return f"{self.figure}: {self.data}{run if self.epochs else ''}"

    @property
    def stem(self) -> str:
        """A name for a file."""
        data = f"{self.model}-{self.dataset}-{self.train_size}"
        return f"{self.figure}-{data}-{self.epochs}x{self.batch_size}"


class Seeds(NamedTuple):
    """The runs of one row, one for each seed; of a curve, without histories."""

    about: list[Mapping[str, Any]]
    histories: list[optax_mi.MIHistory]

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracies [seeds, epochs] in percent."""
        return over_seeds(self.histories, METRIC)

    @property
    def final(self) -> np.ndarray:
        """That of each seed after the last epoch."""
        return self.accuracy[:, -1]


Runs = dict[str, Seeds]  # by row


def read(folder: Path) -> dict[Group, Runs]:
    """All results by setting and row.

    Raises:
      ValueError: If two of them are of one row and seed in the same setting.
    """
    groups: dict[Group, Runs] = {}
    for name in (*CURVES, *EXPERIMENTS, TUNING):
        path = folder / f"{name}.jsonl"
        for about, history in sorted(
            recorded(path), key=lambda run: run.config["seed"]
        ):
            config = about["config"]
            group = Group(*(config[field] for field in Group._fields))
            row = Row(config["row"], "", [], tuned_rate=config["tuned_rate"])
            seeds = groups.setdefault(group, {}).setdefault(row.key, Seeds([], []))
            if config["seed"] in (there["config"]["seed"] for there in seeds.about):
                raise ValueError(
                    f"{path} has two runs {about['name']!r}: take one line out."
                )
            for epoch in history.rows:
                epoch[METRIC] = 100 * epoch["accuracy"]
            seeds.about.append(about)
            seeds.histories.append(history)
    return dict(sorted(groups.items()))


def rows_of(group: Group, runs: Runs) -> list[Row]:
    """The rows that have results, the tuned ones by the rates that were run.

    Raises:
      ValueError: If there is a result of a row that there is no longer.
    """
    known = EXPERIMENTS[group.figure if group.figure != TUNING else "baselines"]
    tuned = [[row.at(rate) for rate in row.grid] or [row] for row in known]
    rows = [row for each in tuned for row in each if row.key in runs]
    if strays := set(runs) - {row.key for row in rows}:
        raise ValueError(f"{group.figure} has results of unknown rows: {strays}")
    return rows


def training_table(group: Group, rows: Sequence[Row], runs: Runs) -> str:
    """Rows that were trained, and when each was where the first one ends."""
    header = ["", "seeds", "final accuracy (%)", "best (epoch)"]
    goal, ends = rows[0], dict[int, float]()
    if goal.name == EXPERIMENTS[group.figure][0].name:
        header.append(f"epoch that reaches the end of “{goal.title}”")
        ends = dict(zip(seeds_of(runs[goal.key]), runs[goal.key].final, strict=True))
    header += ["rates", "seconds", "measuring / training", "the paper"]
    lines = []
    for row in rows:
        seeds = runs[row.key]
        best = (f"{a.max():.2f} ({a.argmax()})" for a in seeds.accuracy)
        line = [row.title, str(len(seeds.about)), mean(seeds.final), ", ".join(best)]
        if ends:
            goals = [ends.get(seed, math.nan) for seed in seeds_of(seeds)]
            line.append(", ".join(map(reached, seeds.accuracy, goals)))
        rates = [each["learning_rate"] for run in seeds.histories for each in run.rows]
        # An epoch that compiles, or in which the machine stood still, weighs nothing.
        train, measure = (
            float(np.median(over_seeds(seeds.histories, f"{what}_seconds")))
            for what in ("train", "measure")
        )
        whole = group.epochs * (train + measure * row.takes_mi)
        # A half is rounded up, as by hand; which side of it a float is on says nothing.
        whole = math.floor(round(whole, 3) + 0.5)
        line += [f"{min(rates):.4f} to {max(rates):.4f}", f"{whole}"]
        paper = PAPER.get((group.figure, row.name), "")
        lines.append([*line, f"{measure / train:.1%}", paper])
    return markdown(header, lines)


def seeds_of(seeds: Seeds) -> list[int]:
    """Which they are."""
    return [about["config"]["seed"] for about in seeds.about]


def reached(accuracy: np.ndarray, goal: float) -> str:
    """The first epoch of an accuracy."""
    return str(next(iter(np.flatnonzero(accuracy >= goal)), "never"))


def tuning_table(runs: Runs) -> str:
    """The mean accuracy on held-out training examples of each rate that was tried."""
    lines = []
    for row in EXPERIMENTS["baselines"]:
        keys = {rate: row.at(rate).key for rate in row.grid}
        tried = {r: score(runs[k].accuracy[0]) for r, k in keys.items() if k in runs}
        if tried:
            best = max(tried, key=lambda rate: tried[rate])
            edge = "the grid's edge" if best in (min(tried), max(tried)) else ""
            told = ", ".join(f"{rate:g}: {value:.2f}" for rate, value in tried.items())
            lines.append([row.title, told, f"{best:g}", edge])
    return markdown(["", "rate: accuracy (%)", "best rate", ""], lines)


def draw(rows: Sequence[Row], runs: Runs, path: Path) -> list[Path]:
    """Draws one setting: its rows over each other, or each layer-wise one alone."""
    if rows[0].layers:
        paths = [path.with_stem(f"{path.stem}-{row.name}") for row in rows]
        for row, own in zip(rows, paths, strict=True):
            histories = runs[row.key].histories
            figure, _ = plots.layers(histories, kinds=KINDS, metric=METRIC)
            figure.suptitle(row.title)
            figure.savefig(own, dpi=100)
        return paths
    by_title = {row.title: runs[row.key].histories for row in rows}
    figure, axes = plots.training(by_title, metric=METRIC)
    # The first epochs would take up the axis; what is compared is the rest.
    scores = np.concatenate([runs[row.key].accuracy for row in rows])
    low, high = np.percentile(scores, 10), np.max(scores)
    axes[1].set_ylim(low, high + 0.1 * (high - low) + 0.01)
    figure.savefig(path, dpi=100)
    return [path]


def curve(group: Group, seeds: Seeds, path: Path) -> str:
    """Draws a curve and says in a table what it holds."""
    first = seeds.about[0]
    if group.figure == "figure1":
        sizes = np.array(first["sizes"])
        # The seeds are repeats as any others.
        estimates = np.concatenate([each["estimates"] for each in seeds.about], axis=1)
        means, spread = estimates.mean(axis=1), estimates.std(axis=1, ddof=1)
        found = optax_mi.SampleSizeCurve(sizes, means, spread, estimates)
        figure, _ = plots.sample_size({group.dataset: found})
        header = ["sample", "I(X; Y), nats", "standard deviation"]
        columns = zip(sizes, means, spread, strict=True)
        lines = [[str(n), f"{mean:.3f}", f"{std:.3f}"] for n, mean, std in columns]
    else:
        columns = [np.array(first[x], float) for x in ("learning_rate", "loss", "mi")]
        found: Any = (*columns, first["lr_min"], first["lr_max"])
        figure, _ = plots.range_test(optax_mi.LRRangeTest(*found))
        header = ["seed", "suggested lr_min", "suggested lr_max"]
        bounds = [(each["lr_min"], each["lr_max"]) for each in seeds.about]
        lines = [
            [str(seed), f"{low:.2g}", f"{high:.2g}"]
            for seed, (low, high) in zip(seeds_of(seeds), bounds, strict=True)
        ]
    figure.savefig(path, dpi=100)
    return markdown(header, lines)


def section(group: Group, runs: Runs, out: Path) -> list[str]:
    """A setting's paragraphs: its table, its pictures and its machines."""
    path = out / f"{group.stem}.png"
    pictures = [path]
    if group.figure in CURVES:
        table = curve(group, runs[group.figure], path)
    elif group.figure == TUNING:
        table, pictures = tuning_table(runs), []
    else:
        rows = rows_of(group, runs)
        table = training_table(group, rows, runs)
        if group.figure == "baselines":
            values = {row.title: runs[row.key].final for row in rows}
            dots({group.panel: values}, METRIC).savefig(path, dpi=100)
        else:
            pictures = draw(rows, runs, path)
    machines = {
        machine(about["environment"])
        for seeds in runs.values()
        for about in seeds.about
    }
    images = [f"![{group.title}]({picture.name})" for picture in pictures]
    return [f"## {group.title}", table, *images, *sorted(machines)]


def machine(environment: Mapping[str, Any]) -> str:
    """Where it was run."""
    device = " ".join(dict.fromkeys(environment["device"].split()))
    parts = [environment["machine"], device, f"jax {environment['jax']}"]
    if "processors" in environment:
        parts.insert(1, f"processors: {environment['processors']}")
    return ", ".join(parts) + "."


def sensitivity(groups: Mapping[Group, Runs], out: Path) -> list[str]:
    """The paragraphs of the sensitivity, its data sets beside each other."""
    titles = {row.name: row.title for row in EXPERIMENTS["sensitivity"]}
    panels = {
        group.panel: {titles[row]: runs[row].final for row in titles if row in runs}
        for group, runs in groups.items()
    }
    first = titles["paper"]
    lines = [[title] for title in titles.values()]
    for line in lines:
        for values in panels.values():
            cell = mean(values[line[0]]) if line[0] in values else ""
            if cell and first in values:
                change = values[line[0]].mean() - values[first].mean()
                cell += f" ({round(change, 2) + 0.0:+.2f})"  # no minus zero
            line.append(cell)
    dots(panels, METRIC).savefig(out / "sensitivity.png", dpi=100)
    header = [f"{group.data}, {group.epochs} epochs" for group in groups]
    return [
        "## sensitivity: one thing changed at a time",
        "Final test accuracy (%), in brackets its distance from the first row's.",
        markdown(["", *header], lines),
        "![sensitivity](sensitivity.png)",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Writes the page and the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.report", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    mpl.use("agg")
    page = ["# Tables of results", INTRODUCTION]
    try:
        groups = read(args.out)
        beside = {
            group: groups[group] for group in groups if group.figure == "sensitivity"
        }
        for group, runs in groups.items():
            if group not in beside:
                page += section(group, runs, args.out)
    except ValueError as error:
        sys.exit(str(error))
    if not groups:
        sys.exit(f"There are no results in {args.out}; run examples.paper.run first.")
    if beside:
        page += sensitivity(beside, args.out)
    (args.out / "tables.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(f"The tables are in {args.out / 'tables.md'}")


if __name__ == "__main__":
    main()
