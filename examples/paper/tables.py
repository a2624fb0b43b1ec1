"""Results as Markdown tables."""

import math
from collections.abc import Sequence

import numpy as np

from examples.paper.baselines import BASELINES, score
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES
from examples.paper.results import Group, Result, Results, accuracies, column, final

Runs = dict[str, list[Result]]  # by row


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training(rows: Sequence[Row], by_row: Runs, goal: Row | None) -> str:
    """Rows that were trained, and when each was where one of them ends."""
    header = ["", "seeds", "final accuracy (%)", "best (epoch)"]
    if goal is not None:
        header.append(f"epoch that reaches the end of “{goal.title}”")
    header += ["rates", "seconds", "measuring / training", "the paper"]
    ends = _ends(by_row[goal.name]) if goal else {}
    lines = []
    for row in rows:
        runs = by_row[row.name]
        accuracy = accuracies(runs)
        best = accuracy.argmax(axis=1)
        rates = [each["learning_rate"] for run in runs for each in run.history.rows]
        bests = (f"{a[i]:.2f} ({i})" for a, i in zip(accuracy, best, strict=True))
        line = [row.title, str(len(runs)), mean(accuracy[:, -1]), ", ".join(bests)]
        if goal is not None:
            line.append(", ".join(_reached(r, ends) for r in runs))
        train, measure = _seconds(runs)
        whole = accuracy.shape[1] * (train + measure * row.follows_mi)
        # A half is rounded up, as by hand; which side of it a float is on says nothing.
        seconds = math.floor(round(whole, 3) + 0.5)
        line += [f"{min(rates):.4f} to {max(rates):.4f}", str(seconds)]
        lines.append([*line, f"{measure / train:.1%}", row.paper])
    return markdown(header, lines)


def mean(values: np.ndarray) -> str:
    """A mean over seeds, with their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _ends(runs: Sequence[Result]) -> dict[int, float]:
    return {run.config["seed"]: column(run, "accuracy")[-1] for run in runs}


def _reached(result: Result, ends: dict[int, float]) -> str:
    goal = ends.get(result.config["seed"], np.nan)
    reached = column(result, "epoch")[column(result, "accuracy") >= goal]
    return str(next(iter(reached), "never"))


def _seconds(runs: Sequence[Result]) -> tuple[float, float]:
    """Medians of what an epoch's training and its measuring took.

    An epoch that compiles, or in which the machine stood still, weighs nothing.
    """
    train, measure = (
        float(np.median([column(run, f"{name}_seconds") for run in runs]))
        for name in ("train", "measure")
    )
    return train, measure


def tuning(by_row: Runs) -> str:
    """The mean accuracy on held-out training examples of each rate that was tried."""
    lines = []
    for name, baseline in BASELINES.items():
        rows = {rate: baseline.row(name, rate) for rate in baseline.grid}
        keys = {rate: f"{name} {rate:g}" for rate in rows}
        found = {
            rate: 100 * score(column(by_row[key][0], "accuracy"))
            for rate, key in keys.items()
            if key in by_row
        }
        if not found:
            continue
        best = max(found, key=lambda rate: found[rate])
        edge = "the grid's edge" if best in (min(found), max(found)) else ""
        tried = ", ".join(f"{rate:g}: {value:.2f}" for rate, value in found.items())
        lines.append([baseline.title, tried, f"{best:g}", edge])
    return markdown(["", "rate: accuracy (%)", "best rate", ""], lines)


def sensitivity(groups: Results) -> str:
    """One row for each thing changed, one column for each data set.

    Each number with its distance from that of the first row, the paper's.
    """
    rows = FIGURES["sensitivity"]
    lines = []
    for row in rows:
        cells = [row.title]
        for by_row in groups.values():
            if row.name not in by_row:
                cells.append("")
                continue
            mine, cell = final(by_row[row.name]), mean(final(by_row[row.name]))
            if rows[0].name in by_row:
                change = mine.mean() - final(by_row[rows[0].name]).mean()
                cell += f" ({round(change, 2) + 0.0:+.2f})"  # no minus zero
            cells.append(cell)
        lines.append(cells)
    return markdown(["", *map(heading, groups)], lines)


def heading(group: Group) -> str:
    """A short name for a group beside others of its figure."""
    return f"{group.data}, {group.epochs} epochs"
