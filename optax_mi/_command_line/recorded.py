"""The command `runs`: histories that training recorded."""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import optax_mi
from optax_mi._command_line import pictures
from optax_mi._command_line.terminal import InputError, say, table
from optax_mi._rows import COLUMNS

# A picture's lines differ in seven colours and four styles.
MOST_DRAWN = 28


def runs(args: argparse.Namespace) -> None:
    """Prints a line for each recorded run and layer, and draws the runs."""
    found = _histories(args.path)
    metric = _common("--metric", args.metric, map(_metrics, found.values()), "accuracy")
    told = [metric] if metric else []
    head = ["run", "layer", "epochs", "last rate", "highest rate", "last MI", *told]
    rows: list[list[str]] = []
    for name, run in found.items():
        for layer in run.layers:
            rate, mi = (run.column(c, layer) for c in ("learning_rate", "mi"))
            numbers = [rate[-1], rate.max(), mi[-1]]
            numbers += [run.column(m, layer)[-1] for m in told]
            cells = ("" if math.isnan(v) else f"{v:.4g}" for v in numbers)
            rows.append([name, layer, str(len(rate)), *cells])
    print(table(head, rows, words=2))
    if not args.out:
        return
    if len(found) > MOST_DRAWN:
        raise InputError(f"a picture has room for {MOST_DRAWN} runs, not {len(found)}")
    layers = (set(run.layers) for run in found.values())
    layer = _common("--layer", args.layer, layers, "")
    if metric is None or layer is None:
        raise InputError("a picture needs a metric and a layer that all runs have")
    pictures.draw(
        args.out, lambda plots: plots.training(found, layer=layer, metric=metric)
    )
    print(f"\nlayer {layer!r} in {args.out}")


def _common(
    option: str, given: str | None, of_runs: Iterable[set[str]], usual: str
) -> str | None:
    """The name given, or the usual, one that has it in it, or the first of all runs."""
    names = sorted(set.intersection(*of_runs))
    if given is None:
        alike = [name for name in names if usual and usual in name]
        return next((name for name in (usual, *alike, *names) if name in names), None)
    if given not in names:
        raise InputError(f"{option} must be one of {names}, which all runs have")
    return given


def _metrics(run: optax_mi.MIHistory) -> set[str]:
    return {name for row in run.rows for name in row} - set(COLUMNS)


def _histories(path: Path) -> dict[str, optax_mi.MIHistory]:
    """The runs by name: a file's own, or `file/name` of each line of a .jsonl."""
    if not path.exists():
        raise InputError(f"there is no file or directory {path}")
    folder, files = path.parent, [path]
    if path.is_dir():
        folder, files = path, sorted([*path.rglob("*.json"), *path.rglob("*.jsonl")])
    found: dict[str, optax_mi.MIHistory] = {}
    for file in filter(Path.is_file, files):
        stem = file.relative_to(folder).with_suffix("").as_posix()
        for name, history in _read(file):
            whole = f"{stem}/{name}" if name else stem
            if not history.rows:
                _leave_out(f"{whole} of {file}" if name else file)
                continue
            # Nothing keeps two lines of a file from having one name.
            others = (f"{whole} ({i})" for i in itertools.count(2))
            free = (n for n in itertools.chain([whole], others) if n not in found)
            found[next(free)] = history
    if not found:
        raise InputError(f"{path} holds no run that MIHistory wrote")
    return found


def _read(file: Path) -> list[tuple[str, optax_mi.MIHistory]]:
    """The runs of a file and their names, "" where it is one run."""
    try:
        if file.suffix != ".jsonl":
            return [("", optax_mi.MIHistory.from_json(file))]
        with warnings.catch_warnings(record=True, action="always") as torn:
            runs = optax_mi.MIHistory.from_jsonl(file)
        for warning in torn:
            say(str(warning.message))
        return [(about["name"], history) for about, history in runs]
    except ValueError:
        return [("", optax_mi.MIHistory())]


def _leave_out(what: object) -> None:
    say(f"{what} is no recorded run: left out")
