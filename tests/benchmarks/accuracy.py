"""Estimates beside known truths and other packages: `make accuracy`.

Every estimator gets the same samples: n = 5000, or what the command line says, which
may also name a part of the bands to be done; three seeds, k = 3. Prints the mean
estimate of each task, then the mean absolute error of each band.
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import tasks

import optax_mi

SEEDS = 3
K = 3


def ours() -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Our estimators, for continuous outcomes and for labels.

    The features of a task share a unit.
    """
    options: dict[str, Any] = {"k": K, "scaling": "variable"}
    ksg = partial(optax_mi.ksg, **options)
    of_labels = partial(optax_mi.ksg_discrete, **options)
    continuous = {
        "ksg": ksg,
        "ksg, algorithm 2": partial(ksg, algorithm=2),
        "ksg, Gaussian margins": partial(ksg, margins="gaussian"),
        "ksg, Euclidean, k = 5 and 10": partial(ksg, k=(5, 10), metric="euclidean"),
        "ksg_mixed": partial(optax_mi.ksg_mixed, **options),
    }
    labels = {
        "ksg_discrete": of_labels,
        "ksg_discrete, max-norm": partial(of_labels, metric="chebyshev"),
    }
    return continuous, labels


def estimate(estimator: Callable, task: tasks.Task, n: int) -> float:
    """Mean estimate over the seeds; NaN where the package cannot do it."""
    found = []
    for seed in range(SEEDS):
        x, y = task.sample(np.random.default_rng(seed), n)
        try:
            found.append(float(estimator(x, y)))
        except peers.Unsupported:
            return np.nan
    return float(np.mean(found))


def print_bands(selected: list[tasks.Task], estimators: dict[str, Callable], n: int):
    """Prints a table with a row a task, and one with a row a band."""
    names = list(estimators)
    print(f"| task | truth | {' | '.join(names)} |")
    print(f"|{'---|' * (len(names) + 2)}")
    errors: dict[str, list[list[float]]] = {}
    for task in selected:
        values = [estimate(estimators[name], task, n) for name in names]
        errors.setdefault(task.band, []).append([v - task.truth for v in values])
        shown = " | ".join("" if np.isnan(v) else f"{v:.3f}" for v in values)
        print(f"| {task.name} | {task.truth:.3f} | {shown} |", flush=True)
    print(f"\n| band: mean (largest) absolute error | {' | '.join(names)} |")
    print(f"|{'---|' * (len(names) + 1)}")
    for band, rows in errors.items():
        absolute = np.abs(np.array(rows))
        cells = [
            "" if np.isnan(a).any() else f"{a.mean():.3f} ({a.max():.3f})"
            for a in absolute.T
        ]
        print(f"| {band} | {' | '.join(cells)} |")
    print()


def main() -> None:
    """Prints the tables."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    band = sys.argv[2] if len(sys.argv) > 2 else ""
    print(f"n = {n}, {SEEDS} seeds, k = {K}, nats\n")
    continuous, labels = ours()
    their_continuous, their_labels = peers.load()
    everything = [task for task in tasks.all_tasks() if band in task.band]
    classes = [task for task in everything if task.band.startswith("labels")]
    others = [task for task in everything if task not in classes]
    if others:
        print_bands(others, continuous, n)
        print_bands(others, their_continuous, n)
    if classes:
        print_bands(classes, {**labels, **their_labels}, n)


if __name__ == "__main__":
    main()
