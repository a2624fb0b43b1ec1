"""The terms of which an estimate is the mean, `local=True`."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest
import tiers
import twins

import optax_mi

N = 150
ALONE = 17  # the example whose class has no other member


def sample(tied, seed=0):
    """x, y, z and classes of which one has a single member, tied where rounded."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, N)
    labels[ALONE] = 4
    x = rng.normal(size=(N, 3)) + 0.5 * labels[:, None]
    y, z = x[:, 0] + rng.normal(size=N), x[:, 1] + rng.normal(size=N)
    numbers = [np.round(2 * v) / 2 if tied else v for v in (x, y, z)]
    x, y, z = (v.astype(np.float32) for v in numbers)
    return {"x": x, "y": y, "z": z, "labels": labels}


# An estimator, its twin, and their arguments.
ESTIMATORS: dict[str, tuple[Any, Any, tuple[str, ...]]] = {
    "discrete": (optax_mi.ksg_discrete, twins.ksg_discrete, ("x", "labels")),
    "ksg": (optax_mi.ksg, twins.ksg, ("x", "y")),
    "ksg, algorithm 2": (
        partial(optax_mi.ksg, algorithm=2),
        partial(twins.ksg, algorithm=2),
        ("x", "y"),
    ),
    "mixed": (optax_mi.ksg_mixed, twins.ksg_mixed, ("x", "y")),
    "conditional": (
        optax_mi.ksg_conditional,
        twins.ksg_conditional,
        ("x", "y", "z"),
    ),
    "conditional, classes": (
        optax_mi.ksg_conditional,
        twins.conditional_of_classes,
        ("x", "y", "labels"),
    ),
}
KEPT = ("discrete", "ksg")


def arguments(name, tied=False, seed=0):
    values = sample(tied, seed)
    return tuple(values[argument] for argument in ESTIMATORS[name][2])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, *KEPT))
def test_terms_equal_the_twins(name, tied):
    estimator, twin, _ = ESTIMATORS[name]
    data = arguments(name, tied)
    expected = [twin(*data, k=k, local=True) for k in (1, 4)]
    found = estimator(*data, k=(1, 4), local=True)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, *KEPT))
def test_their_mean_is_the_estimate(name, tied):
    estimator, _, argument_names = ESTIMATORS[name]
    data = arguments(name, tied)
    terms = np.asarray(estimator(*data, k=(1, 4), local=True), np.float64)
    mi = estimator(*data, k=(1, 4))
    np.testing.assert_allclose(np.nanmean(terms), mi, rtol=0, atol=1e-6)
    left_out = [ALONE] if "labels" in argument_names else []
    assert np.flatnonzero(np.isnan(terms)).tolist() == left_out


@pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, "discrete"))
def test_they_are_the_same_under_jit_and_vmap(name):
    local = partial(ESTIMATORS[name][0], local=True)
    data = [arguments(name, tied=True, seed=seed) for seed in (0, 1)]
    expected = [local(*values) for values in data]
    stacked = (np.stack(values) for values in zip(*data, strict=True))
    np.testing.assert_allclose(jax.jit(local)(*data[0]), expected[0], atol=1e-6)
    np.testing.assert_allclose(jax.vmap(local)(*stacked), expected, atol=2e-6)


@pytest.mark.parametrize("outcomes", ["labels", "y"])
def test_every_layer_has_its_own(outcomes):
    values = sample(tied=False)
    x, y = values["x"], values[outcomes]
    layers = {"a": x, "as wide": x[::-1] ** 2, "narrower": x[:, :2], "single": x[:, 0]}
    found = optax_mi.estimate_mi(layers, y, local=True)
    alone = optax_mi.ksg_discrete if outcomes == "labels" else optax_mi.ksg
    alone = partial(alone, scaling="variable", metric="euclidean", local=True)
    assert list(found) == list(layers)
    for name, layer in layers.items():
        np.testing.assert_allclose(found[name], alone(layer, y), atol=2e-6)


def test_beside_an_estimator_it_is_refused():
    values = sample(tied=False)
    with pytest.raises(ValueError, match=r"`local` must be left out, .* got True"):
        optax_mi.estimate_mi(
            {"x": values["x"]},
            values["labels"],
            estimator=optax_mi.ksg_discrete,
            local=True,
        )


def test_a_number_that_is_not_finite_makes_every_term_nan():
    x, labels = arguments("discrete")
    x[5, 1] = np.inf
    assert np.isnan(optax_mi.ksg_discrete(x, labels, local=True)).all()


def test_an_example_of_the_class_that_is_told_apart_has_the_highest_term():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 400)
    x = rng.normal(size=1200) + 20 * (labels == 0)  # 1 and 2 lie on each other
    terms = optax_mi.ksg_discrete(x, labels, local=True).reshape(3, 400)
    # log p(x | c) / p(x): of a third, and of half of two thirds.
    truth = np.log([3, 1.5, 1.5])
    np.testing.assert_allclose(terms.mean(axis=1), truth, atol=0.05)
    # A single one may be negative all the same.
    assert (terms[1:] < 0).any()


def test_mislabelled_examples_have_the_lowest_terms():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 1000)
    x = rng.normal(size=(1000, 10)) + 6 * np.eye(5, 10)[truth]
    wrong = rng.random(1000) < 0.05
    labels = np.where(wrong, (truth + rng.integers(1, 5, 1000)) % 5, truth)
    terms = np.asarray(optax_mi.ksg_discrete(x, labels, local=True))
    lowest = np.argsort(terms)[: wrong.sum()]
    assert set(lowest) == set(np.flatnonzero(wrong))
    # Measured: -2.0 and 1.5, of log 5 = 1.6 in the classes.
    assert terms[wrong].mean() < -1.5
    assert terms[~wrong].mean() > 1.4
