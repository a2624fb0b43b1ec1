"""Estimates against known truths, ties and scales included.

Tolerances are measured: each case was run for 20 seeds (n = 1000, k = 3), and the mean
of 5 seeds must lie within the measured bias and four of its standard errors.
"""

import jax
import numpy as np
import pytest
import twins

import optax_mi

N, SEEDS = 1000, 5


def assert_near(errors, bias, spread):
    assert abs(np.mean(errors) - bias) < 4 * spread * np.sqrt(1 / SEEDS + 1 / 20)


@pytest.mark.parametrize(
    ("algorithm", "rho", "bias", "spread"),
    [
        (1, 0.0, 0.006, 0.021),
        (1, 0.5, 0.013, 0.030),
        (1, 0.9, 0.012, 0.046),
        *[
            pytest.param(2, *row, marks=pytest.mark.slow)
            for row in [(0.0, 0.005, 0.026), (0.5, 0.014, 0.035), (0.9, 0.011, 0.050)]
        ],
    ],
)
def test_gaussians(algorithm, rho, bias, spread):
    errors = []
    for seed in range(SEEDS):
        x, noise = np.random.default_rng(seed).normal(size=(2, N))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        truth = -0.5 * np.log(1 - rho**2)
        errors.append(optax_mi.ksg(x, y, algorithm=algorithm) - truth)
    assert_near(errors, bias, spread)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [1, 2])
@pytest.mark.parametrize(
    ("step", "rho", "pairs", "truth", "bias", "spread"),
    [
        # Truths by quadrature (`benchmarks/tasks.py`).
        (0.1, 0.5, 1, 0.1436, 0.011, 0.029),
        (0.3, 0.9, 1, 0.7997, 0.007, 0.030),
        (0.3, 0.6, 2, 0.4380, -0.018, 0.028),
        (1.0, 0.0, 2, 0.0000, -0.001, 0.015),
    ],
)
def test_rounded_gaussians(step, rho, pairs, truth, bias, spread, algorithm):
    errors = []
    for seed in range(SEEDS):
        x, noise = np.random.default_rng(seed).normal(size=(2, N, pairs))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        x, y = np.round(x / step), np.round(y / step)
        errors.append(optax_mi.ksg(x, y, algorithm=algorithm) - truth)
    assert_near(errors, bias, spread)


def mixture_information(means):
    """I(X; C) of equally likely unit Gaussians with these means, by quadrature."""
    x = np.linspace(-12, 30, 100_001)
    density = np.exp(-((x - np.array(means)[:, None]) ** 2) / 2).mean(axis=0)
    density /= np.sqrt(2 * np.pi)
    entropy = -np.sum(density * np.log(density + 1e-300)) * (x[1] - x[0])
    return entropy - 0.5 * np.log(2 * np.pi * np.e)


@pytest.mark.parametrize(
    ("means", "d", "bias", "spread"),
    [
        ([0, 0], 1, 0.000, 0.014),
        ([0, 1], 1, 0.000, 0.021),
        ([0, 4], 1, 0.002, 0.010),
        ([0, 2, 4, 6, 8], 1, 0.008, 0.017),
        *[
            pytest.param(*row, marks=pytest.mark.slow)
            for row in [
                ([0, 0], 5, 0.000, 0.016),
                ([0, 1], 5, 0.003, 0.014),
                ([0, 4], 5, 0.000, 0.013),
                ([0, 2, 4, 6, 8], 2, 0.019, 0.019),
                ([0, 2, 4, 6, 8], 5, 0.009, 0.019),
                # Biased downwards in high dimension.
                ([0, 2, 4, 6, 8], 20, -0.095, 0.031),
                ([0, 2, 4, 6, 8], 50, -0.194, 0.019),
            ]
        ],
    ],
)
def test_class_mixtures_with_features_of_pure_noise(means, d, bias, spread):
    errors = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, len(means), N)
        x = rng.normal(size=(N, d))
        x[:, 0] += np.array(means)[labels]
        mi = optax_mi.ksg_discrete(x, labels, scaling="variable")
        errors.append(mi - mixture_information(means))
    assert_near(errors, bias, spread)


def noisy_channel(symbols, error_rate, seed):
    rng = np.random.default_rng(seed)
    sent = rng.integers(0, symbols, N)
    flipped = rng.random(N) < error_rate
    return np.where(flipped, rng.integers(0, symbols, N), sent), sent


