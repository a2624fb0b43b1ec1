"""Runs as a table and as the paper's picture: four panels for each method."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.training import Epoch

Runs = Mapping[str, Sequence[Epoch]]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]


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


def picture(runs: Runs, reference: float, title: str, path: Path) -> None:
    """Draws the paper's four panels for each run and writes them as a PNG.

    Args:
      runs: The epochs of each run by the name of its method.
      reference: The reference information in nats, drawn as a dashed line.
      title: The figure's title.
      path: Where the PNG goes.
    """
    from matplotlib.figure import Figure  # draws without a display

    figure = Figure(figsize=(13, 2.5 * len(runs) + 0.6), layout="constrained")
    axes = figure.subplots(len(runs), 4, sharex="col", sharey="col", squeeze=False)
    for row, colour, (name, epochs) in zip(axes, COLOURS, runs.items(), strict=False):
        epoch = [e.epoch for e in epochs]
        accuracy = [100 * e.accuracy for e in epochs]
        mi = [e.mi for e in epochs]
        row[0].plot(epoch, [e.learning_rate for e in epochs], color=colour)
        row[1].plot(epoch, accuracy, color=colour)
        row[2].plot(epoch, mi, color=colour)
        row[2].axhline(reference, color="0.4", linestyle="--", linewidth=1)
        row[3].plot(mi, accuracy, color=colour, alpha=0.4)
        row[3].scatter(mi, accuracy, color=colour, s=10)
        labels = [
            "learning rate",
            "test accuracy (%)",
            r"$I(H_{LL}; Y)$ (nats)",
            "test accuracy (%)",
        ]
        for panel, label in zip(row, labels, strict=True):
            panel.set_ylabel(label)
            panel.grid(color="0.9")
            panel.set_axisbelow(True)
        row[0].set_title(name, loc="left", fontweight="bold")
    for panel in axes[-1, :3]:
        panel.set_xlabel("epoch")
    axes[-1, 3].set_xlabel(r"$I(H_{LL}; Y)$ (nats)")
    axes[0, 2].annotate(
        "$H(Y)$",
        (0, reference),
        xycoords=("axes fraction", "data"),
        xytext=(4, -3),
        textcoords="offset points",
        ha="left",
        va="top",
        color="0.3",
    )
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
