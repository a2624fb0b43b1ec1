import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    wide = rng.normal(size=(200, 5, 5, 2)) + labels[:, None, None, None]
    narrow = rng.normal(size=(200, 3)) + labels[:, None]
    return {"z_wide": wide, "a_narrow": narrow}, labels


def test_classes_go_to_ksg_discrete_layer_by_layer_in_the_order_given(layers):
    activations, labels = layers
    mi = optax_mi.estimate_mi(activations, labels, k=5)
    assert list(mi) == ["z_wide", "a_narrow"]
    for name, value in mi.items():
        alone = optax_mi.ksg_discrete(
            activations[name], labels, k=5, scaling="variable"
        )
        assert value == alone


@pytest.mark.slow
def test_continuous_outcomes_go_to_ksg(layers):
    activations, _ = layers
    y = activations["a_narrow"][:, 0]
    mi = optax_mi.estimate_mi(activations, y)
    for name, value in mi.items():
        alone = optax_mi.ksg(
            activations[name], y, metric="euclidean", scaling="variable"
        )
        assert value == alone


def test_all_layers_are_one_compiled_program(layers):
    activations, labels = layers
    activations = jax.tree.map(jnp.float32, activations)
    programs = jax.make_jaxpr(lambda a: optax_mi.estimate_mi(a, labels))(activations)
    calls = [e for e in programs.eqns if "jaxpr" in e.params]
    assert [call.params["name"] for call in calls] == ["_estimate_all"]


def test_it_runs_in_a_compiled_measurement(layers):
    activations, labels = layers
    compiled = jax.jit(partial(optax_mi.estimate_mi, k=5))(activations, labels)
    for name, value in optax_mi.estimate_mi(activations, labels, k=5).items():
        assert compiled[name] == pytest.approx(float(value), rel=1e-6)


def test_a_layer_that_is_not_finite_does_not_spoil_the_others(layers):
    activations, labels = layers
    broken = activations["a_narrow"].copy()
    broken[0] = np.inf
    mi = optax_mi.estimate_mi({**activations, "a_narrow": broken}, labels, k=5)
    assert np.isnan(mi["a_narrow"])
    assert np.isfinite(mi["z_wide"])


@pytest.mark.parametrize(
    ("activations", "outcomes", "message"),
    [
        ({}, np.zeros(5, int), "`activations` must be a mapping"),
        (np.zeros((5, 2)), np.zeros(5, int), "`activations` must be a mapping"),
        (
            {"a": np.zeros((4, 2))},
            np.zeros(5, int),
            r"`activations\['a'\]` must be as long as `outcomes`, 5 samples, got 4",
        ),
        ({"a": np.zeros((5, 2))}, np.eye(5, dtype=int), "`outcomes` .* argmax"),
        ({"a": np.zeros((5, 2))}, np.eye(5), "`outcomes` .* argmax"),
        ({"a": np.zeros((5, 2))}, np.zeros((5, 1), int), r"column: take \[:, 0\]"),
        ({"a": np.zeros((5, 2))}, np.zeros((5, 3), int), "positions.*combinations"),
        ({"a": np.zeros((3, 2))}, np.zeros(3, int), "`k` must be less than"),
    ],
)
def test_bad_input_is_refused_with_its_name(activations, outcomes, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.estimate_mi(activations, outcomes)


def test_labels_held_as_floats_are_told_of_but_to_an_estimator_of_ones_own():
    x, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    with pytest.warns(UserWarning, match=r"only the values 0, 1\. .*astype\(int\)"):
        optax_mi.estimate_mi({"x": x}, y.astype(float))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optax_mi.estimate_mi({"x": x}, y.astype(float), estimator=optax_mi.ksg_mixed)


def test_outcomes_on_a_device_are_looked_at_once_and_codes_are_refused_each_time(
    monkeypatch,
):
    rng, seen = np.random.default_rng(0), []
    x, y = (jnp.asarray(rng.normal(size=60), jnp.float32) for _ in range(2))
    codes = jax.nn.one_hot(jnp.arange(60) % 3, 3)
    unique = np.rint
    monkeypatch.setattr(np, "rint", lambda a: seen.append(a.shape) or unique(a))
    for _ in range(3):
        optax_mi.estimate_mi({"x": x}, y)
        with pytest.raises(ValueError, match="one-hot codes of shape"):
            optax_mi.estimate_mi({"x": x}, codes)
    assert seen == [(60,)]


@pytest.mark.parametrize(
    "option", [{"k": 5}, {"metric": "manhattan"}, {"block_size": 8}, {"axis_name": "a"}]
)
def test_options_beside_an_estimator_of_ones_own_are_refused(option):
    (name,) = option
    with pytest.raises(ValueError, match=rf"`{name}` must be left out, .* bound in"):
        optax_mi.estimate_mi(
            {"x": np.zeros((5, 2))}, np.arange(5), estimator=optax_mi.ksg, **option
        )


def test_several_labels_are_measured_one_by_one_or_by_their_combinations():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (1000, 2))
    first = labels[:, :1] + 0.01 * rng.normal(size=(1000, 1))
    layers = {"first": first, "both": labels + 0.01 * rng.normal(size=(1000, 2))}

    def sums(h, y):
        return optax_mi.ksg_discrete(h, y[:, 0]) + optax_mi.ksg_discrete(h, y[:, 1])

    summed = optax_mi.estimate_mi(layers, labels, estimator=sums)
    _, joint = np.unique(labels, axis=0, return_inverse=True)
    joined = optax_mi.estimate_mi(layers, joint)
    for found in (summed, joined):
        assert found["first"] == pytest.approx(np.log(2), abs=0.03)
        assert found["both"] == pytest.approx(2 * np.log(2), abs=0.03)


