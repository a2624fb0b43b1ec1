"""Tables and pictures of all results: `python -m examples.paper.report`.

Reads the files that `examples.paper.run` wrote, and writes a picture for each
figure and setting and one page of tables beside them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

import optax_mi
from examples.paper import tables
from examples.paper.baselines import TUNING
from examples.paper.curves import CURVES
from examples.paper.dots import dots
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES
from examples.paper.results import (
    METRIC,
    Group,
    Result,
    Results,
    final,
    in_percent,
    machine,
    read,
    rows_of,
)
from optax_mi import plots

KINDS = {
    "Conv_0": "convolution layers",
    "Conv_1": "convolution layers",
    "Dense_0": "dense layers",
    "logits": "dense layers",
}


def draw(rows: Sequence[Row], by_row: tables.Runs, path: Path) -> list[Path]:
    """Draws one setting: its rows over each other, or each layer-wise one alone."""
    runs = {
        row.title: [in_percent(run.history) for run in by_row[row.name]] for row in rows
    }
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


def curve(group: Group, results: Sequence[Result], path: Path) -> str:
    """Draws a curve and says in a table what it holds."""
    if group.figure == "figure1":
        sizes = np.array(results[0].about["sizes"])
        # The seeds are repeats as any others.
        estimates = np.concatenate([r.about["estimates"] for r in results], axis=1)
        spread = estimates.std(axis=1, ddof=1)
        found = optax_mi.SampleSizeCurve(sizes, estimates.mean(1), spread, estimates)
        figure, _ = plots.sample_size({group.dataset: found})
        header = ["sample", "I(X; Y), nats", "standard deviation"]
        columns = zip(sizes, found.mean, spread, strict=True)
        lines = [[str(n), f"{mean:.3f}", f"{std:.3f}"] for n, mean, std in columns]
    else:
        first = results[0].about
        columns = (first[name] for name in ("learning_rate", "loss", "mi"))
        rates, loss, mi = (np.array(column, float) for column in columns)
        bounds = (first["lr_min"], first["lr_max"])
        figure, _ = plots.range_test(optax_mi.LRRangeTest(rates, loss, mi, *bounds))
        header = ["seed", "suggested lr_min", "suggested lr_max"]
        lines = [
            [
                str(r.config["seed"]),
                *(f"{r.about[x]:.2g}" for x in ("lr_min", "lr_max")),
            ]
            for r in results
        ]
    figure.savefig(path, dpi=100)
    return tables.markdown(header, lines)


def section(group: Group, by_row: tables.Runs, out: Path) -> list[str]:
    """A setting's paragraphs: its table, its pictures and its machines."""
    path = out / f"{group.stem}.png"
    pictures = [path]
    if group.figure in CURVES:
        table = curve(group, by_row[group.figure], path)
    elif group.figure == TUNING:
        table, pictures = tables.tuning(by_row), []
    else:
        rows = rows_of(group, by_row)
        tuned = group.figure == "baselines"
        first = [row for row in rows if row.name.startswith("constant")]
        goal = FIGURES[group.figure][:1] if not tuned else first
        goal = next((row for row in goal if row in rows), None)
        table = tables.training(rows, by_row, goal)
        if tuned:
            values = {row.title: final(by_row[row.name]) for row in rows}
            dots({_panel(group): values}, label=METRIC).savefig(path, dpi=100)
        else:
            pictures = draw(rows, by_row, path)
    machines = sorted({machine(run) for runs in by_row.values() for run in runs})
    images = [f"![{group.title}]({picture.name})" for picture in pictures]
    return [f"## {group.title}", table, *images, *machines]


def _panel(group: Group) -> str:
    return f"{group.dataset}\n{group.train_size:,} images, {group.epochs} epochs"


def one_at_a_time(groups: Results, out: Path) -> list[str]:
    """The paragraphs of the sensitivity, its data sets beside each other."""
    rows = FIGURES["sensitivity"]
    panels = {
        _panel(group): {
            row.title: final(by_row[row.name]) for row in rows if row.name in by_row
        }
        for group, by_row in groups.items()
    }
    picture = dots(panels, label=METRIC, mark=rows[0].title)
    picture.savefig(out / "sensitivity.png", dpi=100)
    return [
        "## sensitivity: one thing changed at a time",
        "Final test accuracy (%), in brackets its distance from the first row's.",
        tables.sensitivity(groups),
        "![sensitivity](sensitivity.png)",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Writes the page and the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.report", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    try:
        results = read(args.out)
    except ValueError as error:
        sys.exit(str(error))
    if not results:
        sys.exit(f"There are no results in {args.out}; run examples.paper.run first.")
    mpl.use("agg")
    page = [
        "# Tables of results",
        "Written by `python -m examples.paper.report` from the `.jsonl` files beside "
        "it, which hold every number. Accuracies are of the test set, but for "
        f"`{TUNING}`, whose are of held-out training examples; over seeds as mean and "
        "standard deviation. Epochs count from 0. Seconds are those of all epochs, by "
        "the median one, for training, and for measuring where the rate follows it; "
        "runs beside each other on one machine slow each other down, so that only "
        "large differences mean something.",
    ]
    beside = {g: r for g, r in sorted(results.items()) if g.figure == "sensitivity"}
    for group, by_row in sorted(results.items()):
        if group not in beside:
            page += section(group, by_row, args.out)
    if beside:
        page += one_at_a_time(beside, args.out)
    (args.out / "tables.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(f"The tables are in {args.out / 'tables.md'}")


if __name__ == "__main__":
    main()
