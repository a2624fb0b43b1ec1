"""Measures what steering costs beside training at a constant rate: `make overhead`.

The rows train side by side on MNIST with the paper's network, an epoch of each in turn,
so that what else the machine does falls on all of them. An epoch of a row that follows
the information is its steps, its measurement and recording it. Printed, never asserted.
"""

import argparse
import statistics
from typing import Any

import jax

import optax_mi
from examples.common.data import load
from examples.common.networks import NETWORKS
from examples.common.report import markdown
from examples.common.training import Task, train
from examples.paper.experiments import EXPERIMENTS

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
    n = len(dataset.train_x)
    probe = optax_mi.sample_probe(
        jax.random.key(0), dataset.train_x, dataset.train_y, size=min(n, 1000)
    )
    runs: dict[str, Any] = {}
    for title, (experiment, name) in ROWS.items():
        (row,) = (row for row in EXPERIMENTS[experiment] if row.name == name)
        task = Task(NETWORKS[args.model], dataset, probe, layers=row.layers)
        runs[title] = train(task, row.phases, epochs=1 + args.epochs, batch_size=100)
    seconds: dict[str, list[tuple[float, float]]] = {title: [] for title in runs}
    for epoch in range(1 + args.epochs):
        for title, run in runs.items():
            (history,), _ = next(run)
            last = history.rows[-1]
            training, measuring = last["train_seconds"], last["measure_seconds"]
            if title == "constant rate":
                measuring = 0.0  # not a part of it, though the loop measures
            print(f"epoch {epoch}, {title}: {training:.1f} + {measuring:.2f} s")
            if epoch:
                seconds[title].append((training, measuring))
    constant = statistics.median(training for training, _ in seconds["constant rate"])
    print(f"\n{n} images, {args.model} network, probe of {min(n, 1000)}\n")
    lines = []
    for title, parts in seconds.items():
        whole = statistics.median(map(sum, parts))
        share = statistics.median(b / (a + b) for a, b in parts)
        lines.append([title, f"{whole:.1f}", f"{share:.2%}", f"{whole / constant:.3f}"])
    header = ["", "an epoch, s", "of that measuring", "to a constant rate's"]
    print(markdown(header, lines))


if __name__ == "__main__":
    main()
