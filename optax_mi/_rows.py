"""The rows of a history: their columns, their numbers by tag, and tables of them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from optax_mi import _files

COLUMNS = (
    *("epoch", "step", "layer", "learning_rate", "mi", "reference"),
    "normalized_mi",
)

# A notebook's table shows so many rows, half of them from each end.
_MOST_SHOWN = 20

Row = dict[str, Any]


def columns(rows: Sequence[Row]) -> list[str]:
    """The names of all columns, the history's own first."""
    return list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))


def normalized(mi: float, reference: float) -> float:
    """What ``normalized_mi`` holds, NaN where there is nothing to divide by."""
    known = 0 < reference < math.inf and not math.isnan(mi)
    return mi / reference if known else math.nan


def of_layer(rows: Sequence[Row], layer: str) -> dict[str, list[Any]]:
    """A layer's columns for JSON, without those that hold nothing."""
    own = [row for row in rows if row["layer"] == layer]
    found = {
        name: [_files.rounded(row.get(name)) for row in own]
        for name in columns(rows)
        if name != "layer"
    }
    return {k: v for k, v in found.items() if any(x is not None for x in v)}


def scalars(rows: Sequence[Row], epoch: int) -> tuple[int | None, dict[str, float]]:
    """An epoch's step, and its numbers by their tags."""
    step, found = None, {}
    for row in rows:
        if row["epoch"] != epoch:
            continue
        step, layer = row["step"], row["layer"]
        for name, value in _files.finite(row).items():
            if name in ("epoch", "step", "layer") or value is None:
                continue
            own = layer and name in COLUMNS
            found[f"{name}/{layer}" if own else name] = value
    return step, found


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    shown = _shown(rows)
    body = [[_cell(row.get(name)) for name in shown] for row in rows]
    head, *lines = (f"| {' | '.join(line)} |" for line in [shown, *body])
    return "\n".join([head, "|---" * len(shown) + "|", *lines])


def as_html(rows: Sequence[Row]) -> str:
    """An HTML table of the first and the last rows, for a notebook."""
    shown, half = _shown(rows), _MOST_SHOWN // 2
    lines = [_line("th", shown)]
    for i, row in enumerate(rows):
        if half <= i < len(rows) - half:
            if i == half:
                lines.append(_line("td", ["…"] * len(shown)))
            continue
        lines.append(_line("td", [_cell(row.get(name)) for name in shown]))
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def _shown(rows: Sequence[Row]) -> list[str]:
    """The columns, without a layer or a share that no row has."""
    found = columns(rows)
    if {row["layer"] for row in rows} <= {""}:
        found.remove("layer")
    if all(math.isnan(row.get("normalized_mi", math.nan)) for row in rows):
        found.remove("normalized_mi")
    return found


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
