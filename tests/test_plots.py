import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt

import optax_mi
from optax_mi import plots


@pytest.fixture(autouse=True)
def _no_screen():
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def history(seed=0, layers=("",), epochs=4, reference=2.3):
    rng, run = np.random.default_rng(seed), optax_mi.MIHistory()
    for epoch in range(epochs):
        for layer in layers:
            rate, mi, accuracy = rng.uniform(size=3)
            run.add(
                epoch=epoch,
                layer=layer,
                learning_rate=rate,
                mi=mi,
                accuracy=accuracy,
                reference=reference,
            )
    return run


def data(line):
    return [np.asarray(values).tolist() for values in line.get_data()]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def legend_below(figure):
    (below,) = figure.legends
    return [text.get_text() for text in below.get_texts()]


def drawn(figure):
    """Draws everything, which finds what only drawing finds, and gives the figure."""
    figure.canvas.draw()
    return figure


def test_the_row_of_four_shows_one_run():
    run = history()
    figure, axes = plots.training(run)
    epoch = [0, 1, 2, 3]
    columns = {
        name: run.column(name).tolist() for name in run.rows[0] if name != "layer"
    }
    rate, accuracy, mi = (columns[n] for n in ("learning_rate", "accuracy", "mi"))
    shown = [data(axis.lines[0]) for axis in axes]
    assert shown == [[epoch, rate], [epoch, accuracy], [epoch, mi], [mi, accuracy]]
    assert axes[2].lines[1].get_ydata()[0] == 2.3  # the reference
    assert [axis.get_xlabel() for axis in axes[:3]] == ["epoch"] * 3
    assert axes[3].get_xlabel() == axes[2].get_ylabel() == "$I(H; Y)$ (nats)"
    assert drawn(figure).axes == list(axes)
    assert axes[0].get_legend() is None


def test_seeds_are_their_mean_with_a_band_of_one_deviation():
    seeds = [history(seed) for seed in range(3)]
    runs = {"fixed": history(9), "by information": seeds}
    figure, axes = plots.training(runs)
    rates = np.array([run.column("learning_rate") for run in seeds])
    np.testing.assert_allclose(axes[0].lines[1].get_ydata(), rates.mean(axis=0))
    (band,) = axes[0].collections
    edges = band.get_paths()[0].vertices[:, 1]
    low, high = rates.mean(axis=0) - rates.std(axis=0), rates.mean(0) + rates.std(0)
    for edge in (*np.maximum(low, rates.min(0)), *np.minimum(high, rates.max(0))):
        assert np.isclose(edges, edge).any()
    names = legend_below(figure)
    _, own = plots.training(runs, ax=plt.subplots(1, 4)[1])
    assert names == legend(own[0]) == list(runs)
    assert len({line.get_color() for line in axes[0].lines}) == 2


def test_a_band_stays_where_the_seeds_are():
    seeds = [history(seed) for seed in range(4)]
    for run, rate in zip(seeds, (0.001, 0.001, 0.001, 0.1), strict=True):
        for row in run.rows:
            row["learning_rate"] = rate
    _, axes = plots.training(seeds)
    edges = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    rates = [0.001, 0.001, 0.001, 0.1]
    assert np.mean(rates) - np.std(rates) < 0 < edges.min() == 0.001
    assert edges.max() == pytest.approx(np.mean(rates) + np.std(rates))


def test_rates_are_on_a_logarithmic_axis_with_plain_numbers():
    run = history(layers=("a1",))
    for row, rate in zip(run.rows, (0.001, 0.01, 0.1, 0.02), strict=True):
        row["learning_rate"] = rate
    (_, training), (_, layers) = plots.training(run, layer="a1"), plots.layers(run)
    for panel in (training[0], layers[2]):
        drawn(panel.figure)
        assert panel.get_yscale() == "log"
        labels = [label.get_text() for label in panel.get_yticklabels()]
        assert {"0.001", "0.01", "0.1"} <= set(labels)
    assert [panel.get_yscale() for panel in training[1:]] == ["linear"] * 3


def test_epochs_are_whole_numbers():
    for _, axes in (plots.training(history(epochs=3)), plots.layers(history(epochs=3))):
        drawn(axes[0].figure)
        for panel in axes:
            if panel.get_xlabel() == "epoch":
                ticks = panel.get_xticks()
                assert set(ticks) >= {0, 1, 2}
                np.testing.assert_equal(ticks, np.round(ticks))


