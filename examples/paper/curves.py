"""What is a curve and not a training run: the sample size and the range of rates."""

import itertools
from typing import Any

import jax
import numpy as np
import optax

import optax_mi
from examples import data
from examples.paper.models import MODELS
from examples.training import batches

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
    return {"sizes": sizes, "estimates": curve.estimates.tolist()}


def range_test(
    dataset: data.Dataset, seed: int, *, model: str, batch_size: int
) -> dict[str, Any]:
    """Loss and I(H; Y) in nats over a sweep of plain SGD's rate, and its bounds."""
    from tqdm import tqdm

    network, n = MODELS[model](), len(dataset.train_x)
    probe = optax_mi.sample_probe(
        jax.random.key(0), dataset.train_x, dataset.train_y, size=min(1000, n)
    )

    @jax.jit
    def step(state: Any, batch: Any, learning_rate: Any) -> tuple[Any, jax.Array]:
        params, key = state
        key, dropout = jax.random.split(key)
        x, y = batch

        def loss(params: Any) -> jax.Array:
            logits: Any = network.apply(
                params, x, train=True, rngs={"dropout": dropout}
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates = optax.tree.scale(-learning_rate, gradients)
        return (optax.apply_updates(params, updates), key), value

    @jax.jit
    def measure(state: Any) -> dict[str, jax.Array]:
        output = optax_mi.capture_activations(
            network, state[0], probe.inputs, layers=""
        )
        return optax_mi.estimate_mi(output, probe.outcomes)

    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    order = itertools.chain.from_iterable(
        batches(rng, n, batch_size) for _ in itertools.count()
    )
    result = optax_mi.lr_range_test(
        step,
        (network.init(key, dataset.train_x[:1]), key),
        ((dataset.train_x[i], dataset.train_y[i]) for i in order),
        measure,
        progress=lambda steps: tqdm(steps, desc="range_test", unit="step"),
    )
    return {
        "learning_rate": result.learning_rate.tolist(),
        "loss": [None, *result.loss[1:].tolist()],
        "mi": result.mi.tolist(),
        "lr_min": result.lr_min,
        "lr_max": result.lr_max,
    }


CURVES = {"figure1": figure1, "range_test": range_test}
