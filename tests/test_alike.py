"""Layers of one shape share one compiled body, and so do the rates of labels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiers
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import optax_mi

N = 120


def layers(widths, seed=0):
    """Layers of these widths that know of four classes, some of their values tied."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, N)
    made = {}
    for i, width in enumerate(widths):
        x = rng.normal(size=(N, width)).astype(np.float32)
        x[:, 0] += i * labels
        x[: N // 4] = np.round(x[: N // 4])
        made[f"layer_{i}"] = jnp.asarray(x)
    return made, jnp.asarray(labels)


def continuous(labels):
    noise = np.random.default_rng(9).normal(size=len(labels))
    return jnp.asarray(labels + 0.3 * noise, jnp.float32)


OUTCOMES = {"classes": lambda labels: labels, "numbers": continuous}

WIDTHS = {
    "of one width": [20] * 4,
    "of few features": [1, 1, 2, 3, 3],
    "that others are padded to": [40, 33, 30, 28, 17, 16],
    "of one feature, and wide": [1, 300, 200, 201],
}


@pytest.mark.parametrize("outcomes", tiers.quick(OUTCOMES, "classes"))
@pytest.mark.parametrize("widths", tiers.quick(WIDTHS, "that others are padded to"))
def test_a_layer_has_the_estimate_that_it_has_alone(widths, outcomes):
    activations, labels = layers(WIDTHS[widths])
    y = OUTCOMES[outcomes](labels)
    together = optax_mi.estimate_mi(activations, y)
    assert list(together) == list(activations)
    for name, layer in activations.items():
        alone = optax_mi.estimate_mi({name: layer}, y)[name]
        assert together[name] == pytest.approx(float(alone), abs=2e-6)


def size(widths, estimator=None):
    """Lines of the program that measures layers of these widths."""
    activations, labels = layers(widths)
    measure = jax.jit(lambda a: optax_mi.estimate_mi(a, labels, estimator=estimator))
    return len(measure.lower(activations).as_text().splitlines())


def test_the_program_does_not_grow_with_the_number_of_layers():
    assert size([20] * 40) < size([20] * 4) + 40 * 10
    assert size([20] * 40) < 2 * size([20])


def test_the_program_does_not_grow_with_the_number_of_widths_that_are_alike():
    assert size(range(100, 140)) < 2.5 * size([100])


def first_moment(layer, outcomes):
    """What zeros in the place of features would change."""
    del outcomes
    return jnp.mean(layer)


def test_an_estimator_of_ones_own_is_compiled_once_for_a_shape_and_sees_no_padding():
    activations, labels = layers([20, 20, 30, 20])
    traced = []

    def estimator(layer, outcomes):
        traced.append(layer.shape)
        return first_moment(layer, outcomes)

    found = optax_mi.estimate_mi(activations, labels, estimator=estimator)
    for name, layer in activations.items():
        assert found[name] == pytest.approx(float(jnp.mean(layer)), abs=1e-6)
    assert sorted(traced) == [(N, 20), (N, 30)]


def test_a_layer_that_is_not_finite_does_not_spoil_those_of_its_shape():
    activations, labels = layers([20] * 3)
    expected = optax_mi.estimate_mi(activations, labels)
    activations["layer_1"] = activations["layer_1"].at[3, 2].set(jnp.nan)
    found = optax_mi.estimate_mi(activations, labels)
    assert np.isnan(found["layer_1"])
    assert found["layer_2"] == expected["layer_2"]


@pytest.mark.usefixtures("compiled_afresh")
@pytest.mark.parametrize(
    "widths",
    [[64] * 5, pytest.param([64, 200, 33, 8, 3], marks=pytest.mark.slow)],
)
def test_layers_spread_over_devices_end_fifty_times(widths):
    """Devices must not wait for each other in different layers."""
    activations, labels = layers(widths)
    right = optax_mi.estimate_mi(activations, labels)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    a, y = jax.block_until_ready(jax.device_put((activations, labels), spread))
    measure = jax.jit(lambda a, y: optax_mi.estimate_mi(a, y, axis_name="data"))
    with jax.set_mesh(mesh):
        all_found = [jax.block_until_ready(measure(a, y)) for _ in range(50)]
    for name, nats in right.items():
        found = [each[name] for each in all_found]
        assert found == pytest.approx([float(nats)] * 50, abs=1e-6)


def labelled(number):
    params = {f"block_{i}": {"kernel": jnp.ones(2)} for i in range(number)}
    return params, dict.fromkeys(params, 1.0)


@pytest.mark.parametrize("with_memory", [False, True])
def test_a_policy_is_traced_as_often_for_many_labels_as_for_two(with_memory):
    counts = []
    for number in (2, 12):
        params, mi = labelled(number)
        traced = []

        def answer(step, traced=traced):
            traced.append(step)
            return 2 * step.learning_rate

        policy = answer
        if with_memory:
            policy = (tuple, lambda step, memory, a=answer: (a(step), memory))
        tx = optax_mi.layerwise_mi_dynamic_lr("auto", 1e-3, 1.0, policy=policy)
        state = tx.init(params)
        del traced[:]
        jax.jit(tx.update)(params, state, params, mi=mi)
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


def test_labels_may_have_bounds_policies_and_references_of_their_own():
    params, mi = labelled(4)
    bounds = {name: 0.1 * (i + 1) for i, name in enumerate(params)}
    policies = dict.fromkeys(params, lambda step: step.lr_max)
    policies["block_2"] = lambda step: step.reference * step.lr_min
    tx = optax_mi.layerwise_mi_dynamic_lr(
        "auto", 1e-3, bounds, policy=policies, reference=dict.fromkeys(params, 2.0)
    )
    updates: Any = params
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params, mi=mi)
    rates = optax_mi.learning_rates(state)
    assert rates == pytest.approx(bounds | {"block_2": 2e-3})
    for name, rate in rates.items():
        assert updates[name]["kernel"][0] == pytest.approx(rate)


def test_a_measurement_of_some_labels_leaves_the_others_alone():
    params, mi = labelled(3)
    policy = optax_mi.change_policy()
    tx = optax.chain(optax_mi.layerwise_mi_dynamic_lr("auto", 1e-3, 1.0, policy=policy))
    state = tx.init(params)
    for nats in (1.0, 2.0):
        _, state = tx.update(params, state, mi={**mi, "block_0": nats, "block_1": None})
    rates = optax_mi.learning_rates(state)
    assert rates["block_0"] > 1e-3
    assert rates["block_1"] == rates["block_2"] == pytest.approx(1e-3)