def test_columns_of_outcomes_in_different_units_need_one_spread():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(1000, 2)) * [1.0, 1000.0]
    layer = {"first": y[:, :1] + 0.5 * rng.normal(size=(1000, 1))}
    truth = 0.5 * np.log(1 + 1 / 0.25)
    assert optax_mi.estimate_mi(layer, y)["first"] < 0.1  # the second column hides it
    scaled = optax_mi.estimate_mi(layer, y / y.std(axis=0))["first"]
    assert scaled == pytest.approx(truth, abs=0.1)


def test_ordered_grades_are_classes_or_numbers_with_ties():
    rng = np.random.default_rng(0)
    grades = rng.integers(1, 6, 1000)
    h = grades[:, None] + 0.1 * rng.normal(size=(1000, 1))
    classes = optax_mi.estimate_mi({"h": h}, grades)["h"]
    assert classes == pytest.approx(np.log(5), abs=0.01)
    # No order is used: any other names of the classes give the same.
    names = np.array([0, 30, 10, 50, 20, 40])[grades]
    assert classes == optax_mi.estimate_mi({"h": h}, names)["h"]
    ordered = optax_mi.estimate_mi(
        {"h": h}, grades.astype(float), estimator=optax_mi.ksg_mixed
    )
    assert ordered["h"] == pytest.approx(np.log(5), abs=0.03)


@pytest.fixture(scope="module")
def probe():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 400)
    x = rng.normal(size=(400, 4, 4, 1)) + 0.2 * labels[:, None, None, None]
    return optax_mi.Probe(jnp.asarray(x, jnp.float32), jnp.asarray(labels))


def test_the_tiled_reference_of_classes_is_the_label_entropy(probe):
    entropy = optax_mi.reference_mi(probe)
    assert entropy == optax_mi.label_entropy(probe.outcomes)
    # psi in place of log: (10 - 1) / (2 * 1600) higher
    tiled = optax_mi.reference_mi(probe, "tiled")
    assert tiled == pytest.approx(float(entropy) + 9 / 3200, abs=2e-4)


@pytest.mark.slow
def test_more_tiles_come_nearer_to_the_label_entropy(probe):
    entropy, tiled = (
        optax_mi.reference_mi(probe, k) for k in ("label_entropy", "tiled")
    )
    more = optax_mi.reference_mi(probe, "tiled", tiles=8)
    assert abs(more - entropy) < abs(tiled - entropy)


