from functools import partial
from typing import Any

import compiled
import jax.numpy as jnp
import numpy as np
import pytest
import tiers
import twins
from scipy.special import ndtri

import optax_mi
from optax_mi._estimators import _ksg

N = 300


def sample(n, d_x, d_y, seed=0, step=None):
    """Dependent Gaussians as float32, rounded to multiples of `step`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d_x))
    y = rng.normal(size=(n, d_y)) + x[:, :1]
    if step is not None:
        x, y = np.round(x / step) * step, np.round(y / step) * step
    return x.astype(np.float32), y.astype(np.float32)


OPTIONS: dict[str, dict[str, Any]] = {
    "algorithm 1": dict(algorithm=1, metric="chebyshev", k=3),
    "euclidean, k = 1": dict(algorithm=1, metric="euclidean", k=1),
    "algorithm 2": dict(algorithm=2, metric="chebyshev", k=4),
}

# Those of one shape share their programs.
SHAPES = {
    "1 + 1": dict(n=N, d_x=1, d_y=1),
    "integers": dict(n=N, d_x=1, d_y=1, step=1.0),
    "2 + 2": dict(n=N, d_x=2, d_y=2),
    "coarse": dict(n=N, d_x=2, d_y=2, step=0.5),
    "constant": dict(n=N, d_x=2, d_y=2, step=1000.0),
    "3 + 2, odd n": dict(n=211, d_x=3, d_y=2),
    "20 + 1": dict(n=N, d_x=20, d_y=1),
}
IN_FOUR_FEATURES = ["2 + 2", "coarse", "constant"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, option) for name in ("1 + 1", "integers") for option in OPTIONS],
        ("20 + 1", "euclidean, k = 1"),
        *[
            pytest.param("20 + 1", option, marks=pytest.mark.slow)
            for option in ("algorithm 1", "algorithm 2")
        ],
        *[
            pytest.param("3 + 2, odd n", option, marks=pytest.mark.slow)
            for option in OPTIONS
        ],
    ],
)
def test_counts_equal_the_twins(name, options):
    algorithm, metric, k = OPTIONS[options].values()
    x, y = sample(**SHAPES[name])
    counts = compiled.joint_counts(x, y, k=k, metric=metric, edges=algorithm == 2)
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)), k, metric)
    np.testing.assert_array_equal(counts.radius == 0, coincident)
    np.testing.assert_array_equal(counts.balls, expected)
    if algorithm == 2:
        for edge, want in zip(
            counts.edges, twins.rectangle_counts(x, y, k, metric), strict=True
        ):
            np.testing.assert_array_equal([*edge.ball, edge.neighbours], want)


@pytest.mark.parametrize("options", tiers.quick(OPTIONS, "algorithm 1"))
@pytest.mark.parametrize("name", IN_FOUR_FEATURES)
def test_the_estimate_agrees_with_the_twin(name, options):
    x, y = sample(**SHAPES[name])
    given = OPTIONS[options]
    np.testing.assert_allclose(
        optax_mi.ksg(x, y, **given), twins.ksg(x, y, **given), rtol=1e-5, atol=2e-6
    )


@pytest.mark.parametrize("options", tiers.quick(OPTIONS, "algorithm 1"))
def test_it_is_symmetric(options):
    x, y = sample(N, 2, 2)
    estimate = partial(optax_mi.ksg, **OPTIONS[options])
    np.testing.assert_allclose(estimate(y, x), estimate(x, y), rtol=1e-6)


@pytest.mark.slow
def test_repeated_rows_count_as_a_discrete_channel():
    # 10 symbols through a channel that flips one in ten: ties everywhere.
    rng = np.random.default_rng(0)
    sent = rng.integers(0, 10, 2000)
    received = np.where(rng.random(2000) < 0.9, sent, rng.integers(0, 10, 2000))
    joint = np.histogram2d(sent, received, bins=10)[0] / 2000
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    used = joint > 0
    plug_in = np.sum(joint[used] * np.log(joint[used] / product[used]))
    # A pair seen at most k = 3 times finds its k-th neighbour in another cell, where
    # the strict counts of equation (8) read high.
    assert abs(optax_mi.ksg(sent, received) - plug_in) < 0.15


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros(5), np.zeros(4), {}, r"`y` must be as long as `x`, 5 .* got 4"),
        (np.zeros(3), np.zeros(3), {}, r"`k` .* less than .* 3, got 3"),
        (np.zeros(5), np.zeros(5), {"k": 0}, r"`k` .* at least 1"),
        (np.zeros(5), np.zeros(5), {"algorithm": 3}, r"`algorithm` .* 1, 2, got 3"),
        (np.zeros(5), np.zeros(5), {"metric": "max"}, r"`metric` .* got 'max'"),
    ],
)
def test_bad_input_is_refused_with_its_name(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.ksg(x, y, **options)


@pytest.mark.slow
def test_several_k_give_the_mean_of_their_estimates():
    x, y = sample(N, 2, 2)
    each = [optax_mi.ksg(x, y, k=k) for k in (3, 9)]
    np.testing.assert_allclose(optax_mi.ksg(x, y, k=(3, 9)), np.mean(each), 3e-6)


def test_gaussian_margins_undo_any_monotone_transform_of_the_features():
    x, y = sample(N, 2, 2)
    mi = optax_mi.ksg(x, y, margins="gaussian")
    transformed = optax_mi.ksg(np.exp(3 * x), np.arctan(y), margins="gaussian")
    np.testing.assert_allclose(transformed, mi, atol=1e-6)
    np.testing.assert_allclose(mi, optax_mi.ksg(x, y), atol=0.1)


def test_gaussian_margins_keep_ties():
    x = np.array([[3.0], [1.0], [3.0], [2.0]], np.float32)
    quantiles = np.asarray(_ksg.gaussian_margins(jnp.asarray(x)))[:, 0]
    np.testing.assert_allclose(quantiles, ndtri(np.array([6, 1, 6, 3]) / 8), rtol=1e-5)
