"""Tables and pictures of all results: `python -m examples.paper.report`.

Reads the files that `examples.paper.run` wrote. Writes beside them a picture for each
experiment and setting, a page of all tables, and the tables of two other pages.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

import optax_mi
from examples.common.methods import POLICIES
from examples.common.networks import KINDS
from examples.common.report import dots, markdown, mean, save
from examples.common.results import Result
from examples.paper import claims, compression
from examples.paper.experiments import CURVES, EXPERIMENTS, TUNING, Row, score
from examples.paper.groups import (
    METRIC,
    Group,
    Runs,
    column,
    ends_of,
    final,
    reached,
    read,
    rows_of,
)
from optax_mi import plots

PAGES = ("README.md", "reduced.md")
INTRODUCTION = (
    "Written by `python -m examples.paper.report` from the `.jsonl` files beside it, "
    "which hold every number. Policy A is `change_policy`, policy B is "
    "`reference_policy`, and the default policy is `warmup_stable_decay_policy`. "
    "Accuracies are of the test set, "
    f"but for `{TUNING}`, whose are of held-out training examples; over seeds they are "
    "given as mean and standard deviation. Epochs count from 0. Seconds are the median "
    "epoch's times the number of epochs, for training, and for measuring where the "
    "rate follows the measurements. Runs beside each other on one machine slow each "
    "other down, so only large differences mean something."
)


def training_table(group: Group, rows: Sequence[Row], runs: Runs) -> str:
    """Trained rows, and when each reaches the first one's final accuracy."""
    header = ["", "seeds", "final accuracy (%)", "best (epoch)"]
    goals = ends_of(group, rows, runs)
    if goals:
        header.append(f"epoch that reaches the end of “{rows[0].title}”")
    header += ["rates", "seconds", "measuring / training", "the paper"]
    lines = []
    for row in rows:
        seeds, accuracy = runs[row.key], column(runs[row.key])
        best = ", ".join(f"{a.max():.2f} ({a.argmax()})" for a in accuracy)
        line = [row.title, str(len(seeds)), mean(final(seeds)), best]
        if goals:
            line.append(reached(seeds, goals))
        rates = [each["learning_rate"] for run in seeds for each in run.history.rows]
        low, high = np.nanmin(rates), np.nanmax(rates)  # what is only measured has none
        # The median: an epoch that compiles, or that was interrupted, weighs nothing.
        parts = ("train_seconds", "measure_seconds")
        train, measure = (float(np.median(column(seeds, part))) for part in parts)
        takes_mi = any(phase.method in POLICIES for phase in row.phases)
        # A half is rounded up, as by hand, on whichever side of it the float is.
        whole = round(group.epochs * (train + measure * takes_mi), 3)
        line += [f"{low:.4f} to {high:.4f}", f"{math.floor(whole + 0.5)}"]
        lines.append([*line, f"{measure / train:.1%}", group.reported(row.name)])
    return markdown(header, lines)


def tuning_table(runs: Runs) -> str:
    """The mean accuracy on held-out training examples of each rate that was tried."""
    lines = []
    for row in EXPERIMENTS["baselines"]:
        keys = {rate: row.at(rate).key for rate in row.grid}
        tried = {r: score(column(runs[k])[0]) for r, k in keys.items() if k in runs}
        if tried:
            best = max(tried, key=lambda rate: tried[rate])
            edge = "the grid's edge" if best in (min(tried), max(tried)) else ""
            told = ", ".join(f"{rate:g}: {value:.2f}" for rate, value in tried.items())
            lines.append([row.title, told, f"{best:g}", edge])
    return markdown(["", "rate: accuracy (%)", "best rate", ""], lines)


def draw(group: Group, rows: Sequence[Row], runs: Runs, out: Path) -> list[Path]:
    """Draws one setting: its rows over each other, or each layer-wise one alone."""
    histories = {row.title: [run.history for run in runs[row.key]] for row in rows}
    if layerwise := [row for row in rows if row.layers]:
        paths = [group.picture(out, f"-{row.name}") for row in layerwise]
        for path, row in zip(paths, layerwise, strict=True):
            title, seeds = row.title, histories[row.title]
            figure, _ = plots.layers(seeds, kinds=KINDS, metric=METRIC)
            figure.suptitle(title)
            save(figure, path)
        return paths
    figure, axes = plots.training(histories, metric=METRIC)
    # The first epochs would take up the axis; what is compared is the rest.
    axes[1].set_ylim(limits(rows, runs, METRIC, 10))
    # A single collapse would take up these two.
    information = limits(rows, runs, "mi", 2)
    axes[2].set_ylim(bottom=information[0])  # the reference is at the top
    axes[3].set(xlim=information, ylim=limits(rows, runs, METRIC, 2))
    save(figure, group.picture(out))
    return [group.picture(out)]


