"""Runs as a table and as the paper's picture: four panels for each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optax_mi
from examples.training import Epoch

Runs = Mapping[str, Sequence[Epoch]]

ACCURACY = "test accuracy (%)"


def table(runs: Runs, baseline: str) -> str:
    """Compares runs in a Markdown table.

    Args:
      runs: The epochs of each run by the name of its method.
      baseline: The run whose final accuracy the others are held against.
    """
    goal = runs[baseline][-1].accuracy
    lines = [
        "| learning rate | final test accuracy | best (epoch) "
        f"| first epoch at {goal:.2%} | rates visited |",
        "|---|---|---|---|---|",
    ]
    for name, epochs in runs.items():
        best = max(epochs, key=lambda e: e.accuracy)
        reached = next((str(e.epoch) for e in epochs if e.accuracy >= goal), "never")
        rates = [e.learning_rate for e in epochs]
        lines.append(
            f"| {name} | {epochs[-1].accuracy:.2%} | {best.accuracy:.2%} "
            f"({best.epoch}) | {reached} | {min(rates):.4f} to {max(rates):.4f} |"
        )
    return "\n".join(lines)


def history(epochs: Sequence[Epoch], reference: float) -> optax_mi.MIHistory:
    """A run as a history, its test accuracy in percent."""
    run = optax_mi.MIHistory()
    for e in epochs:
        metrics: dict[str, Any] = {"loss": e.loss, ACCURACY: 100 * e.accuracy}
        run.add(
            epoch=e.epoch,
            learning_rate=e.learning_rate,
            mi=e.mi,
            reference=reference,
            **metrics,
        )
    return run


def picture(runs: Runs, reference: float, title: str, path: Path) -> None:
    """Draws the paper's four panels for each run and writes them as a PNG.

    Args:
      runs: The epochs of each run by the name of its method.
      reference: The reference information in nats, drawn as a dotted line.
      title: The figure's title.
      path: Where the PNG goes.
    """
    from matplotlib.figure import Figure  # draws without a display

    from optax_mi import plots

    figure = Figure(figsize=(13, 2.5 * len(runs) + 0.6), layout="constrained")
    axes = figure.subplots(len(runs), 4, sharex="col", sharey="col", squeeze=False)
    for row, (name, epochs) in zip(axes, runs.items(), strict=True):
        plots.training(history(epochs, reference), metric=ACCURACY, ax=row)
        row[0].set_title(name, loc="left", fontweight="bold")
    for panel in axes[:-1].flat:
        panel.set_xlabel("")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