def test_a_reference_lies_over_the_curves_that_reach_it():
    _, axes = plots.training({"one": history(), "other": history(1)})
    *curves, reference = axes[2].lines
    assert legend(axes[2]) == ["reference"]
    assert reference.get_zorder() > max(line.get_zorder() for line in curves)
    assert reference.get_linewidth() >= max(line.get_linewidth() for line in curves)


def test_one_run_has_its_panels_two_by_two_and_several_have_a_row():
    def rows(runs):
        _, axes = plots.training(runs)
        drawn(axes[0].figure)
        return [round(panel.get_position().y0, 1) for panel in axes]

    for one in (history(), [history(), history(1)], {"name": history()}):
        above, too, below, as_well = rows(one)
        assert above == too > below == as_well
    assert len(set(rows({"one": history(), "other": history(1)}))) == 1


def test_many_runs_all_look_different():
    runs = {str(i): history(i) for i in range(20)}
    _, axes = plots.training(runs)
    looks = [(line.get_color(), line.get_linestyle()) for line in axes[0].lines]
    assert len(set(looks)) == 20


@pytest.mark.parametrize(("letters", "lines"), [(5, 2), (60, 3), (200, 5)])
def test_long_names_are_drawn_whole_where_the_figure_has_room(letters, lines):
    names = [f"{i}" * letters for i in range(5)]
    figure, _ = plots.training(dict.fromkeys(names, history()))
    (below,) = figure.legends
    figure.canvas.draw()
    box = below.get_window_extent()
    if letters < 200:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    heights = {round(text.get_window_extent().y0) for text in below.get_texts()}
    assert len(heights) == lines


def test_a_title_of_the_figure_and_the_names_do_not_cover_each_other():
    for figure, _ in (
        plots.training({"one": history(), "other": history(1)}),
        plots.layers(history(layers=("Conv_0", "Dense_0"))),
    ):
        title = figure.suptitle("MNIST")
        figure.canvas.draw()
        (names,) = figure.legends
        assert not title.get_window_extent().overlaps(names.get_window_extent())


def test_the_names_of_fifty_layers_leave_the_panels_their_height():
    def heights(layers):
        figure, axes = plots.layers(history(layers=[f"block_{i}" for i in layers]))
        drawn(figure)
        return [panel.get_window_extent().height for panel in axes]

    assert heights(range(50)) == pytest.approx(heights(range(2)), rel=0.1)


def test_a_run_without_reference_has_no_line_for_it():
    _, axes = plots.training(history(reference=np.inf))
    assert len(axes[2].lines) == 1


def share_of(panel):
    """The second axis of a panel, or None."""
    panel.figure.canvas.draw()  # which sets its limits
    return panel.child_axes[0] if panel.child_axes else None


@pytest.mark.parametrize(
    "runs",
    [
        history(),
        {"one": history(), "other": [history(1), history(2)]},
        {"steered": history(), "fixed": history(reference=np.nan)},
    ],
)
def test_information_is_shown_as_a_share_of_its_reference_too(runs):
    _, axes = plots.training(runs)
    share = share_of(axes[2])
    assert share
    assert share.get_ylabel() == "share of the reference (%)"
    np.testing.assert_allclose(share.get_ylim(), np.array(axes[2].get_ylim()) / 0.023)
    assert not any(axes[i].child_axes for i in (0, 1, 3))


def test_a_reference_that_comes_later_is_the_one():
    run = history()
    for row in run.rows[:2]:
        row["reference"] = np.nan
    _, axes = plots.training(run)
    assert share_of(axes[2])
    run.rows[1]["reference"] = 1.5
    _, axes = plots.training(run)
    assert share_of(axes[2]) is None
    assert [line.get_ydata()[0] for line in axes[2].lines[1:]] == [2.3]


@pytest.mark.parametrize("reference", [np.nan, np.inf, 0.0])
def test_without_one_reference_there_is_no_share(reference):
    _, axes = plots.training(history(reference=reference))
    assert share_of(axes[2]) is None
    _, axes = plots.training({"one": history(), "other": history(reference=1.5)})
    assert share_of(axes[2]) is None
    assert len(axes[2].lines) == 4


def test_layers_have_a_share_of_the_reference_if_they_have_one_in_common():
    names = ("Conv_0", "Dense_0")
    run = history(layers=names)
    _, axes = plots.layers(run)
    share = share_of(axes[1])
    assert share
    assert share.get_ylabel() == "share of the reference (%)"
    assert not any(panel.child_axes for panel in (axes[0], *axes[2:]))
    for row in run.rows[1::2]:
        row["reference"] = 1.5
    _, axes = plots.layers(run)
    assert share_of(axes[1]) is None
    assert [line.get_ydata()[0] for line in axes[1].lines[2:]] == [1.5, 2.3]


