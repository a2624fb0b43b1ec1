"""Many rows by one number each: a dot with its spread, a panel for each setting."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

Panels = Mapping[str, Mapping[str, np.ndarray]]  # title, row, a value for a seed


def dots(panels: Panels, *, label: str, mark: str | None = None) -> Any:
    """Draws each row's mean over seeds, a line to both sides for their range.

    Args:
      panels: Values by panel and row.
      label: What the values are.
      mark: A row whose mean is drawn as a vertical line, to compare with.

    Returns:
      The figure.
    """
    rows = list(dict.fromkeys(row for values in panels.values() for row in values))
    figure, axes = plt.subplots(
        1,
        len(panels),
        sharey=True,
        squeeze=False,
        figsize=(3 + 3 * len(panels), 1.2 + 0.28 * len(rows)),
        layout="constrained",
    )
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        for height, row in enumerate(rows):
            if row not in values:
                continue
            seeds = values[row]
            axis.plot([seeds.min(), seeds.max()], [height, height], color="0.7", lw=2)
            axis.plot(seeds.mean(), height, "o", color="C0" if row != mark else "C3")
        if mark is not None and mark in values:
            axis.axvline(float(np.mean(values[mark])), color="C3", lw=0.8, ls=":")
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(label)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
    axes[0, 0].set_yticks(range(len(rows)), rows)
    axes[0, 0].invert_yaxis()
    return figure
