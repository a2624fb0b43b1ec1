"""For those who have arrays or recorded runs, and no training loop.

python -m optax_mi estimate x.npy y.npy
python -m optax_mi curve x.npy y.npy --out curve.png
python -m optax_mi runs PATH --out runs.png
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import optax_mi
from optax_mi import _checks
from optax_mi._estimators._neighbours.distances import METRICS
from optax_mi._estimators._scaling import SCALINGS
from optax_mi._history import COLUMNS
from optax_mi._interval import FEWEST
from optax_mi._types import Numeric

# Integers of more different values, as a share of the rows, are taken for amounts.
MOST_CLASSES = 0.2
PICTURES = (".png", ".pdf", ".svg", ".jpg")


class InputError(Exception):
    """What was given cannot be used; the message says why in one sentence."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what cannot be done ends in one sentence and status 2."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        _check_folder(getattr(args, "out", None))
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            if getattr(args, "continuous", False):
                warnings.filterwarnings("ignore", ".*taken for real numbers")
            warnings.showwarning = lambda message, *_, **__: _say(str(message))
            args.run(args)
    except (InputError, ValueError, OSError) as error:
        parser.exit(2, f"python -m optax_mi {args.command}: {error}\n")


def estimate(args: argparse.Namespace) -> None:
    """Prints the information with its standard error and its p-value."""
    x, y = _load(args)
    classes = _checks.is_discrete(y)
    used = int(optax_mi.usable_points(y)) if classes else len(x)
    if not used:
        raise InputError("no estimate: every example is the only one of its class")
    mi, error, p_value = _measured(args, x, y)
    if args.json:
        content = {
            "mi": mi,
            "standard_error": _or_none(error),
            "p_value": _or_none(p_value),
            "unit": "nats",
            "n": len(x),
            "used": used,
            "outcomes": "classes" if classes else "continuous",
            "k": args.k[0] if len(args.k) == 1 else args.k,
            "metric": args.metric,
            "scaling": args.scaling,
        }
        print(json.dumps(content, indent=2, allow_nan=False))
        return
    known = f"+- {error:.4f}" if math.isfinite(error) else "(standard error unknown)"
    print(f"I(X; Y) = {mi:.4f} {known} nats")
    if math.isfinite(p_value):
        print(f"p = {p_value:.3g} of independence, {args.permutations} permutations")
    kind = f"{len(np.unique(y))} classes" if classes else "continuous outcomes"
    k = " and ".join(map(str, args.k))
    how = f"k = {k}, {args.metric}, scaling: {args.scaling}"
    print(f"{len(x)} examples, {kind}, {how}")
    if used < len(x):
        print(f"left out, alone in their class: {len(x) - used}")


