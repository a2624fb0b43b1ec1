"""Suggests bounds by a sweep, and trains with them and with the paper's beside.

    python -m examples.sweep --seeds 3
    python -m examples.sweep --dataset mnist --data-dir ... --seeds 3

`--base` sweeps with another optimizer and does not train.
"""

import argparse
import itertools
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import optax_mi
from examples import data
from examples.cnn import SmallCNN
from examples.demo import DEFAULTS, LR_MAX, LR_MIN
from examples.training import Epoch, batches, mi_driven, train

BASES = {
    "sgd": optax.sgd(1.0),
    "momentum": optax.sgd(1.0, momentum=0.9),
    "adam": optax.adam(1.0),
}


def sweep(
    model: nn.Module,
    dataset: data.Dataset,
    probe: optax_mi.Probe,
    *,
    batch_size: int,
    seed: int,
    base: optax.GradientTransformation = BASES["sgd"],
    **options: Any,
) -> optax_mi.LRRangeTest:
    """Sweeps the rate of an optimizer whose own is 1."""

    @jax.jit
    def step(state: Any, batch: Any, learning_rate: Any) -> tuple[Any, jax.Array]:
        params, opt_state, key = state
        key, dropout = jax.random.split(key)
        x, y = batch

        def loss(params: Any) -> jax.Array:
            logits: Any = model.apply(params, x, train=True, rngs={"dropout": dropout})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = base.update(gradients, opt_state, params)
        updates = optax.tree.scale(learning_rate, updates)
        return (optax.apply_updates(params, updates), opt_state, key), value

    @jax.jit
    def measure(state: Any) -> dict[str, jax.Array]:
        output = optax_mi.capture_activations(model, state[0], probe.inputs, layers="")
        return optax_mi.estimate_mi(output, probe.outcomes)

    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    params = model.init(key, dataset.train_x[:1])
    order = itertools.chain.from_iterable(
        batches(rng, len(dataset.train_x), batch_size) for _ in itertools.count()
    )
    examples = ((dataset.train_x[i], dataset.train_y[i]) for i in order)
    state = (params, base.init(params), key)
    return optax_mi.lr_range_test(step, state, examples, measure, **options)


def compare(
    dataset: data.Dataset,
    seed: int,
    *,
    epochs: int,
    batch_size: int,
    report: Callable[[str], Any] = lambda line: None,
) -> tuple[list[Epoch], list[Epoch]]:
    """Trains by policy B within the paper's bounds, and within those of a sweep."""
    probe = optax_mi.sample_probe(
        jax.random.key(seed), dataset.train_x, dataset.train_y
    )
    reference = optax_mi.reference_mi(probe)
    found = sweep(SmallCNN(), dataset, probe, batch_size=batch_size, seed=seed)
    runs = []
    for name, bounds in {
        "by hand": (LR_MIN, LR_MAX),
        "suggested": (found.lr_min, found.lr_max),
    }.items():
        method = mi_driven(name, *bounds, reference=reference)
        options: Any = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
        runs.append(list(train(SmallCNN(), dataset, method, probe, **options)))
        report(
            f"seed {seed}  {name:9}  {bounds[0]:.4f} to {bounds[1]:.4f}  "
            f"final test accuracy {runs[-1][-1].accuracy:.2%}"
        )
    return runs[0], runs[1]


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each seed and set of bounds."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder")
    parser.add_argument("--seeds", type=int, default=1, help="0 to one less than this")
    parser.add_argument("--epochs", type=int, help="default: those of the demo")
    parser.add_argument("--base", choices=BASES, help="only sweep, with this one")
    args = parser.parse_args(arguments)
    epochs, train_size, batch_size = DEFAULTS[args.dataset]
    try:
        dataset = data.load(args.dataset, args.data_dir, train_size)
    except data.DataError as error:
        sys.exit(str(error))
    for seed in range(args.seeds):
        if args.base is None:
            options: Any = {"epochs": args.epochs or epochs, "batch_size": batch_size}
            compare(dataset, seed, report=print, **options)
            continue
        probe = optax_mi.sample_probe(
            jax.random.key(seed), dataset.train_x, dataset.train_y
        )
        found = sweep(
            SmallCNN(),
            dataset,
            probe,
            batch_size=batch_size,
            seed=seed,
            base=BASES[args.base],
        )
        print(f"seed {seed}  {args.base}  {found.lr_min:.5f} to {found.lr_max:.4f}")


if __name__ == "__main__":
    main()
