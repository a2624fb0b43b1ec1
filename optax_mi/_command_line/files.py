"""Arrays from files: .npy, arrays of an .npz, and columns of a .csv by their names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from optax_mi._command_line.terminal import InputError

# Files that hold several arrays, whose names stand after a colon.
_NAMED = re.compile(r"(.+\.(?:csv|npz)):(.+)", re.DOTALL)


def array(source: str, *, words: bool = False) -> Shaped[np.ndarray, "n ..."]:
    """The numbers of a file: FILE, FILE.npz:NAME, or FILE.csv:NAME,NAME.

    With `words` it may be one column of words too, such as names of classes.
    """
    named = _NAMED.fullmatch(source)
    file, names = named.groups() if named else (source, None)
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if path.suffix == ".csv":
        found = _of_csv(path, names, words)
    else:
        found = _of_numpy(path, names)
    if words and found.dtype.kind == "U" and found.ndim == 1 and found.size:
        return found
    if found.dtype.kind not in "biuf" or found.ndim == 0 or found.size == 0:
        kind = f"dtype {found.dtype}, shape {found.shape}"
        raise InputError(f"{source} must hold real numbers by rows; it has {kind}")
    finite = np.isfinite(found).reshape(len(found), -1)
    if not finite.all():
        raise InputError(
            f"{source} holds {np.sum(~finite)} numbers that are NaN or infinite, "
            f"in {np.sum(~finite.all(axis=1))} of its {len(found)} rows"
        )
    return found


def _of_numpy(path: Path, name: str | None) -> Shaped[np.ndarray, "..."]:
    with path.open("rb") as file:
        try:
            # An array of objects would run what whoever wrote the file put into it.
            held = np.load(file, allow_pickle=False)
            if isinstance(held, np.ndarray):
                return held
            return held[_name(path, list(held), name)]
        except InputError:
            raise
        except Exception as error:  # a damaged file raises whatever it comes to
            message = f"{path} is no .npy, .npz or .csv file of numbers"
            raise InputError(message) from error


def _name(path: Path, held: Sequence[str], name: str | None) -> str:
    """The array that is meant."""
    if name is None and len(held) == 1:
        return held[0]
    if name is not None and name in held:
        return name
    told = "several arrays" if name is None else f"no array {name!r}"
    known = ", ".join(held)
    raise InputError(f"{path} holds {told}: give one of {known}, as {path}:NAME")


def _of_csv(
    path: Path, names: str | None, words: bool
) -> Shaped[np.ndarray, "n *columns"]:
    header, *rows = _rows(path)
    wanted = header if names is None else next(csv.reader([names]))
    for name in wanted:
        if header.count(name) != 1:
            told = "several columns" if name in header else "no column"
            known = ", ".join(header)
            raise InputError(f"{path} has {told} {name!r}; its columns are {known}")
    alone = words and len(wanted) == 1
    columns = [
        _column(path, name, [row[header.index(name)] for row in rows], alone)
        for name in wanted
    ]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _rows(path: Path) -> list[list[str]]:
    """The names of the columns, and the rows under them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, skipinitialspace=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no .csv file in UTF-8: {error}") from error
    if len(rows) < 2:
        raise InputError(f"{path} must have a line of names and rows under it")
    if all(map(_is_number, rows[0])):
        begins = ",".join(rows[0])[:40]
        raise InputError(f"{path} must begin with the columns' names, got {begins}")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(rows[0]):
            cells = f"{len(row)} cells under {len(rows[0])} names"
            raise InputError(f"row {number} of {path} has {cells}")
    return rows


def _column(
    path: Path, name: str, cells: Sequence[str], words: bool
) -> Shaped[np.ndarray, "n"]:
    """Integers where all cells are; else numbers; else words, where they will do."""
    wrong = [i for i, cell in enumerate(cells) if not _is_number(cell)]
    if words and len(wrong) == len(cells) and all(cells):
        return np.array(cells)
    if wrong:
        first = min(wrong, key=lambda i: cells[i] != "")  # what is missing before words
        told = f"{cells[first]!r} in column {name!r}, which is no number"
        raise InputError(f"row {first + 1} of {path} has {told}")
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return np.array([float(cell) for cell in cells])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
