"""Suggests bounds by a sweep, and trains with them and with the paper's beside.

    python -m examples.range_test --seeds 3
    python -m examples.range_test --dataset mnist --data-dir ... --seeds 3

`--base` sweeps with another optimizer and does not train.
"""

import argparse
from typing import Any

import jax
import optax

import optax_mi
from examples.common import data
from examples.common.methods import LR_MAX, LR_MIN
from examples.common.networks import SmallCNN
from examples.common.training import Phase, Task, sweep, train

BASES = {
    "sgd": optax.sgd(1.0),
    "momentum": optax.sgd(1.0, momentum=0.9),
    "adam": optax.adam(1.0),
}


def compare(
    task: Task, seed: int, *, epochs: int, batch_size: int
) -> dict[str, optax_mi.MIHistory]:
    """Trains by policy B within the paper's bounds, and within those of a sweep."""
    found, runs = sweep(task, batch_size=batch_size, seed=seed), {}
    for name, lr_min, lr_max in [
        ("by hand", LR_MIN, LR_MAX),
        ("suggested", found.lr_min, found.lr_max),
    ]:
        phases = [Phase("dynamic", {"lr_min": lr_min, "lr_max": lr_max})]
        options: Any = {"epochs": epochs, "batch_size": batch_size}
        *_, ((runs[name],), _) = train(task, phases, seeds=[seed], **options)
        accuracy = f"final test accuracy {runs[name].column('accuracy')[-1]:.2%}"
        print(f"seed {seed}  {name:9}  {lr_min:.4f} to {lr_max:.4f}  {accuracy}")
    return runs


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each seed and set of bounds."""
    prog, layout = "python -m examples.range_test", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=layout
    )
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder")
    parser.add_argument("--seeds", type=int, default=1, help="0 to one less than this")
    parser.add_argument("--epochs", type=int, help="default: those of the demo")
    parser.add_argument("--base", choices=BASES, help="only sweep, with this one")
    args = parser.parse_args(arguments)
    usual: dict[str, Any] = data.USUAL[args.dataset]
    epochs, batch_size = args.epochs or usual["epochs"], usual["batch_size"]
    dataset = data.load(args.dataset, args.data_dir, usual["train_size"])
    for seed in range(args.seeds):
        key, x, y = jax.random.key(seed), dataset.train_x, dataset.train_y
        task = Task(SmallCNN(), dataset, optax_mi.sample_probe(key, x, y))
        if args.base is None:
            compare(task, seed, epochs=epochs, batch_size=batch_size)
            continue
        found = sweep(task, batch_size=batch_size, seed=seed, base=BASES[args.base])
        print(f"seed {seed}  {args.base}  {found.lr_min:.5f} to {found.lr_max:.4f}")


if __name__ == "__main__":
    main()
