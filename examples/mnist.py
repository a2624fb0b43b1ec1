"""Trains one network in four ways: fixed rate, warm-up, and the paper's two policies.

`make demo` runs it, by default on scikit-learn's digits, and shows a line for each
epoch, a table and a picture. `python -m optax_mi runs runs` reads the histories that it
writes beside the picture. Copy this file and change it: only the data sets are read
elsewhere.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import optax_mi
from examples.common import data

LR_MIN, LR_MAX = 0.001, 0.1  # the paper's bounds
WARM_UP_EPOCHS = 5
ACCURACY = "test accuracy (%)"


class CNN(nn.Module):
    """Two convolution and two dense layers; of the paper's there is only a picture."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, 10]."""
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            # 2 x 2 maxima. The gradient of `nn.max_pool` is slow on a CPU: a step takes
            # 2.7 times as long (two cores, jax 0.10.2).
            x = jnp.maximum(x[:, :-1:2], x[:, 1::2])
            x = jnp.maximum(x[:, :, :-1:2], x[:, :, 1::2])
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10, name="logits")(x)


def ways(lr: float, reference: float, steps_per_epoch: int) -> dict[str, Any]:
    """The transformations that scale the updates of plain SGD, the fixed rate first."""
    scheduled = optax.inject_hyperparams(optax.scale)
    warm_up = optax.linear_schedule(LR_MIN, lr, WARM_UP_EPOCHS * steps_per_epoch)
    dynamic = partial(optax_mi.mi_dynamic_lr, LR_MIN, LR_MAX, reference=reference)
    return {
        f"fixed {lr}": scheduled(optax.constant_schedule(lr)),
        "linear warm-up": scheduled(warm_up),
        "policy A": dynamic(policy=optax_mi.change_policy()),
        "policy B": dynamic(policy=optax_mi.reference_policy()),
    }


