"""What pictures are made of: panels, looks, bands, references and names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Real, Shaped
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from optax_mi import _checks

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
_GREY = "0.4"
_STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX*"


def axes_of(
    ax: Any, rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, Shaped[np.ndarray, "panels"]]:
    """A new figure and its axes, or those given."""
    if ax is None:
        figure, axes = plt.subplots(
            rows, columns, figsize=size, layout="constrained", squeeze=False
        )
        return figure, axes.ravel()
    return given_axes(ax, rows * columns)


def given_axes(ax: Any, count: int) -> tuple[Figure, Shaped[np.ndarray, "panels"]]:
    """So many axes and their figure."""
    axes = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != count:
        _checks.fail("ax", f"{count} axes", len(axes))
    return axes[0].figure, axes


def band(
    panel: Axes,
    x: Real[np.ndarray, "epochs"],
    values: Real[np.ndarray, "seeds epochs"],
    **look: Any,
) -> None:
    """The mean over seeds, with one standard deviation to each side.

    The band ends where the seeds do, so that rates and accuracies stay in their range.
    """
    mean, spread = values.mean(axis=0), values.std(axis=0)
    panel.plot(x, mean, marker="o" if len(x) == 1 else None, **look)
    if len(values) > 1:
        low = np.maximum(mean - spread, values.min(axis=0))
        high = np.minimum(mean + spread, values.max(axis=0))
        panel.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)


def reference_lines(
    panel: Axes, references: Sequence[Real[np.ndarray, "epochs"]]
) -> list[Line2D]:
    """Dotted lines at the references of several runs that were last in force.

    They lie over the curves that reach them. Where all runs have one in common, a
    second axis has the share of it.
    """
    look: Any = {"color": "0.1", "linestyle": ":", "linewidth": 2, "zorder": 3}
    last = _different(np.array([each[-1] for each in references]))
    lines = [panel.axhline(reference, **look) for reference in last]
    if lines:
        lines[0].set_label("reference")
    ever = _different(np.concatenate(references))
    if len(ever) == 1 and ever[0] > 0:
        percent = 100 / ever[0]
        share = panel.secondary_yaxis(
            "right", functions=(lambda nats: nats * percent, lambda p: p / percent)
        )
        # In the reference's colour, as the next panel's names are close.
        share.set_ylabel("share of the reference (%)", color=_GREY)
        share.tick_params(colors=_GREY)
    return lines


def _different(values: Real[np.ndarray, "n"]) -> Real[np.ndarray, "different"]:
    return np.unique(values[np.isfinite(values)])


def legend_below(figure: Figure, panel: Axes) -> None:
    """The names below all panels, in as few lines as the figure is wide enough for.

    Above them matplotlib would draw a title of the figure over the names. The figure
    grows by the names' height, so that those of fifty layers leave the panels theirs.
    """
    named = panel.get_legend_handles_labels()
    for columns in range(4, 0, -1):
        legend = figure.legend(*named, loc="outside lower center", ncols=columns)
        box = legend.get_window_extent()
        if columns == 1 or box.width < figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            return
        legend.remove()


def looks() -> Iterator[tuple[str, str]]:
    """Colours first, then the next style: as many looks as anyone can tell apart."""
    return itertools.cycle((colour, style) for style in _STYLES for colour in COLOURS)


class _Plain(LogFormatter):
    """0.01 in place of a power of ten, at the ticks that matplotlib labels."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def whole_numbers() -> MaxNLocator:
    """Ticks at whole numbers, such as epochs."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def label(panel: Axes, x: str, y: str) -> None:
    """Names the axes, over a grid; epochs are whole and rates logarithmic."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if x == "epoch":
        panel.xaxis.set_major_locator(whole_numbers())
    if y == "learning rate":
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(_Plain())
        panel.yaxis.set_minor_formatter(_Plain())
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