def channel_information(symbols, error_rate):
    wrong = error_rate / symbols
    rows = np.array([1 - error_rate + wrong] + [wrong] * (symbols - 1))
    return np.log(symbols) + np.sum(rows * np.log(rows))


def plug_in_information(x, y):
    return (
        twins.label_entropy(x)
        + twins.label_entropy(y)
        - twins.label_entropy(x * 1000 + y)
    )


def test_a_noiseless_channel_reaches_the_label_entropy_and_not_more():
    labels = np.arange(N) % 10
    entropy = float(optax_mi.label_entropy(labels))
    assert twins.ross(labels, labels) == pytest.approx(3.80, abs=0.01)  # the trap
    mi = float(optax_mi.ksg_discrete(labels, labels))
    assert mi == pytest.approx(entropy, abs=0.006)  # psi for log: 9 / (2 * 1000) high


@pytest.mark.parametrize(
    ("error_rate", "bias", "spread"),
    [(0.1, 0.026, 0.054), (0.5, -0.002, 0.031), (1.0, 0.000, 0.008)],
)
def test_a_noisy_channel_where_every_distance_is_tied(error_rate, bias, spread):
    truth, errors = channel_information(10, error_rate), []
    for seed in range(SEEDS):
        received, sent = noisy_channel(10, error_rate, seed)
        errors.append(optax_mi.ksg_discrete(received, sent) - truth)
        assert twins.ross(received, sent) > truth + 1  # strict counts overshoot
    assert_near(errors, bias, spread)


@pytest.mark.parametrize("levels", [4, 16, 64])
def test_quantised_values_lose_information_but_never_exceed_it(levels):
    # A class-dependent Gaussian cut into levels: the truth by counting a large sample.
    rng = np.random.default_rng(0)

    def draw(n):
        labels = rng.integers(0, 3, n)
        x = rng.normal(size=n) + 2 * labels
        return np.clip(np.round((x + 3) / 10 * levels), 0, levels), labels

    large, classes = draw(1_000_000)
    truth = plug_in_information(large.astype(int), classes)
    errors = []
    for _ in range(SEEDS):
        x, labels = draw(N)
        errors.append(float(optax_mi.ksg_discrete(x, labels)) - truth)
    assert_near(errors, bias=-0.003, spread=0.023)


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [2, 5])
def test_repeated_rows_are_not_taken_for_information(repeats):
    # Rows that repeat with labels of their own carry what the distinct rows carry.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, N)
    x = np.repeat(rng.normal(size=(N // repeats, 3)), repeats, axis=0)
    assert abs(optax_mi.ksg_discrete(x, labels)) < 0.05
    assert twins.ross(x, labels) > 0.05  # 0.06 for pairs, 0.33 for fives


@pytest.mark.slow
def test_dead_units_and_saturated_outputs_stay_below_the_entropy():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, N)
    logits = rng.normal(size=(N, 10)) + 3 * np.eye(10)[labels]
    entropy = optax_mi.label_entropy(labels)
    saturated = jax.nn.softmax(50 * logits.astype(np.float32))
    dead = np.maximum(logits - 4, 0)  # most rows are all zeros
    assert np.mean(np.all(dead == 0, axis=1)) > 0.5
    plain = float(optax_mi.ksg_discrete(logits, labels))
    for layer in (saturated, dead):
        assert 0.3 < optax_mi.ksg_discrete(layer, labels) < entropy
        assert optax_mi.ksg_discrete(layer, labels) < plain + 0.05
        assert twins.ross(layer, labels) > entropy


def test_growing_logits_keep_their_information():
    # The scale trap: as a network learns, its logits grow. KSG with one-hot labels
    # in a joint space (raw distances, as other packages have it) then forgets.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 500)
    logits = rng.normal(size=(500, 10)) + 4 * np.eye(10)[labels]
    one_hot = np.eye(10)[labels]
    ours = [float(optax_mi.ksg_discrete(logits * s, labels)) for s in (0.1, 1, 10)]
    joint = [twins.ksg(logits * s, one_hot, scaling="none") for s in (0.1, 1, 10)]
    np.testing.assert_allclose(ours, ours[0], rtol=1e-5)
    assert ours[0] > 1.5
    assert joint[0] == pytest.approx(ours[0], abs=0.1)
    assert joint[1] < 0.5
    assert joint[2] < 0.1