def test_layers_are_shown_by_kind():
    names = ("Conv_0", "Conv_1", "Dense_0", "")
    runs = [history(seed, names) for seed in range(2)]
    figure, axes = plots.layers(runs)
    assert [axis.get_title() for axis in axes] == ["", "", "Conv", "Dense", "output"]
    named = [panel.get_legend_handles_labels()[1] for panel in axes[2:]]
    assert named == [["Conv_0", "Conv_1"], ["Dense_0"], ["output"]]
    every = ["Conv_0", "Conv_1", "Dense_0", "output", "reference"]
    assert legend_below(figure) == every
    assert not any(panel.get_legend() for panel in axes)  # it would cover curves
    _, own = plots.layers(runs, ax=plt.subplots(1, 5)[1])
    assert [legend(panel) for panel in own[1:]] == [every, *named]
    expected = np.mean([run.column("learning_rate", "Conv_1") for run in runs], axis=0)
    np.testing.assert_allclose(axes[2].lines[1].get_ydata(), expected)
    assert len(axes[1].lines) == 1 + len(names)
    colour = axes[2].lines[1].get_color()  # a layer keeps its look
    assert colour == axes[1].lines[1].get_color() != axes[2].lines[0].get_color()
    assert len(drawn(figure).axes) == 5
    places = [panel.get_position() for panel in axes]
    assert places[0].x0 == places[1].x0 < places[2].x0 < places[3].x0
    assert places[0].y0 > places[1].y1
    assert places[2].y1 - places[2].y0 > 1.9 * (places[0].y1 - places[0].y0)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("Conv_0", "Conv"),
        ("block_1/conv2", "conv"),
        ("layers/0", "nn.Sequential"),
        ("layers_7", "nn.Sequential"),
        ("logits", "logits"),
        ("Dense_0/1", "Dense_0"),
        ("", "output"),
    ],
)
def test_a_layers_kind_is_its_name_without_the_number(layer, kind):
    _, axes = plots.layers(history(layers=(layer,)))
    assert axes[2].get_title() == kind


def test_layers_may_be_given_other_names_which_tell_their_kinds():
    own = ("layers_0", "layers_2", "layers_5")
    names = {"layers_0": "Conv_0", "layers_2": "Conv_1"}
    figure, axes = plots.layers(history(layers=own), names=names)
    assert [axis.get_title() for axis in axes[2:]] == ["Conv", "nn.Sequential"]
    assert [line.get_label() for line in axes[2].lines] == ["Conv_0", "Conv_1"]
    assert legend_below(figure)[:3] == ["Conv_0", "Conv_1", "layers_5"]
    kinds: dict[str, str] = dict.fromkeys(own, "all")
    _, axes = plots.layers(history(layers=own), names=names, kinds=kinds)
    assert [axis.get_title() for axis in axes[2:]] == ["all"]


def test_a_layer_without_a_rate_has_no_panel():
    run = history(layers=("a",))
    for epoch in range(len(run.column("epoch", "a"))):
        run.add(epoch=epoch, layer="", learning_rate=np.nan, mi=1.0)
    _, axes = plots.layers(run, kinds={"a": "dense"})
    assert [axis.get_title() for axis in axes[2:]] == ["dense"]
    assert [line.get_label() for line in axes[2].lines] == ["a"]
    assert len(axes[1].lines) == 1 + 2  # the reference, and what both hold


def test_kinds_may_be_given_and_need_every_layer_with_a_rate():
    run = history(layers=("a", "b"))
    _, axes = plots.layers(run, kinds={"a": "dense", "b": "dense"})
    assert [axis.get_title() for axis in axes[2:]] == ["dense"]
    with pytest.raises(ValueError, match=r"`kinds` must be a mapping with 'b' in it"):
        plots.layers(run, kinds={"a": "dense"})


def test_the_sample_size_curve_has_bars_of_one_deviation():
    curve = optax_mi.SampleSizeCurve(
        np.array([100, 200]),
        np.array([1.0, 1.5]),
        np.array([0.2, 0.1]),
        np.ones((2, 3)),
    )
    figure, axes = plots.sample_size({"mnist": curve, "cifar10": curve})
    line, _, (bars,) = axes.containers[0]
    assert data(line) == [[100, 200], [1.0, 1.5]]
    np.testing.assert_allclose(bars.get_segments()[0], [[100, 0.8], [100, 1.2]])
    assert legend(axes) == ["mnist", "cifar10"]
    assert drawn(figure)


