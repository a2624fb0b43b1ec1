import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins
from scipy.special import ndtri

import optax_mi
from optax_mi._estimators import _ksg


def sample(n, d_x, d_y, seed=0, step=None):
    """Dependent Gaussians as float32, rounded to multiples of `step`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d_x))
    y = rng.normal(size=(n, d_y)) + x[:, :1]
    if step is not None:
        x, y = np.round(x / step) * step, np.round(y / step) * step
    return x.astype(np.float32), y.astype(np.float32)


OPTIONS = [
    (1, "chebyshev", 1),
    (1, "euclidean", 4),
    (2, "chebyshev", 4),
]

FEW = {
    "constant": dict(n=50, d_x=2, d_y=1, step=1000.0),
    "2 + 1": dict(n=200, d_x=2, d_y=1),
    "coarse": dict(n=200, d_x=2, d_y=1, step=0.5),
}

SHAPES = {
    "1 + 1": dict(n=300, d_x=1, d_y=1),
    "3 + 2, odd n": dict(n=211, d_x=3, d_y=2),
    "20 + 1": dict(n=200, d_x=20, d_y=1),
    "integers": dict(n=300, d_x=1, d_y=1, step=1.0),
}


@pytest.mark.parametrize(("algorithm", "metric", "k"), OPTIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_counts_equal_the_twins(shape, k, algorithm, metric):
    x, y = sample(**shape)
    counts = compiled.joint_counts(x, y, k=k, metric=metric, edges=algorithm == 2)
    coincident, expected = twins.joint_counts((x, y), ((0,), (1,)), k, metric)
    np.testing.assert_array_equal(counts.coincident, coincident)
    np.testing.assert_array_equal([counts.joint, *counts.near], expected)
    if algorithm == 2:
        for edge, want in zip(
            counts.edges, twins.rectangle_counts(x, y, k, metric), strict=True
        ):
            np.testing.assert_array_equal([*edge.near, edge.neighbours], want)


@pytest.mark.parametrize(("algorithm", "metric", "k"), OPTIONS)
@pytest.mark.parametrize("shape", FEW.values(), ids=FEW)
def test_the_estimate_agrees_with_the_twin(shape, k, algorithm, metric):
    x, y = sample(**shape)
    options = dict(k=k, algorithm=algorithm, metric=metric)
    np.testing.assert_allclose(
        optax_mi.ksg(x, y, **options),
        twins.ksg(x, y, **options),
        rtol=1e-5,
        atol=2e-6,
    )


@pytest.mark.parametrize("algorithm", [1, 2])
def test_it_is_symmetric_and_permutation_invariant(algorithm):
    x, y = sample(300, 2, 3)
    mi = optax_mi.ksg(x, y, algorithm=algorithm)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(optax_mi.ksg(y, x, algorithm=algorithm), mi, rtol=1e-6)
    np.testing.assert_allclose(
        optax_mi.ksg(x[order], y[order], algorithm=algorithm), mi, rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-4, 1e4, 2.0**100])
def test_the_scale_of_either_variable_does_not_matter(scale):
    x, y = sample(400, 1, 1)
    mi = optax_mi.ksg(x, y)
    scale = np.float32(scale)
    np.testing.assert_allclose(optax_mi.ksg(x * scale, y), mi, atol=1e-3)
    np.testing.assert_allclose(optax_mi.ksg(x, y * scale), mi, atol=1e-3)


def test_it_runs_without_jit():
    x, y = sample(40, 2, 1)
    plain = optax_mi.ksg(x, y)
    with jax.disable_jit():
        np.testing.assert_allclose(optax_mi.ksg(x, y, block_size=40), plain, rtol=1e-6)


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


def test_a_value_that_is_not_finite_gives_nan():
    x, y = sample(100, 1, 1)
    y[3] = np.nan
    assert np.isnan(optax_mi.ksg(x, y))


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


def test_several_k_give_the_mean_of_their_estimates():
    x, y = sample(300, 2, 2)
    each = [optax_mi.ksg(x, y, k=k) for k in (2, 5, 9)]
    np.testing.assert_allclose(optax_mi.ksg(x, y, k=(2, 5, 9)), np.mean(each), 1e-6)


def test_gaussian_margins_undo_any_monotone_transform_of_the_features():
    x, y = sample(500, 2, 1)
    mi = optax_mi.ksg(x, y, margins="gaussian")
    transformed = optax_mi.ksg(np.exp(3 * x), np.arctan(y), margins="gaussian")
    np.testing.assert_allclose(transformed, mi, atol=1e-6)
    np.testing.assert_allclose(mi, optax_mi.ksg(x, y), atol=0.1)


def test_gaussian_margins_keep_ties():
    x = np.array([[3.0], [1.0], [3.0], [2.0]], np.float32)
    quantiles = np.asarray(_ksg.gaussian_margins(jnp.asarray(x)))[:, 0]
    np.testing.assert_allclose(quantiles, ndtri(np.array([6, 1, 6, 3]) / 8), rtol=1e-5)
