"""Files of a history's rows: numbers as they take them, and writes that are whole."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]

# What reading raises where a file holds something else.
BROKEN = (ValueError, TypeError, KeyError, AttributeError)


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has neither NaN nor infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def replace(path: PathLike, text: str) -> None:
    """Writes all or nothing: a run that dies in it leaves the file of before."""
    partial = Path(f"{os.fspath(path)}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def not_written_by(writer: str, path: PathLike, found: object) -> ValueError:
    """The error for a file that holds something else."""
    expected, got = f"a file that `MIHistory.{writer}` wrote", repr(os.fspath(path))
    return ValueError(f"`path` must be {expected}, got {got} ({found}).")


def rounded(value: Any) -> Any:
    """A number to five significant digits, None where it is not finite."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


def append(path: PathLike, line: str) -> None:
    """Appends one line, at once."""
    with open(path, "ab+", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")
        whole = b"\n" * torn + line.encode() + b"\n"
        # Where two processes write at once one may see the other's line as torn: it
        # leaves a blank line behind, and nothing else.
        if file.write(whole) < len(whole):
            raise OSError(f"{os.fspath(path)!r} took a part of a line only.")


def is_torn(line: bytes) -> bool:
    """Whether it begins as the lines of `append_jsonl` do, however short it is."""
    beginning = b'{"name": '
    return beginning.startswith(line[: len(beginning)])
