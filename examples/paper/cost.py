"""What an experiment costs: an estimate from measured times."""

import argparse
from collections.abc import Iterator

from examples.paper.baselines import BASELINES, UNTUNED
from examples.paper.curves import CURVES
from examples.paper.figures import FIGURES

# Milliseconds that training takes for an image on one core (Intel Xeon with AVX-512,
# jax 0.10.2), steps of 100 images, of 16 for digits.
TRAINING = {
    ("small", "digits"): 0.02,
    ("small", "mnist"): 0.15,
    ("small", "cifar10"): 0.27,
    ("paper", "mnist"): 2.3,
    ("paper", "cifar10"): 3.1,
    ("allcnn-quarter", "cifar10"): 2.8,
    ("allcnn", "cifar10"): 28.0,
}
TESTING = 1 / 4  # of it, for an image of the test set: from 1/6 to 1/3
EXAMPLES = {
    "digits": (1437, 360),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
}


def hours(figure: str, args: argparse.Namespace) -> float | None:
    """One core's hours for a figure with these options, or None where not measured."""
    train_size, test_size = EXAMPLES[args.dataset]
    train_size = args.train_size or train_size
    milliseconds = TRAINING.get((args.model, args.dataset))
    if figure in CURVES or milliseconds is None:
        return None
    runs = len(FIGURES.get(figure, UNTUNED)) * args.seeds
    if figure == "baselines":
        runs += len(BASELINES) * args.seeds
        runs += sum(len(baseline.grid) for baseline in BASELINES.values())
    images = runs * args.epochs * (train_size + TESTING * test_size)
    return images * milliseconds / 3.6e6


def listing(figure: str, args: argparse.Namespace) -> Iterator[str]:
    """An experiment's cost with these options, and its rows."""
    if figure in CURVES:
        yield f"{figure} ({args.dataset}): minutes on one core"
        yield f"  {(CURVES[figure].__doc__ or '').splitlines()[0]}"
        return
    cost = hours(figure, args)
    about = "not measured" if cost is None else f"about {cost:.1f} h on one core"
    yield (
        f"{figure} ({args.dataset}, model {args.model}, {args.epochs} epochs, "
        f"{args.seeds} seed{'s' * (args.seeds > 1)}): {about}"
    )
    for name, baseline in BASELINES.items() if figure == "baselines" else ():
        grid = ", ".join(f"{rate:g}" for rate in baseline.grid)
        yield f"  {name:16} {baseline.title}, at the best of {grid}"
    for row in FIGURES.get(figure, UNTUNED):
        yield f"  {row.name:16} {row.title}"