@jax.jit
def step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    """Trains on one batch; returns its mean loss too."""

    def loss(params: Any) -> jax.Array:
        logits = state.apply_fn(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


@jax.jit
def measure(state: TrainState, probe: optax_mi.Probe) -> jax.Array:
    """I(H; Y) of the network's output, in nats."""
    layers = optax_mi.capture_activations(
        CNN(), state.params, probe.inputs, layers="logits"
    )
    return optax_mi.estimate_mi(layers, probe.outcomes)["logits"]


def record(state: TrainState, mi: jax.Array) -> tuple[TrainState, jax.Array]:
    """Hands a measurement to the policy; returns the rate in force too."""
    opt_state = cast("Any", state.opt_state)
    rate = optax.tree.get(opt_state, "learning_rate")
    if rate is None:  # a schedule sets it
        return state, opt_state[1].hyperparams["step_size"]
    return state.replace(opt_state=optax_mi.record_mi(opt_state, mi)), rate


@jax.jit
def correct(state: TrainState, x: jax.Array, y: jax.Array) -> jax.Array:
    """Whether the network classifies each image correctly."""
    return state.apply_fn(state.params, x).argmax(axis=-1) == y


def train(
    name: str,
    rate: optax.GradientTransformation,
    dataset: data.Dataset,
    probe: optax_mi.Probe,
    args: argparse.Namespace,
) -> optax_mi.MIHistory:
    """Trains in one way, from the seed's initial parameters and on its batches."""
    from tqdm import tqdm

    x, y, test_x, test_y = dataset[1:5]
    params = CNN().init(jax.random.key(args.seed), x[:1])
    tx = optax.chain(optax.sgd(1.0), rate)
    state = TrainState.create(apply_fn=CNN().apply, params=params, tx=tx)
    rng, history = np.random.default_rng(args.seed), optax_mi.MIHistory()
    reference = optax_mi.reference_mi(probe)
    steps = len(x) // args.batch_size  # an epoch's; a rest is left out
    bar = tqdm(total=args.epochs * steps, desc=name, leave=False, disable=None)
    state, _ = record(state, measure(state, probe))  # before the first step
    for epoch in range(args.epochs):
        losses, order = [], rng.permutation(len(x))
        for batch in order[: steps * args.batch_size].reshape(steps, -1):
            state, loss = step(state, x[batch], y[batch])
            losses.append(loss)
            bar.update()
        mi = measure(state, probe)
        state, learning_rate = record(state, mi)
        parts = [slice(i, i + 1000) for i in range(0, len(test_x), 1000)]
        hits = [correct(state, test_x[part], test_y[part]) for part in parts]
        accuracy = 100 * float(np.mean(np.concatenate(hits)))
        loss = np.mean(jax.device_get(losses))
        numbers: Any = {"reference": reference, "loss": loss, ACCURACY: accuracy}
        history.add(epoch=epoch, learning_rate=learning_rate, mi=mi, **numbers)
        tqdm.write(
            f"{name:22} epoch {epoch:2}  LR {learning_rate:.4f}  I(H;Y) {mi:.3f} nats  "
            f"test accuracy {accuracy:.2f}%",
            file=sys.stdout,
        )
    bar.close()
    return history


def table(runs: Mapping[str, optax_mi.MIHistory]) -> str:
    """Compares runs in a Markdown table, each with the end of the first one."""
    goal = next(iter(runs.values())).column(ACCURACY)[-1]
    lines = [
        "| learning rate | final test accuracy | best (epoch) "
        f"| first epoch at {goal:.2f}% | rates visited |",
        "|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        rate, accuracy = run.column("learning_rate"), run.column(ACCURACY)
        best, there = accuracy.argmax(), np.flatnonzero(accuracy >= goal)
        lines.append(
            f"| {name} | {accuracy[-1]:.2f}% | {accuracy[best]:.2f}% ({best}) | "
            f"{there[0] if len(there) else 'never'} | "
            f"{rate.min():.4f} to {rate.max():.4f} |"
        )
    return "\n".join(lines)


def picture(runs: Mapping[str, optax_mi.MIHistory], title: str, path: Path) -> None:
    """Draws the paper's four panels for each run and writes them as a PNG."""
    from matplotlib.figure import Figure  # draws without a display

    from optax_mi import plots

    figure = Figure(figsize=(13, 2.5 * len(runs) + 0.6), layout="constrained")
    axes = figure.subplots(len(runs), 4, sharex="col", sharey="col", squeeze=False)
    for row, (name, run) in zip(axes, runs.items(), strict=True):
        plots.training(run, metric=ACCURACY, ax=row)
        row[0].set_title(name, loc="left", fontweight="bold")
    for panel in axes[:-1].flat:
        panel.set_xlabel("")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def save(
    runs: Mapping[str, optax_mi.MIHistory], path: Path, args: argparse.Namespace
) -> None:
    """Writes the histories in place of those of before, a run a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    kept = ("dataset", "epochs", "train_size", "batch_size", "lr", "seed")
    for name, run in runs.items():
        run.append_jsonl(path, name, **{each: getattr(args, each) for each in kept})


def main(arguments: list[str] | None = None) -> None:
    """Trains in the four ways and compares them."""
    prog = "python -m examples.mnist"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder; else download")
    for name in ("--epochs", "--train-size", "--batch-size"):
        parser.add_argument(name, type=int)
    parser.add_argument("--lr", type=float, default=0.01, help="of the fixed rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default="runs", help="a folder")
    args = parser.parse_args(arguments)
    for name, usual in data.USUAL[args.dataset].items():
        given = getattr(args, name)
        if given is not None and given < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {given}")
        setattr(args, name, usual if given is None else given)
    try:
        import matplotlib  # noqa: F401
        import tqdm  # noqa: F401

        dataset = data.load(args.dataset, args.data_dir, args.train_size)
    except ImportError as error:
        sys.exit(f"The demo needs {error.name}; {data.INSTALL}")
    n, size = len(dataset.train_x), args.batch_size
    if size > n:
        sys.exit(f"The batch size, {size}, exceeds the {n} training examples.")
    key, x, y = jax.random.key(args.seed), dataset.train_x, dataset.train_y
    probe = optax_mi.sample_probe(key, x, y, size=min(1000, n))
    each = ways(args.lr, float(optax_mi.reference_mi(probe)), n // size)
    runs = {name: train(name, each[name], dataset, probe, args) for name in each}
    about = f"{args.dataset}: {n} training images, {args.epochs} epochs, "
    about += f"batches of {size}, seed {args.seed}"
    path = (args.out / f"demo_{args.dataset}.png").resolve()
    histories = path.with_suffix(".jsonl")
    save(runs, histories, args)
    picture(runs, about, path)
    print(f"\n{about}\n\n{table(runs)}\n\nThe picture is at {path}")
    command = f"{os.path.relpath(sys.executable)} -m optax_mi runs {args.out}"
    print(f"The histories are at {histories}: {command}")


if __name__ == "__main__":
    main()
