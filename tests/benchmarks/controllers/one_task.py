"""The picture of one task: constant rates beside the rate that information sets."""

from typing import Any

import numpy as np

import optax_mi
from tests.benchmarks.controllers.methods import BOUNDS, GRIDS
from tests.benchmarks.controllers.run import SEEDS, Config, Done, final

TASK, BASE = "mnist_cnn", "sgd"
OURS = Config(TASK, BASE, "wsd", None, SEEDS[0])


def is_in(done: Done) -> bool:
    """Whether there is anything to draw."""
    return OURS in done


def picture(done: Done) -> Any:
    """Test accuracy and learning rates of one seed, by epoch."""
    import matplotlib.pyplot as plt

    figure, (accuracy, rate) = plt.subplots(
        2,
        1,
        sharex=True,
        figsize=(7, 5),
        layout="constrained",
        gridspec_kw={"height_ratios": [3, 2]},
    )
    configs = [Config(TASK, BASE, "constant", r, SEEDS[0]) for r in GRIDS[BASE]]
    constants = [config for config in configs if config in done]
    for number, config in enumerate(constants):
        color = plt.get_cmap("Greys")(0.35 + 0.5 * number / len(constants))
        label = f"constant {config.rate:g}: {_score(done, config)}"
        _draw(accuracy, rate, done[config], label, color=color)
    low, high = BOUNDS[BASE]
    label = f"optax_mi, bounds {low:g} and {high:g}: {_score(done, OURS)}"
    _draw(accuracy, rate, done[OURS], label, color="C3", lw=2)
    accuracy.set_ylabel("test accuracy, %")
    accuracy.set_ylim(85, 97.5)
    accuracy.legend(fontsize="small", loc="lower right")
    rate.set_ylabel("learning rate")
    rate.set_yscale("log")
    rate.set_xlabel("epoch")
    for axis in (accuracy, rate):
        axis.grid(color="0.9")
        axis.set_axisbelow(True)
    return figure


def _score(done: Done, config: Config) -> str:
    return f"{final(done[config], 'test'):.1f} %"


def _draw(
    accuracy: Any, rate: Any, history: optax_mi.MIHistory, label: str, **style: Any
) -> None:
    """A line of each panel: scores at epochs' ends, rates between measurements."""
    epochs, scores = history.column("epoch") + 1, history.column("test_score")
    measured = np.isfinite(scores)
    accuracy.plot(epochs[measured], scores[measured], label=label, **style)
    _, first, counts = np.unique(epochs, return_index=True, return_counts=True)
    parts = np.arange(len(epochs)) - np.repeat(first, counts)
    begins = epochs - 1 + parts / np.repeat(counts, counts)
    rate.step(
        np.append(begins, epochs[-1]),
        np.append(history.column("learning_rate"), history.column("learning_rate")[-1]),
        where="post",
        **style,
    )