def limits(
    rows: Sequence[Row], runs: Runs, name: str, left_out: float
) -> tuple[float, float]:
    """An axis for a column of all runs, without its lowest values, in percent."""
    values = np.concatenate([column(runs[row.key], name) for row in rows], axis=None)
    low, high = np.nanpercentile(values, left_out), np.nanmax(values)
    return low, high + 0.1 * (high - low) + 0.01


def curve(group: Group, runs: Sequence[Result], path: Path) -> str:
    """Draws a curve and puts it in a table."""
    first = runs[0].about
    if group.figure == "compression":
        compression.draw([run.about for run in runs], path)
        return compression.table([(run.config["seed"], run.about) for run in runs])
    if group.figure == "figure1":
        sizes = np.array(first["sizes"])
        # The seeds are more repeats.
        estimates = np.concatenate([run.about["estimates"] for run in runs], axis=1)
        means, spread = estimates.mean(axis=1), estimates.std(axis=1, ddof=1)
        found = optax_mi.SampleSizeCurve(sizes, means, spread, estimates)
        figure, _ = plots.sample_size({group.dataset: found})
        header = ["sample", "I(X; Y), nats", "standard deviation"]
        columns = zip(sizes, means, spread, strict=True)
        lines = [[str(n), f"{mean:.3f}", f"{std:.3f}"] for n, mean, std in columns]
    else:
        names = ("learning_rate", "loss", "mi")
        rate, loss, mi = (np.array(first[name], float) for name in names)
        bounds = (first["lr_min"], first["lr_max"])
        found = optax_mi.LRRangeTest(rate, loss, mi, *bounds)
        figure, _ = plots.range_test(found)
        header = ["seed", "suggested lr_min", "suggested lr_max"]
        told = [(run.config["seed"], run.about) for run in runs]
        lines = [[f"{s}", f"{x['lr_min']:.2g}", f"{x['lr_max']:.2g}"] for s, x in told]
    save(figure, path)
    return markdown(header, lines)


def section(group: Group, runs: Runs, out: Path) -> list[str]:
    """A setting's paragraphs: its table, its pictures and its machines."""
    pictures = [group.picture(out)]
    if group.figure in CURVES:
        table = curve(group, runs[group.figure], pictures[0])
    elif group.figure == TUNING:
        table, pictures = tuning_table(runs), []
    else:
        rows = rows_of(group, runs)
        table = training_table(group, rows, runs)
        if group.figure == "baselines":
            values = {row.title: final(runs[row.key]) for row in rows}
            save(dots({group.data: values}, METRIC), pictures[0])
        else:
            pictures = draw(group, rows, runs, out)
    images = [f"![{group.title}]({picture.name})" for picture in pictures]
    machines = {machine(run.about["environment"]) for x in runs.values() for run in x}
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
    titles = {row.key: row.title for row in EXPERIMENTS["sensitivity"]}
    panels = {
        f"{group.data}, {group.epochs} epochs": {
            title: final(runs[key]) for key, title in titles.items() if key in runs
        }
        for group, runs in groups.items()
    }
    first, lines = titles["paper"], [[title] for title in titles.values()]
    for line in lines:
        for values in panels.values():
            cell = mean(values[line[0]]) if line[0] in values else ""
            if cell and first in values:
                change = values[line[0]].mean() - values[first].mean()
                cell += f" ({round(change, 2) + 0.0:+.2f})"  # no minus zero
            line.append(cell)
    save(dots(panels, METRIC), out / "sensitivity.png")
    return [
        "## sensitivity: one thing changed at a time",
        "Final test accuracy (%), in brackets its distance from the first row's.",
        markdown(["", *panels], lines),
        "![sensitivity](sensitivity.png)",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Writes the page and the pictures."""
    prog = "python -m examples.paper.report"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--out", type=Path, default="docs/results")
    args = parser.parse_args(arguments)
    mpl.use("agg")
    groups = read(args.out)
    if not groups:
        sys.exit(f"There are no results in {args.out}; run examples.paper.run first.")
    told = ["# Tables of results", INTRODUCTION]
    beside = {x: groups[x] for x in groups if x.figure == "sensitivity"}
    for group, runs in groups.items():
        if group not in beside:
            told += section(group, runs, args.out)
    if beside:
        told += sensitivity(beside, args.out)
    (args.out / "tables.md").write_text("\n\n".join(told) + "\n", encoding="utf-8")
    for page in PAGES:
        if (args.out / page).exists():
            claims.fill(args.out / page, groups)
    print(f"The tables are in {args.out / 'tables.md'}")


if __name__ == "__main__":
    main()