def test_the_information_plane_has_a_path_and_a_marker_for_each_layer():
    x = {"conv": [3.0, 2.5, 2.0], "": [1.0, 1.5, 1.8]}
    y = {"conv": [1.0, 1.1, 1.2], "": [0.5, 1.0, 2.0]}
    figure, axes = plots.information_plane(x, y)
    assert [data(line) for line in axes.lines] == [[x[n], y[n]] for n in x]
    assert legend(axes) == ["conv", "output"]
    conv, output = axes.collections[0], axes.collections[2]
    colours = conv.get_edgecolor()
    assert len(np.unique(colours, axis=0)) == 3  # one for each epoch
    np.testing.assert_equal(output.get_edgecolor(), colours)
    bar = drawn(figure).axes[1]
    assert bar.get_ylabel() == "epoch"
    assert set(bar.get_yticks()) <= {0, 1, 2}
    with pytest.raises(ValueError, match=r"`mi_outcomes` must be of layers"):
        plots.information_plane(x, {"conv": y["conv"]})
    with pytest.raises(ValueError, match=r"of shape \(3,\) for 'conv', got \(2,\)"):
        plots.information_plane(x, {**y, "conv": [1, 2]})


def test_layers_that_coincide_are_all_seen_in_the_information_plane():
    names = [f"layer {i}" for i in range(10)]  # more than there are markers
    same = dict.fromkeys(names, [1.0, 2.0])
    _, axes = plots.information_plane(same, same)
    markers = axes.collections[::2]
    assert len(markers) == len(names)
    assert all(marker.get_facecolor().size == 0 for marker in markers)  # hollow
    sizes = [float(marker.get_sizes()[0]) for marker in markers]
    assert sizes == sorted(set(sizes), reverse=True)  # the last lies within the first


@pytest.mark.parametrize("bounds", [(1e-3, 0.1), (np.nan, np.nan)])
def test_the_range_test_shades_what_it_suggests(bounds):
    rates = np.geomspace(1e-4, 1, 5)
    result = optax_mi.LRRangeTest(rates, np.arange(5.0), np.ones(5), *bounds)
    figure, axes = plots.range_test(result)
    assert data(axes[0].lines[0]) == [rates.tolist(), [0, 1, 2, 3, 4]]
    assert axes[1].get_xscale() == "log"
    assert len(axes[0].patches) == np.isfinite(bounds[0])
    assert drawn(figure)


def test_every_picture_draws_where_it_is_told():
    figure, panels = plt.subplots(2, 4)
    one, five = np.ones(1), np.ones(5)
    curve = optax_mi.SampleSizeCurve(one, one, one, np.ones((1, 1)))
    result = optax_mi.LRRangeTest(five, five, five, lr_min=0.1, lr_max=1.0)
    for returned, axes in [
        plots.training(history(), ax=panels[0]),
        plots.layers(history(layers=("a1", "b1")), ax=panels[1]),
        plots.sample_size(curve, ax=panels[0, 0]),
        plots.information_plane({"a": [1.0]}, {"a": [1.0]}, ax=panels[0, 1]),
        plots.range_test(result, ax=panels[0, 2:]),
    ]:
        assert returned is figure
        assert all(axis in panels for axis in np.ravel(axes))
    assert plt.get_fignums() == [figure.number]


def test_what_cannot_be_drawn_is_refused_with_its_name():
    with pytest.raises(ValueError, match="`ax` must be 4 axes, got 2"):
        plots.training(history(), ax=plt.subplots(2)[1])
    with pytest.raises(ValueError, match="`metric` must be among .* got 'loss'"):
        plots.training(history(), metric="loss")
    for empty in ([], optax_mi.MIHistory()):
        with pytest.raises(ValueError, match="`runs` must be histories of at least"):
            plots.layers(empty)
    with pytest.raises(ValueError, match="`layer` must be one of 'a', got ''"):
        plots.training(history(layers=("a",)))
    with pytest.raises(ValueError, match="`runs` must be of the same epochs"):
        plots.training([history(), history(epochs=3)])


def test_a_layer_that_comes_later_is_shown_from_there_on():
    run = history(layers=("a0",))
    for epoch in (2, 3):
        run.add(epoch=epoch, layer="b0", learning_rate=0.5, mi=1.0, accuracy=0.5)
    _, axes = plots.layers(run)
    assert data(axes[3].lines[0]) == [[2, 3], [0.5, 0.5]]


def test_a_single_epoch_is_seen():
    _, axes = plots.training(history(epochs=1))
    assert axes[0].lines[0].get_marker() == "o"
