"""Tables and pictures of all results: `python -m examples.paper.report`.

Reads the JSON files that `examples.paper.run` wrote, and writes a picture for each
figure and setting and one page of tables beside them.
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

import optax_mi
from examples.paper.baselines import BASELINES, UNTUNED
from examples.paper.curves import CURVES
from examples.paper.dots import dots
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES
from optax_mi import plots

METRIC = "test accuracy (%)"
KINDS = {
    "Conv_0": "convolution layers",
    "Conv_1": "convolution layers",
    "Dense_0": "dense layers",
    "logits": "dense layers",
}


class Group(NamedTuple):
    """What the runs of one table share."""

    figure: str
    model: str
    dataset: str
    train_size: int
    epochs: int
    batch_size: int

    def __str__(self) -> str:
        return (
            f"{self.figure}: {self.dataset}, {self.train_size:,} training images, "
            f"model `{self.model}`, {self.epochs} epochs, batches of {self.batch_size}"
        )


Results = dict[Group, dict[str, list[dict[str, Any]]]]


def read(folder: Path) -> Results:
    """All results by setting and row, each row's by seed."""
    results: Results = {}
    for path in sorted(folder.glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        config = result["config"]
        group = Group(*(config[name] for name in Group._fields))
        rows = results.setdefault(group, {})
        rows.setdefault(_key(config["row"], config.get("tuned_rate")), []).append(
            result
        )
    return results


def _key(row: str, rate: float | None) -> str:
    return row if rate is None else f"{row} {rate:g}"


def _rows(group: Group, results: dict[str, Any]) -> list[Row]:
    """The rows of a figure, the tuned ones by the rates that were run."""
    if group.figure in FIGURES:
        return FIGURES[group.figure]
    tuned = [
        dataclasses.replace(baseline.row(name, rate), name=_key(name, rate))
        for name, baseline in BASELINES.items()
        for rate in baseline.grid
    ]
    return [row for row in [*tuned, *UNTUNED] if row.name in results]


def history(result: dict[str, Any]) -> optax_mi.MIHistory:
    """A run as a history: a row for each layer that was measured."""
    run = optax_mi.MIHistory()
    for epoch in result["epochs"]:
        rates = epoch["learning_rate"]
        metrics: dict[str, Any] = {METRIC: 100 * epoch["accuracy"]}
        for layer, mi in epoch["mi"].items():
            run.add(
                epoch=epoch["epoch"],
                learning_rate=rates.get(layer, rates.get("", np.nan)),
                mi=mi,
                reference=epoch["reference"],
                layer=layer,
                **metrics,
            )
    return run


def table(rows: Sequence[Row], results: dict[str, list[dict[str, Any]]]) -> str:
    """The rows of one setting in Markdown, held against the first of them."""
    lines = [
        "| | seeds | final accuracy (%) | best (epoch) | epoch that reaches the first "
        "row's end | rates | seconds | of them measuring | the paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    base = results.get(rows[0].name, [])
    goals = {r["config"]["seed"]: r["epochs"][-1]["accuracy"] for r in base}
    for row in rows:
        runs = results.get(row.name)
        if runs is None:
            continue
        accuracy = 100 * np.array([[e["accuracy"] for e in r["epochs"]] for r in runs])
        best = accuracy.argmax(axis=1)
        rates = [
            rate
            for run in runs
            for epoch in run["epochs"]
            for rate in epoch["learning_rate"].values()
        ]
        reached = (_reached(run, goals.get(run["config"]["seed"])) for run in runs)
        bests = (f"{a[i]:.2f} ({i})" for a, i in zip(accuracy, best, strict=True))
        lines.append(
            f"| {row.title} | {len(runs)} | {_mean(accuracy[:, -1])} "
            f"| {', '.join(bests)} | {', '.join(reached)} "
            f"| {min(rates):.4f} to {max(rates):.4f} "
            f"| {_seconds(runs):.0f} | {_measuring(runs):.1%} | {row.paper} |"
        )
    return "\n".join(lines)


def _mean(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _reached(result: dict[str, Any], goal: float | None) -> str:
    if goal is None:
        return ""
    epochs = (e["epoch"] for e in result["epochs"] if e["accuracy"] >= goal)
    return str(next(epochs, "never"))


def _seconds(results: Sequence[dict[str, Any]]) -> float:
    """What a run took to train and to measure, on average."""
    epochs = itertools.chain.from_iterable(r["epochs"] for r in results)
    spent = [e["train_seconds"] + e["measure_seconds"] for e in epochs]
    return sum(spent) / len(results)


def _final(results: Iterable[dict[str, Any]]) -> list[float]:
    return [100 * r["epochs"][-1]["accuracy"] for r in results]


def _measuring(results: Iterable[dict[str, Any]]) -> float:
    """The median share of measuring; an epoch that compiles weighs nothing in it."""
    epochs = itertools.chain.from_iterable(r["epochs"] for r in results)
    return float(np.median([e["measure_seconds"] / e["train_seconds"] for e in epochs]))


def draw(
    rows: Sequence[Row], results: dict[str, list[dict[str, Any]]], path: Path
) -> list[Path]:
    """Draws one setting: its rows over each other, or each layer-wise one alone."""
    rows = [row for row in rows if row.name in results]
    runs = {row.title: [history(run) for run in results[row.name]] for row in rows}
    if all(seeds[0].layers == [""] for seeds in runs.values()):
        figure, axes = plots.training(runs, metric=METRIC)
        # The first epochs would take up the axis; what is compared is the rest.
        scores = [run.column(METRIC) for seeds in runs.values() for run in seeds]
        low, high = np.percentile(scores, 10), np.max(scores)
        axes[1].set_ylim(low, high + 0.1 * (high - low) + 0.01)
        figure.savefig(path, dpi=100)
        return [path]
    paths = []
    for row in rows:
        figure, _ = plots.layers(runs[row.title], kinds=KINDS, metric=METRIC)
        figure.suptitle(row.title)
        paths.append(path.with_stem(f"{path.stem}-{row.name}"))
        figure.savefig(paths[-1], dpi=100)
    return paths


def curve(results: Sequence[dict[str, Any]], path: Path) -> list[str]:
    """Draws a curve and says in a table what it holds."""
    (first, *_) = results
    if "sizes" in first:
        estimates = np.array(first["estimates"])
        sizes = np.array(first["sizes"])
        spread = estimates.std(axis=1, ddof=1)
        found = optax_mi.SampleSizeCurve(sizes, estimates.mean(1), spread, estimates)
        figure, _ = plots.sample_size({first["config"]["dataset"]: found})
        lines = ["| sample | I(X; Y), nats | standard deviation |", "|---|---|---|"]
        lines += [
            f"| {size} | {mean:.3f} | {std:.3f} |"
            for size, mean, std in zip(sizes, found.mean, spread, strict=True)
        ]
    else:
        columns = (first[name] for name in ("learning_rate", "loss", "mi"))
        rates, loss, mi = (np.array(column, float) for column in columns)
        bounds = (first["lr_min"], first["lr_max"])
        figure, _ = plots.range_test(optax_mi.LRRangeTest(rates, loss, mi, *bounds))
        lines = ["| seed | suggested lr_min | suggested lr_max |", "|---|---|---|"]
        lines += [
            f"| {r['config']['seed']} | {r['lr_min']:.2g} | {r['lr_max']:.2g} |"
            for r in results
        ]
    figure.savefig(path, dpi=100)
    return ["\n".join(lines), f"![{path.stem}]({path.name})"]


def sensitivity(by_group: Results) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """One row for each thing changed, one column for each data set.

    Returns:
      The table, each number with its distance from the first row's, and its numbers.
    """
    panels = {}
    for group, results in by_group.items():
        rows = [row for row in FIGURES["sensitivity"] if row.name in results]
        seeds = max(len(runs) for runs in results.values())
        title = f"{group.dataset}, {group.train_size:,} images, {group.epochs} epochs"
        title += f", {seeds} seed{'s' * (seeds > 1)}"
        panels[title] = {_title(row): _final(results[row.name]) for row in rows}
    titles = [_title(row) for row in FIGURES["sensitivity"]]
    lines = ["| | " + " | ".join(panels) + " |", "|---" * (len(panels) + 1) + "|"]
    for title in titles:
        cells = []
        for values in panels.values():
            (base, *_), mine = values.values(), values.get(title)
            change = None if mine is None else np.mean(mine) - np.mean(base)
            cells.append(
                "" if mine is None else f"{_mean(np.array(mine))} ({change:+.2f})"
            )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines), panels


def _title(row: Row) -> str:
    seed = row.measuring.seed
    return f"{row.title}, {seed}" if seed else row.title


def section(group: Group, by_row: dict[str, list[dict[str, Any]]], out: Path) -> list:
    """A setting's paragraphs: its table, its picture and its machines."""
    name = f"{group.figure}-{group.model}-{group.dataset}{group.train_size}"
    if group.figure in CURVES:
        found = curve(by_row[group.figure], out / f"{name}.png")
        return [f"## {group.figure}: {group.dataset}", *found]
    rows = _rows(group, by_row)
    page = [f"## {group}", table(rows, by_row)]
    path = out / f"{name}-{group.epochs}x{group.batch_size}.png"
    if group.figure == "baselines":
        values = {row.title: _final(by_row[row.name]) for row in rows}
        dots({str(group): values}, label=METRIC).savefig(path, dpi=100)
        page.append(f"![{group}]({path.name})")
    elif group.figure in FIGURES:
        page += [f"![{group}]({p.name})" for p in draw(rows, by_row, path)]
    machines = {
        (e["machine"], e["device"], e["jax"])
        for runs in by_row.values()
        for e in (run["environment"] for run in runs)
    }
    return page + [f"{m}, {d}, jax {jax}." for m, d, jax in sorted(machines)]


def main(arguments: list[str] | None = None) -> None:
    """Writes the page and the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.report", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    results = read(args.out)
    if not results:
        sys.exit(f"There are no results in {args.out}; run examples.paper.run first.")
    mpl.use("agg")
    page = [
        "# Tables of results",
        "Written by `python -m examples.paper.report` from the JSON files beside it, "
        "which hold every number. Accuracies are of the test set, over seeds as mean "
        "and standard deviation; epochs count from 0. Seconds are of training and "
        "measuring, without testing; runs beside each other on one machine slow each "
        "other down, so that only large differences mean something.",
    ]
    one_at_a_time = {
        group: by_row
        for group, by_row in sorted(results.items())
        if group.figure == "sensitivity"
    }
    for group, by_row in sorted(results.items()):
        if group not in one_at_a_time:
            page += section(group, by_row, args.out)
    if one_at_a_time:
        text, panels = sensitivity(one_at_a_time)
        picture = dots(panels, label=METRIC, mark=FIGURES["sensitivity"][0].title)
        picture.savefig(args.out / "sensitivity.png", dpi=100)
        page += [
            "## sensitivity: one thing changed at a time",
            "Final test accuracy (%), in brackets its distance from the first row's.",
            text,
            "![sensitivity](sensitivity.png)",
        ]
    (args.out / "tables.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(f"The tables are in {args.out / 'tables.md'}")


if __name__ == "__main__":
    main()