def _measured(
    args: argparse.Namespace,
    x: Numeric[np.ndarray, "n ..."],
    y: Numeric[np.ndarray, "n ..."],
) -> tuple[float, float, float]:
    """The estimate, the standard error and the p-value; NaN for one that is missing."""
    if len(x) == len(y) < FEWEST:
        _say(f"no standard error and no p-value: they take at least {FEWEST} examples")
        found = optax_mi.estimate_mi({"": x}, y, estimator=_estimator(args, y))
        return float(found[""]), math.nan, math.nan
    found = optax_mi.mi_with_error(
        jax.random.key(args.seed),
        x,
        y,
        estimator=_estimator(args, y),
        permutations=args.permutations,
        blocks=args.blocks,
    )
    return float(found.mi), float(found.standard_error), float(found.p_value)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def curve(args: argparse.Namespace) -> None:
    """Prints the estimate against the sample's size, and draws it."""
    x, y = _load(args)
    # Samples of more than half would be much the same examples.
    usual = [size for size in (100, 300, 1000, 3000, 10_000) if size <= len(x) // 2]
    if not (args.sizes or usual):
        raise InputError(f"give --sizes: there are only {len(x)} examples")
    sizes = args.sizes or usual
    found = optax_mi.sample_size_curve(
        jax.random.key(args.seed),
        x,
        y,
        sizes,
        args.repeats,
        estimator=_estimator(args, y),
    )
    rows = zip(found.sizes.tolist(), found.mean, found.std, strict=True)
    print("| examples | I(X; Y), nats | standard deviation |\n|---|---|---|")
    for size, mean, spread in rows:
        print(f"| {size} | {mean:.4f} | {spread:.4f} |")
    _draw(args.out, lambda plots: plots.sample_size(found))


def runs(args: argparse.Namespace) -> None:
    """Prints a line for each recorded run and layer, and draws the runs."""
    found = _histories(args.path)
    metric = _common("--metric", args.metric, map(_metrics, found.values()), "accuracy")
    told = [metric] if metric else []
    head = ["run", "layer", "epochs", "last rate", "highest rate", "last MI", *told]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for name, run in found.items():
        for layer in run.layers:
            rate, mi = (run.column(c, layer) for c in ("learning_rate", "mi"))
            numbers = [rate[-1], rate.max(), mi[-1]]
            numbers += [run.column(m, layer)[-1] for m in told]
            cells = [name, layer, str(len(rate)), *(f"{v:.4g}" for v in numbers)]
            print(f"| {' | '.join(cells)} |")
    if not args.out:
        return
    layers = (set(run.layers) for run in found.values())
    layer = _common("--layer", args.layer, layers, "")
    if metric is None or layer is None:
        raise InputError("a picture needs a metric and a layer that all runs have")
    print(f"\nlayer {layer!r} in ", end="")
    _draw(args.out, lambda plots: plots.training(found, layer=layer, metric=metric))


def _common(
    option: str, given: str | None, of_runs: Iterable[set[str]], usual: str
) -> str | None:
    """The name given, or the usual or first one, of those that all runs have."""
    names = sorted(set.intersection(*of_runs))
    if given is None:
        return next((name for name in (usual, *names) if name in names), None)
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
            print(warning.message, file=sys.stderr)
        return [(about["name"], history) for about, history in runs]
    except ValueError:
        return [("", optax_mi.MIHistory())]


def _leave_out(what: object) -> None:
    _say(f"{what} is no recorded run: left out")


def _load(
    args: argparse.Namespace,
) -> tuple[Numeric[np.ndarray, "n ..."], Numeric[np.ndarray, "m ..."]]:
    if not 0 <= args.seed < 2**32:
        raise InputError(f"--seed must be from 0 to {2**32 - 1}, got {args.seed}")
    x, y = (_array(path) for path in (args.x, args.y))
    if args.labels and not _checks.is_discrete(y):
        if not np.array_equal(y, np.round(y)):
            raise InputError(f"--labels needs whole numbers; {args.y} holds others")
        y = y.astype(np.int64)
    amounts = args.continuous
    if _checks.is_discrete(y) and not (args.labels or amounts):
        different = len(np.unique(y))
        amounts = different > MOST_CLASSES * len(y)
        if amounts:
            _say(
                f"{args.y} holds {different} different integers in {len(y)} rows: "
                "taken for amounts, not for classes (--labels for classes)"
            )
    return x, (_as_floats(y) if amounts else y)


def _as_floats(y: Numeric[np.ndarray, "n ..."]) -> Numeric[np.ndarray, "n ..."]:
    """Amounts as floats; of large integers the differences are exact."""
    if y.dtype.kind in "iu":
        y = y - y.min(axis=0)
    return y.astype(np.float64)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _array(path: Path) -> Numeric[np.ndarray, "n ..."]:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    with path.open("rb") as file:
        try:
            # An array of objects would run what whoever wrote the file put into it.
            array = np.load(file, allow_pickle=False)
        except Exception as error:  # a damaged file raises whatever it comes to
            raise InputError(f"{path} is no .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} holds several arrays: save one, as .npy")
    if array.dtype.kind not in "biuf" or array.ndim == 0 or array.size == 0:
        kind = f"dtype {array.dtype}, shape {array.shape}"
        raise InputError(f"{path} must hold real numbers by rows; it has {kind}")
    finite = np.isfinite(array).reshape(len(array), -1)
    if not finite.all():
        raise InputError(
            f"{path} holds {np.sum(~finite)} numbers that are NaN or infinite, "
            f"in {np.sum(~finite.all(axis=1))} of its {len(array)} rows"
        )
    return array


def _estimator(
    args: argparse.Namespace, y: Numeric[np.ndarray, "n ..."]
) -> optax_mi.Estimator:
    by_neighbours = optax_mi.ksg_discrete if _checks.is_discrete(y) else optax_mi.ksg
    options = {"k": args.k, "metric": args.metric, "scaling": args.scaling}
    return partial(by_neighbours, **options)


def _check_folder(out: Path | None) -> None:
    if out is None:
        return
    if not out.parent.is_dir():
        raise InputError(f"there is no directory {out.parent} for --out")
    if out.suffix not in PICTURES:
        raise InputError(f"--out must end in one of {', '.join(PICTURES)}, got {out}")


def _draw(path: Path | None, draw: Callable[[Any], Any]) -> None:
    if path is None:
        return
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from optax_mi import plots
    except ImportError as error:
        raise InputError(f"{error}: pip install 'optax_mi[plot]'") from error
    figure, _ = draw(plots)
    figure.savefig(path, dpi=120)
    print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m optax_mi",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    arrays = argparse.ArgumentParser(add_help=False)
    arrays.add_argument("x", type=Path, help=".npy, shape [n, ...]")
    arrays.add_argument("y", type=Path, help=".npy, [n]; integers are classes")
    arrays.add_argument(
        "--labels", action="store_true", help="whole numbers held as floats are classes"
    )
    arrays.add_argument(
        "--continuous", action="store_true", help="integers are amounts, not classes"
    )
    arrays.add_argument(
        "--k", type=int, nargs="+", default=[3], help="neighbours, by default 3"
    )
    arrays.add_argument("--metric", choices=METRICS, default=METRICS[0])
    arrays.add_argument(
        "--scaling",
        choices=SCALINGS,
        default=SCALINGS[0],
        help="divide each feature (a column) by its spread, x as a whole, or nothing",
    )
    arrays.add_argument("--seed", type=int, default=0)

    one = commands.add_parser("estimate", parents=[arrays], help=estimate.__doc__)
    one.add_argument("--permutations", type=int, default=100)
    one.add_argument(
        "--blocks", type=int, default=1, help="rows that stay together, for time series"
    )
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=estimate)

    several = commands.add_parser("curve", parents=[arrays], help=curve.__doc__)
    several.add_argument("--sizes", type=int, nargs="+", help="up to half by default")
    several.add_argument("--repeats", type=int, default=10)
    several.add_argument("--out", type=Path, help="a picture")
    several.set_defaults(run=curve)

    recorded = commands.add_parser("runs", help=runs.__doc__)
    recorded.add_argument("path", type=Path, help="a folder, or a .json or .jsonl file")
    recorded.add_argument("--metric", help="by default accuracy")
    recorded.add_argument("--layer", help='by default "", the output, or the first')
    recorded.add_argument("--out", type=Path, help="a picture")
    recorded.set_defaults(run=runs)
    return parser


if __name__ == "__main__":
    main()
