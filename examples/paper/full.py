"""The paper on all of its data, with convolutions of 32 and 64 filters.

    python -m examples.paper.full --data-dir ...

Runs the rows of `PLAN` one after the other, as `examples.paper.run` does: 16 to
28 minutes each on one core (two of them four times that), about 19 hours in all. It may
be stopped at any time: given again, it skips what is there and goes on with the run
that was stopped.
"""

import argparse
import subprocess
import sys

MNIST = (
    "figure3 --rows stable fixed same_rate dampened change warm_up stable_held_out",
    "figure5 --rows stable base fixed dynamic",
    "figure6 --rows single layerwise_stable layerwise",
)
CIFAR = (
    "figure4 --rows stable_held_out fixed stable",
    "figure4 --rows same_rate dampened change_dampened warm_up",
    "figure4 --rows fixed warm_up --epochs 200",  # as long as in the paper
)
PLAN = tuple(
    f"{command} --model classic --seeds {seeds}"
    for commands, seeds in [(MNIST, 1), (MNIST, 3), (CIFAR, 1)]
    for command in commands
)


def main(arguments: list[str] | None = None) -> None:
    """Runs what is missing."""
    prog = "python -m examples.paper.full"
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=layout
    )
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder")
    parser.add_argument("--out", default="docs/results")
    args = parser.parse_args(arguments)
    data_dir = ["--data-dir", args.data_dir] if args.data_dir else []
    for command in PLAN:
        print(f"python -m examples.paper.run {command}", flush=True)
        program = [sys.executable, "-m", "examples.paper.run"]
        options = [*command.split(), *data_dir, "--out", args.out]
        subprocess.run([*program, *options], check=True)


if __name__ == "__main__":
    main()
