"""For those who have arrays or recorded runs, and no training loop.

optax-mi estimate x.npy y.npy
optax-mi estimate table.csv:height,weight table.csv:species
optax-mi curve arrays.npz:x arrays.npz:y --out curve.png
optax-mi runs PATH --out runs.png
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import optax_mi
from optax_mi._command_line import pictures
from optax_mi._command_line.estimates import curve, estimate
from optax_mi._command_line.recorded import runs
from optax_mi._command_line.terminal import InputError, say
from optax_mi._estimators._neighbours.distances import METRICS
from optax_mi._estimators._scaling import SCALINGS


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what cannot be done ends in one sentence and status 2."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        pictures.check(getattr(args, "out", None))
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            if getattr(args, "continuous", False):
                warnings.filterwarnings("ignore", ".*taken for real numbers")
            warnings.showwarning = lambda message, *_, **__: say(str(message))
            args.run(args)
    except (InputError, ValueError, OSError) as error:
        parser.exit(2, f"optax-mi {args.command}: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optax-mi",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"optax-mi {optax_mi.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True)
    arrays = _of_arrays()

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


def _of_arrays() -> argparse.ArgumentParser:
    """The arguments that `estimate` and `curve` share."""
    parser = argparse.ArgumentParser(add_help=False)
    x_help = "FILE.npy, FILE.npz:NAME or FILE.csv:NAME,NAME; a row for each example"
    y_help = "the same; integers and words are classes"
    parser.add_argument("x", help=x_help)
    parser.add_argument("y", help=y_help)
    parser.add_argument(
        "--labels", action="store_true", help="whole numbers held as floats are classes"
    )
    parser.add_argument(
        "--continuous", action="store_true", help="integers are amounts, not classes"
    )
    parser.add_argument(
        "--k", type=int, nargs="+", default=[3], help="neighbours, by default 3"
    )
    parser.add_argument("--metric", choices=METRICS, default=METRICS[0])
    parser.add_argument(
        "--scaling",
        choices=SCALINGS,
        default=SCALINGS[0],
        help="divide each feature (a column) by its spread, x as a whole, or nothing",
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
