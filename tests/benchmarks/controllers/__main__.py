"""Controllers of the learning rate beside tuned schedules, on tasks and optimizers.

Each run is a line of a file, and a run that is there is not done again. Printed and
written, never asserted: `make controllers`.
"""

import argparse
from pathlib import Path

from tests.benchmarks.controllers.methods import METHODS
from tests.benchmarks.controllers.report import write
from tests.benchmarks.controllers.run import Bench
from tests.benchmarks.controllers.tasks import TASKS


def main() -> None:
    """Does what is missing in the file, and writes the report of all that is there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.controllers", description=__doc__
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results/controllers.jsonl")
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    if not args.report:
        Bench(args.out, args.only, args.data_dir, args.methods).run()
    write(args.out)


if __name__ == "__main__":
    main()
