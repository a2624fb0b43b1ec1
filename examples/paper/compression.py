"""The paper's conjecture: layers with a lower I(H; X) generalize better."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import optax_mi
from examples.common.data import Dataset
from examples.common.networks import LAYERS, NETWORKS
from examples.common.report import markdown, save
from examples.common.results import rounded
from examples.common.training import Task, train
from examples.paper.experiments import FIXED, STABLE

ROWS = (FIXED, STABLE)
SHOWN = LAYERS[-2:]  # the convolutions hardly move


def compression(
    dataset: Dataset, probe: optax_mi.Probe, config: Mapping[str, Any]
) -> dict[str, Any]:
    """I(H; X) and I(H; Y) of each layer, in nats, after each epoch of two methods.

    Both are of the same 1000 training examples. Wide layers are projected to 1024
    features.
    """
    task = Task(NETWORKS[config["model"]], dataset, probe)

    @jax.jit
    def plane(params: Any, probe: optax_mi.Probe) -> Any:
        layers = optax_mi.capture_activations(
            task.model,
            {"params": params},
            probe.inputs,
            layers=LAYERS,
            max_features=1024,
        )
        with_inputs = optax_mi.estimate_mi(layers, probe.inputs)
        return with_inputs, optax_mi.estimate_mi(layers, probe.outcomes)

    runs, sizes = {}, {key: config[key] for key in ("epochs", "batch_size")}
    for row in ROWS:
        path, accuracy = [], []
        for (history,), state in train(
            task, row.phases, seeds=[config["seed"]], **sizes
        ):
            path.append(jax.device_get(plane(state.params, probe)))
            accuracy.append(round(100 * history.rows[-1]["accuracy"], 2))
            title = f"compression {row.name} seed {config['seed']}"
            print(f"{title}: epoch {len(path) - 1}, {accuracy[-1]:.2f}%", flush=True)
        with_inputs, with_outcomes = (
            _columns(part) for part in zip(*path, strict=True)
        )
        runs[row.name] = {
            "mi_inputs": with_inputs,
            "mi": with_outcomes,
            "accuracy": accuracy,
        }
    return {"methods": runs}


def _columns(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    return {name: rounded(x[name] for x in epochs) for name in LAYERS}


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the information plane of each layer, coloured by the test accuracy."""
    import matplotlib.pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    size = (5 * len(SHOWN) + 1, 4.2)
    figure, panels = plt.subplots(1, len(SHOWN), figsize=size, layout="constrained")
    every = [m["accuracy"] for run in runs for m in run["methods"].values()]
    colours = ScalarMappable(Normalize(np.percentile(every, 10), np.max(every)))
    for panel, layer in zip(panels, SHOWN, strict=True):
        for run in runs:
            for row, marker in zip(ROWS, "os", strict=True):
                found = run["methods"][row.name]
                x, y = found["mi_inputs"][layer], found["mi"][layer]
                panel.plot(x, y, color="0.85", linewidth=1, zorder=1)
                dots = colours.to_rgba(found["accuracy"])
                panel.scatter(x, y, s=22, marker=marker, color=dots)
        panel.set_title(layer)
        panel.set_xlabel("$I(H; X)$ (nats)")
        panel.set_ylabel("$I(H; Y)$ (nats)")
        panel.grid(color="0.9")
    for row, marker in zip(ROWS, "os", strict=True):
        panels[0].scatter([], [], color="0.4", marker=marker, label=row.title)
    panels[0].legend(fontsize="small")
    figure.colorbar(colours, ax=panels, label="test accuracy (%)", extend="min")
    save(figure, path)


def table(runs: Sequence[tuple[int, Mapping[str, Any]]]) -> str:
    """Where each seed's layers begin and end."""
    layers = [f"I({name}; X): first, lowest (epoch), last" for name in SHOWN]
    header = ["", "seed", *layers, f"I({SHOWN[-1]}; Y), last", "accuracy (%), last"]
    lines = []
    for row in ROWS:
        for seed, run in runs:
            found = run["methods"][row.name]
            cells = []
            for x in (np.array(found["mi_inputs"][name]) for name in SHOWN):
                cells.append(f"{x[0]:.2f}, {x.min():.2f} ({x.argmin()}), {x[-1]:.2f}")
            last = f"{found['mi'][SHOWN[-1]][-1]:.2f}", f"{found['accuracy'][-1]:.2f}"
            lines.append([row.title, str(seed), *cells, *last])
    return markdown(header, lines)
