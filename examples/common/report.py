"""Tables and pictures of runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def mean(values: np.ndarray) -> str:
    """A mean over seeds, with their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def save(figure: Any, path: Path) -> None:
    """Writes a picture and closes it, or pyplot would keep it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=100)
    plt.close(figure)


def dots(panels: Mapping[str, Mapping[str, np.ndarray]], label: str) -> Any:
    """A figure of each row's mean over seeds and their range, for each panel."""
    import matplotlib.pyplot as plt

    rows = list(dict.fromkeys(row for values in panels.values() for row in values))
    size = (3 + 3 * len(panels), 1.2 + 0.28 * len(rows))
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        heights = [rows.index(row) for row in values]
        three = [(seeds.min(), seeds.mean(), seeds.max()) for seeds in values.values()]
        low, mean, high = np.transpose(three)
        spread = (mean - low, high - mean)
        axis.errorbar(mean, heights, xerr=spread, fmt="o", ecolor="0.7")
        axis.axvline(mean[0], color="0.5", lw=0.8, ls=":")
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(label)
        axis.grid(axis="x", color="0.9")
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].invert_yaxis()
    return figure
