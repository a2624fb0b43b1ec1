"""Pictures of runs and measurements, with matplotlib: the extra ``plot``.

Each function returns the figure and its axes and draws into ``ax`` where that is given.
Colours are Okabe and Ito's, which colour-blind readers can tell apart, and the many
lines of one panel differ in style too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from optax_mi import _checks, _panels
from optax_mi._history import MIHistory
from optax_mi._range_test import LRRangeTest
from optax_mi._sample_size import SampleSizeCurve

# One run, or runs that differ in their seed alone.
Runs: TypeAlias = MIHistory | Sequence[MIHistory]

# Axes to draw into, such as `plt.subplots` makes.
Panels: TypeAlias = Sequence[Axes] | Shaped[np.ndarray, "..."]

_INFORMATION = "$I(H; Y)$ (nats)"


def training(
    runs: Runs | Mapping[str, Runs],
    *,
    layer: str = "",
    metric: str = "accuracy",
    ax: Panels | None = None,
) -> tuple[Figure, Shaped[np.ndarray, "4"]]:
    """The paper's four panels (Figures 3 to 5), for one run or several.

    Learning rate, a metric and I(H; Y) against the epoch, and the metric against
    I(H; Y): in a row, as in the paper, or two by two where there is one name only. Runs
    of several seeds are drawn as their mean with a band of one standard deviation to
    each side, which ends at the lowest and the highest seed. The reference is a dotted
    line, and where all runs have the same one a second axis shows information as a
    share of it.

    Args:
      runs: A history, or those of several seeds, or a mapping from names to either: all
        are laid over each other.
      layer: The layer whose rate and information are shown.
      metric: The column that holds the metric.
      ax: Four axes.

    Returns:
      The figure and its axes, shape [4].

    Raises:
      ValueError: If a history lacks the layer or the metric, seeds differ in their
        epochs, or ax does not hold four axes.

    Example:
      >>> import optax_mi
      >>> from optax_mi import plots
      >>> history = optax_mi.MIHistory()
      >>> for epoch in range(3):
      ...     history.add(epoch=epoch, learning_rate=0.01, mi=epoch, accuracy=0.5)
      >>> figure, axes = plots.training({"fixed": history})
      >>> [a.get_ylabel() for a in axes]
      ['learning rate', 'accuracy', '$I(H; Y)$ (nats)', 'accuracy']
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    rows, size = (1, (13, 3.2)) if len(named) > 1 else (2, (8.5, 6))
    figure, axes = _panels.axes_of(ax, rows, 4 // rows, size)
    references: list[Shaped[np.ndarray, "epochs"]] = []
    for (name, seeds), (colour, style) in zip(
        named.items(), _panels.looks(), strict=False
    ):
        seeds = _seeds(seeds, metric)
        look = {"color": colour, "linestyle": style}
        epoch = _column(seeds, "epoch", layer)[0]
        rate, score, mi = (
            _column(seeds, column, layer) for column in ("learning_rate", metric, "mi")
        )
        for panel, values in zip(axes, (rate, score, mi), strict=False):
            _panels.band(panel, epoch, values, label=name, **look)
        references.extend(_column(seeds, "reference", layer))
        axes[3].plot(mi.mean(axis=0), score.mean(axis=0), alpha=0.5, **look)
        axes[3].scatter(mi, score, s=9, color=colour)
    if lines := _panels.reference_lines(axes[2], references):
        axes[2].legend(handles=lines[:1], loc="lower right", fontsize="small")
    labels = ("learning rate", metric, _INFORMATION, metric)
    for panel, label in zip(axes, labels, strict=True):
        _panels.label(panel, "epoch", label)
    axes[3].set_xlabel(_INFORMATION)
    axes[3].locator_params(axis="x", nbins=6)
    if any(named) and ax is None:
        _panels.legend_below(figure, axes[0])
    elif any(named):
        axes[0].legend(fontsize="small")
    return figure, axes


def layers(
    runs: Runs,
    *,
    names: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    metric: str = "accuracy",
    ax: Panels | None = None,
) -> tuple[Figure, Shaped[np.ndarray, "panels"]]:
    """Layer-wise learning rates by kind of layer (the layout of the paper's Figure 6).

    On the left the metric and each layer's I(H; Y), then one panel for each kind of
    layer with the learning rates of its layers, all against the epoch. A layer that is
    measured and has no rate of its own has no panel. References are shown as in
    `training`.

    Args:
      runs: A history, or those of several seeds, as for `training`.
      names: What layers are called in the picture, where their own names say little:
        those of ``nn.Sequential``, ``{"layers_0": "Conv_0", "layers_3": "Dense_0"}``.
      kinds: The kind of each layer with a rate, by its name in the history. By default
        the last part of what it is called without its number: of ``Conv_0`` and
        ``block/conv1``, "Conv" and "conv".
      metric: The column that holds the metric.
      ax: Two axes for the metric and the information, and one for each kind.

    Returns:
      The figure and its axes, shape [2 + kinds].

    Raises:
      ValueError: As `training`, or if kinds lacks a layer.

    Example:
      >>> import optax_mi
      >>> from optax_mi import plots
      >>> history = optax_mi.MIHistory()
      >>> for layer in ("Conv_0", "Conv_1", "Dense_0"):
      ...     history.add(epoch=0, layer=layer, learning_rate=0.01, mi=1, accuracy=0.5)
      >>> figure, axes = plots.layers(history)
      >>> [a.get_title() for a in axes[2:]]
      ['Conv', 'Dense']
    """
    seeds = _seeds(runs, metric)
    called = {name: name or "output" for name in seeds[0].layers} | dict(names or {})
    kind_of = _kinds(seeds, called, kinds)
    shown = list(dict.fromkeys(kind_of.values()))
    figure, axes = (
        _layer_panels(len(shown))
        if ax is None
        else (_panels.given_axes(ax, 2 + len(shown)))
    )
    first = seeds[0].layers[0]
    epoch = _column(seeds, "epoch", first)[0]
    _panels.band(axes[0], epoch, _column(seeds, metric, first), color="#000000")
    for name, (colour, style) in zip(seeds[0].layers, _panels.looks(), strict=False):
        look = {"color": colour, "linestyle": style, "label": called[name]}
        epoch = _column(seeds, "epoch", name)[0]
        _panels.band(axes[1], epoch, _column(seeds, "mi", name), **look)
        if name in kind_of:
            panel = axes[2 + shown.index(kind_of[name])]
            _panels.band(panel, epoch, _column(seeds, "learning_rate", name), **look)
    _panels.reference_lines(
        axes[1],
        [
            each
            for name in seeds[0].layers
            for each in _column(seeds, "reference", name)
        ],
    )
    _panels.label(axes[0], "epoch", metric)
    _panels.label(axes[1], "epoch", _INFORMATION)
    for panel, kind in zip(axes[2:], shown, strict=True):
        _panels.label(panel, "epoch", "learning rate")
        panel.set_title(kind)
    if ax is None:
        _panels.legend_below(figure, axes[1])
    else:
        for panel in axes[1:]:
            panel.legend(fontsize="small")
    return figure, axes


def _layer_panels(kinds: int) -> tuple[Figure, Shaped[np.ndarray, "panels"]]:
    """Two small panels above each other, and a tall one for each kind of layer."""
    columns = [(0, 1), *((i, i) for i in range(2, 2 + kinds))]
    figure, panels = plt.subplot_mosaic(
        [list(row) for row in zip(*columns, strict=True)],
        figsize=(4.3 * len(columns), 5),
        layout="constrained",
    )
    return figure, np.array([panels[i] for i in range(2 + kinds)])


def sample_size(
    curves: SampleSizeCurve | Mapping[str, SampleSizeCurve],
    *,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """I(X; Y) against the sample's size (the paper's Figure 1).

    Args:
      curves: What `sample_size_curve` returns, or a mapping from names to several.
      ax: Where to draw.

    Returns:
      The figure and its axes. Bars are one standard deviation to each side of a mean.

    Raises:
      ValueError: If ax is not one pair of axes.

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> from optax_mi import plots
      >>> y = np.arange(400) % 2
      >>> x = np.random.default_rng(0).normal(size=(400, 5)) + y[:, None]
      >>> curve = optax_mi.sample_size_curve(jax.random.key(0), x, y, (50, 100), 2)
      >>> figure, axes = plots.sample_size({"mixture": curve})
    """
    named = curves if isinstance(curves, Mapping) else {"": curves}
    figure, (axes,) = _panels.axes_of(None if ax is None else [ax], 1, 1, (5, 3.5))
    looks = zip(_panels.looks(), itertools.cycle(_panels.MARKERS), strict=False)
    for (name, curve), ((colour, style), marker) in zip(
        named.items(), looks, strict=False
    ):
        axes.errorbar(
            curve.sizes,
            curve.mean,
            yerr=curve.std,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=4,
            capsize=3,
            label=name,
        )
    _panels.label(axes, "sample size", "$I(X; Y)$ (nats)")
    if any(named):
        axes.legend(fontsize="small")
    return figure, axes


def information_plane(
    mi_inputs: Mapping[str, ArrayLike],
    mi_outcomes: Mapping[str, ArrayLike],
    *,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """I(H; X) against I(H; Y) for each layer, its path through training.

    Both come from `estimate_mi`, the first with ``probe.inputs`` for the outcomes. In a
    network without noise the true I(H; X) of continuous activations is infinite (Saxe
    et al., 2018): what the estimate shows is how much of the inputs the probe's
    examples resolve.

    Args:
      mi_inputs: I(H; X) in nats after each epoch, shape [epochs], by layer.
      mi_outcomes: I(H; Y) likewise, of the same layers.
      ax: Where to draw.

    Returns:
      The figure and its axes, with a marker for each layer, a colour for each epoch.
      Markers are hollow and of falling size, so that those of layers that coincide lie
      within each other.

    Raises:
      ValueError: If the layers, or the epochs of one, differ.

    Example:
      >>> from optax_mi import plots
      >>> figure, axes = plots.information_plane(
      ...     {"conv": [4.0, 3.9], "dense": [3.0, 2.5]},
      ...     {"conv": [1.0, 1.1], "dense": [0.9, 2.0]})
      >>> axes.get_xlabel(), axes.get_ylabel()
      ('$I(H; X)$ (nats)', '$I(H; Y)$ (nats)')

    References:
      Shwartz-Ziv and Tishby, `Opening the black box of deep neural networks via
      information <https://arxiv.org/abs/1703.00810>`_, 2017.
    """
    if set(mi_inputs) != set(mi_outcomes):
        _checks.fail("mi_outcomes", f"of layers {list(mi_inputs)}", list(mi_outcomes))
    figure, (axes,) = _panels.axes_of(None if ax is None else [ax], 1, 1, (6, 4.5))
    epochs = max((np.size(values) for values in mi_inputs.values()), default=1)
    colours = ScalarMappable(Normalize(0, epochs - 1), "viridis")
    sizes = np.linspace(120, 30, max(2, len(mi_inputs)))
    looks = zip(itertools.cycle(_panels.MARKERS), sizes, strict=False)
    for name, (marker, size) in zip(mi_inputs, looks, strict=False):
        x, y = np.asarray(mi_inputs[name]), np.asarray(mi_outcomes[name])
        if x.ndim != 1 or x.shape != y.shape:
            _checks.fail("mi_outcomes", f"of shape {x.shape} for {name!r}", y.shape)
        axes.plot(x, y, color="0.75", linewidth=1, zorder=1)
        look: Any = {"marker": marker, "s": size, "facecolors": "none"}
        each = colours.to_rgba(np.arange(len(x)))
        axes.scatter(x, y, edgecolors=each, linewidths=1.5, **look)
        axes.scatter([], [], edgecolors="0.4", label=name or "output", **look)
    _panels.label(axes, "$I(H; X)$ (nats)", _INFORMATION)
    bar = figure.colorbar(colours, ax=axes, label="epoch")
    bar.locator = _panels.whole_numbers()
    if mi_inputs:
        axes.legend(fontsize="small")
    return figure, axes


def range_test(
    result: LRRangeTest, *, ax: Panels | None = None
) -> tuple[Figure, Shaped[np.ndarray, "2"]]:
    """Loss and I(H; Y) of a learning-rate range test, its suggested range shaded.

    Args:
      result: What `lr_range_test` returns.
      ax: Two axes.

    Returns:
      The figure and its axes, shape [2].

    Raises:
      ValueError: If ax does not hold two axes.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> from optax_mi import plots
      >>> rates = np.geomspace(1e-4, 1, 5)
      >>> figure, axes = plots.range_test(optax_mi.LRRangeTest(
      ...     rates, loss=np.array([2, 2, 1, 1, 3.0]),
      ...     mi=np.array([0, 0, 1, 2, 1.0]), lr_min=1e-3, lr_max=0.1))
    """
    figure, axes = _panels.axes_of(ax, 2, 1, (5.5, 5))
    for panel, values, colour in zip(
        axes, (result.loss, result.mi), _panels.COLOURS, strict=False
    ):
        panel.plot(result.learning_rate, values, color=colour)
        panel.set_xscale("log")
        if np.isfinite([result.lr_min, result.lr_max]).all():
            panel.axvspan(result.lr_min, result.lr_max, color="0.9", zorder=0)
    _panels.label(axes[0], "learning rate", "loss")
    _panels.label(axes[1], "learning rate", _INFORMATION)
    axes[0].set_title(
        f"suggested range: {result.lr_min:.2g} to {result.lr_max:.2g}",
        fontsize="medium",
    )
    return figure, axes


def _seeds(runs: Any, metric: str) -> list[MIHistory]:
    seeds = [runs] if isinstance(runs, MIHistory) else list(runs)
    if not seeds or not all(history.rows for history in seeds):
        _checks.fail("runs", "histories of at least one row", runs)
    for history in seeds:
        if not any(metric in row for row in history.rows):
            known = sorted({name for row in history.rows for name in row})
            _checks.fail("metric", f"among the columns {known}", repr(metric))
    return seeds


def _column(
    seeds: Sequence[MIHistory], name: str, layer: str
) -> Shaped[np.ndarray, "seeds epochs"]:
    """One column of several runs."""
    epochs = [history.column("epoch", layer) for history in seeds]
    for epoch in epochs[1:]:
        if not np.array_equal(epoch, epochs[0]):
            _checks.fail("runs", f"of the same epochs, {epochs[0]}", epoch)
    return np.array([history.column(name, layer) for history in seeds])


def _kinds(
    seeds: Sequence[MIHistory],
    called: Mapping[str, str],
    given: Mapping[str, str] | None,
) -> dict[str, str]:
    """The kinds of the layers that have a rate."""
    kinds = {}
    for name in seeds[0].layers:
        if np.isfinite(_column(seeds, "learning_rate", name)).any():
            if given is not None and name not in given:
                _checks.fail("kinds", f"a mapping with {name!r} in it", list(given))
            kinds[name] = _kind(called[name]) if given is None else given[name]
    return kinds


def _kind(layer: str) -> str:
    *rest, last = layer.split("/")
    kind = re.sub(r"_?\d+$", "", last) or "/".join(rest)
    return "nn.Sequential" if kind == "layers" else kind
