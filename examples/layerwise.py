"""Trains with a rate for each layer and shows all that can be seen of it.

Writes the history as CSV, JSON and TensorBoard events, and pictures of the layers'
rates, their information, the information plane, and the range test that suggests the
bounds. Run with `python -m examples.layerwise`.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import matplotlib as mpl

import optax_mi
from examples.common import data, report
from examples.common.networks import KINDS, LAYERS, SmallCNN
from examples.common.training import Phase, Task, sweep, train
from optax_mi import plots

BATCH_SIZE = 16


def observed(
    task: Task, epochs: int, bounds: tuple[float, float]
) -> tuple[optax_mi.MIHistory, dict[str, list[float]]]:
    """Trains layer-wise; returns each layer's I(H; X) after each epoch too, in nats."""
    model, x = task.model, task.probe.inputs

    @jax.jit
    def with_inputs(params: Any, x: Any) -> dict[str, jax.Array]:
        layers = optax_mi.capture_activations(
            model, {"params": params}, x, layers=task.layers, max_features=1024
        )
        return optax_mi.estimate_mi(layers, x)

    history, mi_inputs = optax_mi.MIHistory(), {layer: [] for layer in task.layers}
    # Wide layers hold nearly all the information from the start; they change little.
    options = {"lr_min": bounds[0], "lr_max": bounds[1], "epsilon": 1e-4}
    phases = [Phase("layerwise", options)]
    for (history,), state in train(task, phases, epochs=epochs, batch_size=BATCH_SIZE):
        mi = with_inputs(state.params, x)
        for layer in history.layers:
            mi_inputs[layer].append(float(mi[layer]))
    return history, mi_inputs


def main(arguments: list[str] | None = None) -> None:
    """Runs the example on digits."""
    prog = "python -m examples.layerwise"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/layerwise"))
    args = parser.parse_args(arguments)
    mpl.use("agg")
    dataset = data.load("digits")
    probe = optax_mi.sample_probe(jax.random.key(0), dataset.train_x, dataset.train_y)
    task = Task(SmallCNN(), dataset, probe, layers=LAYERS)
    suggestion = sweep(task, batch_size=BATCH_SIZE, seed=0)
    bounds = (suggestion.lr_min, suggestion.lr_max)
    history, mi_inputs = observed(task, args.epochs, bounds)
    mi_outcomes = {layer: history.column("mi", layer) for layer in history.layers}
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
        "information_plane": plots.information_plane(mi_inputs, mi_outcomes),
        "sample_size": plots.sample_size({"digits": curve}),
    }.items():
        report.save(figure, args.out / f"{name}.png")
    print(history.to_table())
    print(f"\nBounds suggested by the range test: {bounds[0]:.2g} to {bounds[1]:.2g}")
    print(f"Pictures, CSV, JSON and TensorBoard events are in {args.out.resolve()}")


if __name__ == "__main__":
    main()
