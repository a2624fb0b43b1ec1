"""What is a curve and not a training run: the sample size and the range of rates."""

from collections.abc import Iterable
from typing import Any

import jax

import optax_mi
from examples import data
from examples.paper.models import MODELS
from examples.sweep import sweep

SIZES = (100, 250, 500, 1000, 2000, 4000)
REPEATS = 10


def figure1(dataset: data.Dataset, seed: int, **_: Any) -> dict[str, Any]:
    """I(X; Y) of raw images and labels against the sample's size, in nats."""
    from tqdm import tqdm

    n = len(dataset.train_x)
    sizes = [size for size in SIZES if size <= n]
    curve = optax_mi.sample_size_curve(
        jax.random.key(seed),
        dataset.train_x,
        dataset.train_y,
        sizes,
        REPEATS,
        progress=lambda samples: tqdm(samples, desc="figure1", unit="sample"),
    )
    return {"sizes": sizes, "estimates": [_rounded(row) for row in curve.estimates]}


def range_test(
    dataset: data.Dataset, seed: int, *, model: str, batch_size: int
) -> dict[str, Any]:
    """Loss and I(H; Y) in nats over a sweep of plain SGD's rate, and its bounds."""
    from tqdm import tqdm

    probe = optax_mi.sample_probe(
        jax.random.key(0),
        dataset.train_x,
        dataset.train_y,
        size=min(1000, len(dataset.train_x)),
    )
    result = sweep(
        MODELS[model],
        dataset,
        probe,
        batch_size=batch_size,
        seed=seed,
        progress=lambda steps: tqdm(steps, desc="range_test", unit="step"),
    )
    return {
        "learning_rate": _rounded(result.learning_rate),
        "loss": [None, *_rounded(result.loss[1:])],
        "mi": _rounded(result.mi),
        "lr_min": result.lr_min,
        "lr_max": result.lr_max,
    }


def _rounded(values: Iterable[Any]) -> list[float]:
    """To five significant digits, as a history's."""
    return [float(f"{value:.5g}") for value in values]


CURVES = {"figure1": figure1, "range_test": range_test}
