"""Trains one network in four ways: fixed rate, warm-up, and the paper's two policies.

Run with `make demo`, or `python -m examples.demo --help`.
"""

import argparse
import sys
from pathlib import Path

import jax
import optax

import optax_mi
from examples import data, report
from examples.cnn import SmallCNN
from examples.training import Epoch, Method, mi_driven, scheduled, train

LR_MIN, LR_MAX = 0.001, 0.1  # the paper's bounds
WARM_UP_EPOCHS = 5

DEFAULTS = {  # epochs, training examples (None: all), batch size
    "digits": (40, None, 16),
    "mnist": (20, 12_000, 100),
    "cifar10": (20, 12_000, 100),
}


def methods(lr: float, reference: float, steps_per_epoch: int) -> list[Method]:
    """The four ways, the fixed rate first."""
    warm_up = optax.linear_schedule(LR_MIN, lr, WARM_UP_EPOCHS * steps_per_epoch)
    change, both = optax_mi.change_policy(), optax_mi.reference_policy()
    bounds = (LR_MIN, LR_MAX)
    return [
        scheduled(f"fixed {lr}", optax.constant_schedule(lr)),
        scheduled("linear warm-up", warm_up),
        mi_driven("MI: change", *bounds, policy=change),
        mi_driven("MI: change and value", *bounds, policy=both, reference=reference),
    ]


def run(
    dataset: data.Dataset,
    method: Method,
    probe: optax_mi.Probe,
    args: argparse.Namespace,
) -> list[Epoch]:
    """Trains in one way, with a progress bar and a line for each epoch."""
    from tqdm import tqdm

    steps = args.epochs * (len(dataset.train_x) // args.batch_size)
    epochs = []
    with tqdm(total=steps, desc=method.name, unit="step", leave=False) as bar:
        for epoch in train(
            SmallCNN(),
            dataset,
            method,
            probe,
            epochs=args.epochs,
            batch_size=args.batch_size,
            seed=args.seed,
            on_step=bar.update,
        ):
            epochs.append(epoch)
            tqdm.write(
                f"{method.name:22} epoch {epoch.epoch:2}  "
                f"LR {epoch.learning_rate:.4f}  I(H;Y) {epoch.mi:.3f} nats  "
                f"test accuracy {epoch.accuracy:.2%}",
                file=sys.stdout,
            )
    return epochs


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; what is left open depends on the data set."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=__doc__
    )
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument(
        "--data-dir", help="TensorFlow Datasets folder; else downloaded"
    )
    parser.add_argument("--epochs", type=_positive, help="epochs of each run")
    parser.add_argument("--train-size", type=_positive, help="training examples used")
    parser.add_argument("--batch-size", type=_positive)
    parser.add_argument("--lr", type=float, default=0.01, help="of the fixed rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="for the picture"
    )
    args = parser.parse_args(arguments)
    defaults = DEFAULTS[args.dataset]
    for name, default in zip(
        ("epochs", "train_size", "batch_size"), defaults, strict=True
    ):
        if getattr(args, name) is None:
            setattr(args, name, default)
    return args


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def main(arguments: list[str] | None = None) -> None:
    """Runs the demo."""
    args = parse(arguments)
    try:
        import matplotlib  # noqa: F401
        import tqdm  # noqa: F401

        dataset = data.load(args.dataset, args.data_dir, args.train_size)
    except ImportError as error:
        sys.exit(f"The demo needs {error.name}; {data.INSTALL}")
    except data.DataError as error:
        sys.exit(str(error))
    n = len(dataset.train_x)
    if args.batch_size > n:
        sys.exit(
            f"The batch size, {args.batch_size}, exceeds the {n} training examples."
        )
    probe = optax_mi.sample_probe(
        jax.random.key(args.seed), dataset.train_x, dataset.train_y, size=min(1000, n)
    )
    reference = float(optax_mi.reference_mi(probe))
    runs = {
        method.name: run(dataset, method, probe, args)
        for method in methods(args.lr, reference, n // args.batch_size)
    }
    about = (
        f"{args.dataset}: {n} training images, {args.epochs} epochs, batches of "
        f"{args.batch_size}, seed {args.seed}"
    )
    path = args.out / f"demo_{args.dataset}.png"
    report.picture(runs, reference, about, path)
    print(f"\n{about}\n\n{report.table(runs, baseline=next(iter(runs)))}\n")
    print(f"The picture is at {path.resolve()}")


if __name__ == "__main__":
    main()