@pytest.mark.slow
def test_the_input_reference_is_the_estimate_on_the_inputs(probe):
    estimate = optax_mi.ksg_discrete(*probe, k=5, scaling="variable")
    assert optax_mi.reference_mi(probe, "input", k=5) == estimate
    assert optax_mi.reference_mi(probe, "input") == optax_mi.reference_mi(
        probe, "tiled", tiles=1
    )


@pytest.mark.slow
def test_the_tiled_reference_of_continuous_outcomes_is_log_n(probe):
    continuous = optax_mi.Probe(probe.inputs, probe.inputs[:, 0, 0, 0])
    tiled = optax_mi.reference_mi(continuous, "tiled")
    assert tiled == pytest.approx(np.log(400), abs=0.15)


def test_bad_references_are_refused(probe):
    with pytest.raises(ValueError, match="`kind` must be one of .* got 'entropy'"):
        optax_mi.reference_mi(probe, "entropy")  # pyright: ignore
    with pytest.raises(ValueError, match="`tiles` must be an integer >= 1, got 0"):
        optax_mi.reference_mi(probe, "tiled", tiles=0)
    with pytest.raises(ValueError, match="`probe.outcomes` .* dtype float32"):
        optax_mi.reference_mi(optax_mi.Probe(probe.inputs, probe.inputs))
    with pytest.raises(ValueError, match=r"`probe.inputs` must be one array .* dict"):
        optax_mi.reference_mi(optax_mi.Probe({"a": probe.inputs}, probe[1]), "input")


def test_labels_too_wide_for_jax_are_refused_rather_than_wrapped():
    labels = np.arange(100, dtype=np.int64) % 4 << 32
    codes = np.eye(4)[np.arange(100) % 4]
    with pytest.raises(ValueError, match="`outcomes` must be within the int32 range"):
        optax_mi.estimate_mi({"h": codes}, labels)
    with pytest.raises(ValueError, match="`y` must be within the int32 range"):
        optax_mi.sample_probe(jax.random.key(0), codes, labels, size=50)


@pytest.mark.slow
def test_a_probe_made_by_hand_of_numpy_arrays_has_references():
    x, y = np.random.default_rng(0).normal(size=(100, 2)), np.arange(100) % 2
    probe = optax_mi.Probe(x, y)  # pyright: ignore[reportArgumentType]
    for kind in ("label_entropy", "input", "tiled"):
        assert np.isfinite(optax_mi.reference_mi(probe, kind))
    with pytest.raises(ValueError, match="`k` must be"):
        optax_mi.reference_mi(
            probe,
            "tiled",
            k=2.5,  # pyright: ignore[reportArgumentType]
        )


def test_any_function_to_a_scalar_is_an_estimator(layers):
    activations, labels = layers
    x = activations["a_narrow"]
    plain = optax_mi.ksg_discrete(x, labels, k=5)
    bound = partial(optax_mi.ksg_discrete, k=5)
    for estimator in (bound, lambda h, y: optax_mi.ksg_discrete(h, y, k=5)):
        mi = optax_mi.estimate_mi({"a": x}, labels, estimator=estimator)
        np.testing.assert_allclose(mi["a"], plain, rtol=1e-6)
    own = optax_mi.estimate_mi({"a": x}, labels, estimator=lambda h, y: h[0, 0] + y[0])
    np.testing.assert_allclose(own["a"], x[0, 0] + labels[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("estimator", "received"),
    [
        (lambda h, y: h[:, 0], r"shape \(200,\)"),
        (partial(optax_mi.pairwise_distance_bounds, noise=1.0), "Bounds"),
    ],
)
def test_an_estimator_must_return_a_scalar(layers, estimator, received):
    with pytest.raises(ValueError, match=f"`estimator` must be .* got {received}"):
        optax_mi.estimate_mi(*layers, estimator=estimator)
