"""Measures what steering costs beside training at a constant rate: `make overhead`.

The rows train side by side on MNIST with the paper's network, an epoch of each in turn,
so that what else the machine does falls on all of them. An epoch of a row that follows
the information is its steps, its measurement and recording it. Printed, never asserted.
"""

import argparse
import statistics
from typing import Any

from examples.data import load
from examples.paper.figures import FIGURES
from examples.paper.loop import train_row

ROWS = {
    "constant rate": ("figure3", "fixed"),
    "one rate, the output measured": ("figure3", "fine"),
    "a rate for each of four layers": ("figure6", "layerwise_fine"),
}


def main() -> None:
    """Trains all rows for some epochs, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--epochs", type=int, default=2, help="after one that compiles")
    parser.add_argument("--model", default="paper")
    args = parser.parse_args()
    dataset = load("mnist", args.data_dir, args.train_size)
    options: Any = {"model": args.model, "seeds": [0], "epochs": 1 + args.epochs}
    runs = {
        title: train_row(
            next(row for row in FIGURES[figure] if row.name == name), dataset, **options
        )
        for title, (figure, name) in ROWS.items()
    }
    seconds: dict[str, list[tuple[float, float]]] = {title: [] for title in runs}
    for epoch in range(1 + args.epochs):
        for title, run in runs.items():
            (record,) = next(run)
            training, measuring = record["train_seconds"], record["measure_seconds"]
            if title == "constant rate":
                measuring = 0.0  # not a part of it, though the loop measures
            print(f"epoch {epoch}, {title}: {training:.1f} + {measuring:.2f} s")
            if epoch:
                seconds[title].append((training, measuring))
    constant = statistics.median(training for training, _ in seconds["constant rate"])
    n = len(dataset.train_x)
    print(f"\n{n} images, {args.model} network, probe of {min(n, 1000)}\n")
    print("| | an epoch, s | of that measuring | to a constant rate's |")
    print("|---|---|---|---|")
    for title, parts in seconds.items():
        whole = statistics.median(map(sum, parts))
        share = statistics.median(b / (a + b) for a, b in parts)
        print(f"| {title} | {whole:.1f} | {share:.2%} | {whole / constant:.3f} |")


if __name__ == "__main__":
    main()
