"""Measures what steering costs beside training at a constant rate: `make overhead`.

The rows train side by side on MNIST with the paper's network, an epoch of each in turn,
so that what else the machine does falls on all of them. An epoch of a row that follows
the information is its steps, its measurement and recording it. Beside it, an update and
its application alone, whose cost does not depend on the network: what a policy adds
that can go back. Printed, never asserted.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_mi
from examples.common.data import load
from examples.common.networks import NETWORKS
from examples.common.report import markdown
from examples.common.training import Task, train
from examples.paper.experiments import EXPERIMENTS

ROWS = {
    "constant rate": ("figure3", "fixed"),
    "one rate by policy B, the output measured": ("figure3", "fine"),
    "one rate by the default, which can go back": ("figure6", "single"),
    "a rate for each of four layers": ("figure6", "layerwise_fine"),
}

TRANSFORMATIONS: dict[str, Callable[[], Any]] = {
    "constant rate": lambda: optax.sgd(0.01),
    "policy B": lambda: _steered(optax_mi.reference_policy()),
    "the default": lambda: _steered(optax_mi.warmup_stable_decay_policy()),
}


def _steered(policy: Any) -> Any:
    rate = optax_mi.mi_dynamic_lr(1e-4, 3.0, policy=policy, reference=2.3)
    return optax.chain(optax.sgd(1.0), rate)


def updates_alone(parameters: int, calls: int = 200) -> dict[str, float]:
    """Milliseconds of an update and its application, medians of calls in turn."""
    steps, carries = {}, {}
    for title, make in TRANSFORMATIONS.items():
        tx = make()

        @partial(jax.jit, donate_argnums=0)
        def step(carry: Any, gradients: Any, tx: Any = tx) -> Any:
            params, state = carry
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        params = jnp.zeros(parameters)
        steps[title], carries[title] = step, (params, tx.init(params))
    gradients = jnp.ones(parameters)
    seconds: dict[str, list[float]] = {title: [] for title in steps}
    for _ in range(calls):
        for title, step in steps.items():
            start = time.perf_counter()
            carries[title] = jax.block_until_ready(step(carries[title], gradients))
            seconds[title].append(time.perf_counter() - start)
    return {title: 1e3 * statistics.median(times) for title, times in seconds.items()}


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
    sizes = (10**5, 10**6, 10**7)
    found = [updates_alone(size) for size in sizes]
    table = [[title, *(f"{f[title]:.3f}" for f in found)] for title in TRANSFORMATIONS]
    print("\nAn update and its application alone, ms, by parameters\n")
    print(markdown(["", *(f"{size:,}" for size in sizes)], table))


if __name__ == "__main__":
    main()
