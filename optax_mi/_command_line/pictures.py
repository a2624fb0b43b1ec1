"""Pictures that commands draw, where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optax_mi._command_line.terminal import InputError

KINDS = (".png", ".pdf", ".svg", ".jpg")


def check(path: Path | None) -> None:
    """Refuses a place for a picture before anything is computed for it."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent} for --out")
    if path.suffix not in KINDS:
        raise InputError(f"--out must end in one of {', '.join(KINDS)}, got {path}")


def draw(path: Path, function: Callable[[Any], Any]) -> None:
    """Writes what a function of `optax_mi.plots` draws."""
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from optax_mi import plots
    except ImportError as error:
        raise InputError(f"{error}: pip install 'optax_mi[plot]'") from error
    figure, _ = function(plots)
    figure.savefig(path, dpi=120)
