"""Whole runs on scikit-learn's digits, through every stage of the package."""

import jax
import numpy as np
import pytest

import optax_mi
from examples import data
from examples.cnn import SmallCNN
from examples.training import mi_driven, train


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def probe(digits):
    return optax_mi.sample_probe(jax.random.key(0), digits.train_x, digits.train_y)


def run(digits, probe, epochs=30, batch_size=16, seed=0, estimator=None, **options):
    method = mi_driven("under test", 1e-3, 0.1, **options)
    return list(
        train(
            SmallCNN(),
            digits,
            method,
            probe,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            estimator=estimator,
        )
    )


def test_the_reference_policy_trains_with_a_rate_that_rises_and_falls(digits, probe):
    epochs = run(digits, probe, reference=optax_mi.reference_mi(probe))
    rates = [e.learning_rate for e in epochs]
    peak = int(np.argmax(rates))
    assert epochs[-1].accuracy > 0.95
    assert rates[0] == rates[1] == pytest.approx(1e-3)
    assert rates[peak] > 0.03
    assert 0 < peak < len(rates) - 1
    assert rates[-1] < 0.9 * rates[peak]
    assert epochs[-1].mi > epochs[0].mi + 0.3


def test_the_change_policy_trains_with_a_rate_that_rises_and_falls(digits, probe):
    rates = [
        e.learning_rate for e in run(digits, probe, policy=optax_mi.change_policy())
    ]
    peak = int(np.argmax(rates))
    assert rates[peak] > 0.01
    assert 0 < peak < len(rates) - 1
    assert rates[-1] < 0.5 * rates[peak]


def test_a_user_written_policy_trains(digits, probe):
    def missing_information(step):
        """The rate is the share of the label entropy that is still missing."""
        return step.lr_max * (1 - step.mi / step.reference)

    reference = optax_mi.reference_mi(probe)
    epochs = run(
        digits, probe, policy=missing_information, reference=reference, init_lr=0.05
    )
    assert epochs[-1].accuracy > 0.9
    for before, after in zip(epochs[1:], epochs[2:], strict=False):
        expected = np.clip(0.1 * (1 - before.mi / float(reference)), 1e-3, 0.1)
        assert after.learning_rate == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_gives_the_same_run(digits, probe):
    reference = optax_mi.reference_mi(probe)
    first, second = (
        run(digits, probe, epochs=3, reference=reference) for _ in range(2)
    )
    assert first == second


def between_bounds(logits, labels):
    lower, upper = optax_mi.pairwise_distance_bounds(logits, labels, noise=0.3)
    return (lower + upper) / 2


def info_nce(logits, labels):
    codes = jax.nn.one_hot(labels, 10)
    key, options = jax.random.key(0), dict(steps=300, batch_size=128)
    return optax_mi.info_nce(key, logits, codes, **options).mi


@pytest.mark.parametrize(
    "estimator",
    [
        between_bounds,
        lambda h, y: optax_mi.discrete_mi(h.argmax(axis=1), y, miller_madow=True),
        info_nce,
    ],
    ids=["bounds", "predicted classes", "info_nce"],
)
def test_the_policies_run_on_any_estimator(digits, probe, estimator):
    reference = optax_mi.reference_mi(probe)
    epochs = run(digits, probe, epochs=20, reference=reference, estimator=estimator)
    rates = [e.learning_rate for e in epochs]
    assert epochs[-1].accuracy > 0.9
    assert max(rates) > 0.02
    assert epochs[-1].mi > epochs[0].mi + 0.3
