"""Trains with a rate for each layer and shows all that can be seen of it.

Writes the history as CSV, JSON and TensorBoard events, and pictures of the layers'
rates, their information, the information plane, and the range test that suggests the
bounds. Run with `python -m examples.observe`.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax

import optax_mi
from examples import data
from examples.cnn import SmallCNN
from examples.sweep import sweep
from examples.training import batches
from optax_mi import plots

KINDS = {
    "Conv_0": "convolution layers",
    "Conv_1": "convolution layers",
    "Dense_0": "dense layers",
    "logits": "dense layers",
}
LAYERS = tuple(KINDS)
BATCH_SIZE = 16
MODEL = SmallCNN()


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean cross entropy."""
    logits = jnp.asarray(MODEL.apply(params, x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train(
    dataset: data.Dataset,
    probe: optax_mi.Probe,
    epochs: int,
    bounds: tuple[float, float],
) -> tuple[optax_mi.MIHistory, dict[str, list[float]], dict[str, list[float]]]:
    """Trains layer-wise.

    Returns:
      The history, and I(H; X) and I(H; Y) of each layer after each epoch, in nats.
    """
    tx = optax.chain(
        optax.sgd(1.0),
        optax_mi.layerwise_mi_dynamic_lr(
            "auto",
            *bounds,
            policy=optax_mi.reference_policy(epsilon=1e-4),
            reference=optax_mi.reference_mi(probe),
        ),
    )
    params = MODEL.init(jax.random.key(0), dataset.train_x[:1])
    opt_state = tx.init(params)

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    @jax.jit
    def measure(params: Any) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        layers = optax_mi.capture_activations(
            MODEL, params, probe.inputs, layers=LAYERS, max_features=1024
        )
        inputs = optax_mi.estimate_mi(layers, probe.inputs)
        return inputs, optax_mi.estimate_mi(layers, probe.outcomes)

    history = optax_mi.MIHistory()
    with_inputs = {layer: [] for layer in LAYERS}
    with_outcomes = {layer: [] for layer in LAYERS}
    rng = np.random.default_rng(0)
    for epoch in range(epochs):
        losses = []
        for i in batches(rng, len(dataset.train_x), BATCH_SIZE):
            x, y = dataset.train_x[i], dataset.train_y[i]
            params, opt_state, value = step(params, opt_state, x, y)
            losses.append(value)
        mi_x, mi_y = measure(params)
        for layer in LAYERS:
            with_inputs[layer].append(float(mi_x[layer]))
            with_outcomes[layer].append(float(mi_y[layer]))
        opt_state = optax_mi.record_mi(opt_state, mi_y)
        answers = np.argmax(np.asarray(MODEL.apply(params, dataset.test_x)), axis=-1)
        history.record(
            opt_state,
            epoch=epoch,
            mi=mi_y,
            loss=np.mean(jax.device_get(losses)),
            accuracy=np.mean(answers == dataset.test_y),
        )
    return history, with_inputs, with_outcomes


def main(arguments: list[str] | None = None) -> None:
    """Runs the example on digits."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.observe", description=__doc__
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/observe"))
    args = parser.parse_args(arguments)
    mpl.use("agg")
    dataset = data.load("digits")
    probe = optax_mi.sample_probe(jax.random.key(0), dataset.train_x, dataset.train_y)
    suggestion = sweep(MODEL, dataset, probe, batch_size=BATCH_SIZE, seed=0)
    bounds = (suggestion.lr_min, suggestion.lr_max)
    history, mi_x, mi_y = train(dataset, probe, args.epochs, bounds)
    curve = optax_mi.sample_size_curve(
        jax.random.key(0), dataset.train_x, dataset.train_y, (100, 200, 500, 1000)
    )
    args.out.mkdir(parents=True, exist_ok=True)
    history.to_csv(args.out / "history.csv")
    history.to_json(args.out / "history.json")
    history.to_tensorboard(args.out / "tensorboard")
    for name, (figure, _) in {
        "range_test": plots.range_test(suggestion),
        "layers": plots.layers(history, kinds=KINDS),
        "training": plots.training(history, layer="logits"),
        "information_plane": plots.information_plane(mi_x, mi_y),
        "sample_size": plots.sample_size({"digits": curve}),
    }.items():
        figure.savefig(args.out / f"{name}.png", dpi=100)
    print(history.to_table())
    print(f"\nBounds suggested by the range test: {bounds[0]:.2g} to {bounds[1]:.2g}")
    print(f"Pictures, CSV, JSON and TensorBoard events are in {args.out.resolve()}")


if __name__ == "__main__":
    main()
