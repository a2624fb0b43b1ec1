"""For those who have arrays or recorded runs, and no training loop.

python -m optax_mi estimate x.npy y.npy
python -m optax_mi curve x.npy y.npy --out curve.png
python -m optax_mi runs DIR --out runs.png
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import optax_mi
from optax_mi import _checks
from optax_mi._types import Metric

METRICS = ("euclidean", "manhattan", "chebyshev")


class InputError(Exception):
    """What was given cannot be used; the message says why in one sentence."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what cannot be done ends in one sentence and status 2."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except (InputError, ValueError) as error:
        parser.exit(2, f"python -m optax_mi {args.command}: {error}\n")


def estimate(args: argparse.Namespace) -> None:
    """Prints the information with its standard error and its p-value."""
    x, y = _load(args)
    found = optax_mi.mutual_information_interval(
        jax.random.key(args.seed),
        x,
        y,
        estimator=_estimator(args, y),
        permutations=args.permutations,
    )
    mi, error, p_value = map(float, found)
    classes = _checks.is_discrete(y)
    used = int(optax_mi.usable_points(y)) if classes else len(x)
    if args.json:
        content = {
            "mi": mi,
            "standard_error": error,
            "p_value": p_value if args.permutations else None,
            "unit": "nats",
            "n": len(x),
            "used": used,
            "outcomes": "classes" if classes else "continuous",
            "k": args.k,
            "metric": args.metric,
        }
        print(json.dumps(content, indent=2))
        return
    print(f"I(X; Y) = {mi:.4f} +- {error:.4f} nats")
    if args.permutations:
        print(f"p = {p_value:.3g} of independence, {args.permutations} permutations")
    kind = f"{len(np.unique(y))} classes" if classes else "continuous outcomes"
    print(f"{len(x)} examples, {kind}, k = {args.k}, {args.metric}")
    if used < len(x):
        print(f"{len(x) - used} examples are the only ones of their class: left out")


def curve(args: argparse.Namespace) -> None:
    """Prints the estimate against the sample's size, and draws it."""
    x, y = _load(args)
    # Samples of more than half would be much the same examples.
    usual = [size for size in (100, 300, 1000, 3000, 10_000) if size <= len(x) // 2]
    sizes = args.sizes or usual or [len(x) // 2]
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
    found = _histories(args.directory)
    names = sorted(set.intersection(*(_metrics(run) for run in found.values())))
    metric = args.metric or next((m for m in ("accuracy", *names) if m in names), None)
    if args.metric and args.metric not in names:
        raise InputError(f"all runs have {names or 'no metrics'}, not {metric!r}")
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
    if args.out and not metric:
        raise InputError("a picture needs a metric that all runs have; they have none")
    if args.out:
        one, *_ = found.values()
        layer = "" if "" in one.layers else one.layers[-1]
        _draw(args.out, lambda plots: plots.training(found, layer=layer, metric=metric))


def _metrics(run: optax_mi.MIHistory) -> set[str]:
    known = {"epoch", "step", "layer", "learning_rate", "mi", "reference"}
    return {name for row in run.rows for name in row} - known


def _histories(directory: Path) -> dict[str, optax_mi.MIHistory]:
    if not directory.is_dir():
        raise InputError(f"there is no directory {directory}")
    found = {}
    for path in sorted(directory.rglob("*.json")):
        try:
            history = optax_mi.MIHistory.from_json(path)
        except ValueError:
            history = optax_mi.MIHistory()
        if history.rows:
            found[str(path.relative_to(directory).with_suffix(""))] = history
        else:
            print(f"{path} is no recorded run: left out", file=sys.stderr)
    if not found:
        raise InputError(f"{directory} holds no run that MIHistory.to_json wrote")
    return found


def _load(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    x, y = (_array(path) for path in (args.x, args.y))
    if args.labels and not _checks.is_discrete(y):
        if y.ndim != 1 or not np.array_equal(y, np.round(y)):
            raise InputError(
                f"{args.y} does not hold whole numbers, one for each class"
            )
        y = y.astype(np.int64)
    return x, y


def _array(path: Path) -> np.ndarray:
    try:
        # An array of objects would run what whoever wrote the file put into it.
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not one array of numbers: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} holds several arrays: save one, as .npy")
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        kind = f"dtype {array.dtype}, shape {array.shape}"
        raise InputError(f"{path} holds no array of real numbers by rows: {kind}")
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if bad.any():
        missing = np.size(array) - np.isfinite(array).sum()
        raise InputError(
            f"{path} holds {missing} NaN or infinities, in {bad.sum()} of its "
            f"{len(array)} rows"
        )
    return array


def _estimator(args: argparse.Namespace, y: np.ndarray) -> optax_mi.Estimator:
    return _by_neighbours(_checks.is_discrete(y), args.k, args.metric)


@cache  # what is the same function is compiled once
def _by_neighbours(classes: bool, k: int, metric: Metric) -> optax_mi.Estimator:
    by_neighbours = optax_mi.ksg_discrete if classes else optax_mi.ksg
    return partial(by_neighbours, k=k, metric=metric)


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
    print(f"\n{path}")


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
    arrays.add_argument("--labels", action="store_true", help="y holds classes")
    arrays.add_argument("--k", type=int, default=3, help="neighbours, by default 3")
    arrays.add_argument("--metric", choices=METRICS, default=METRICS[0])
    arrays.add_argument("--seed", type=int, default=0)

    one = commands.add_parser("estimate", parents=[arrays], help=estimate.__doc__)
    one.add_argument("--permutations", type=int, default=100)
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=estimate)

    several = commands.add_parser("curve", parents=[arrays], help=curve.__doc__)
    several.add_argument("--sizes", type=int, nargs="+", help="up to half by default")
    several.add_argument("--repeats", type=int, default=10)
    several.add_argument("--out", type=Path, help="a picture")
    several.set_defaults(run=curve)

    recorded = commands.add_parser("runs", help=runs.__doc__)
    recorded.add_argument("directory", type=Path)
    recorded.add_argument("--metric", help="by default accuracy")
    recorded.add_argument("--out", type=Path, help="a picture")
    recorded.set_defaults(run=runs)
    return parser


if __name__ == "__main__":
    main()
