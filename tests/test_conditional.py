import numpy as np
import pytest
import tiers
import twins

import optax_mi


def chain(n, seed, noise=0.5):
    z, a, b = np.random.default_rng(seed).normal(size=(3, n))
    return z + noise * a, z + noise * b, z


@pytest.mark.parametrize(
    "metric", tiers.quick(["chebyshev", "euclidean", "manhattan"], "chebyshev")
)
@pytest.mark.parametrize("step", [None, 1.0])
def test_it_equals_the_twin(step, metric):
    x, y, z = (np.asarray(v, np.float32) for v in chain(300, 0))
    x = np.stack([x, y**2], axis=1)
    if step:
        x, y, z = (np.round(v / step) * step for v in (x, y, z))
    np.testing.assert_allclose(
        optax_mi.conditional_ksg(x, y, z, metric=metric),
        twins.conditional_ksg(x, y, z, metric=metric),
        rtol=1e-5,
        atol=2e-6,
    )


def test_a_value_of_z_that_is_not_finite_gives_nan():
    x, y, z = (np.asarray(v, np.float32) for v in chain(300, 0))
    z[7] = np.inf
    assert np.isnan(optax_mi.conditional_ksg(np.stack([x, y], axis=1), y, z))


@pytest.mark.slow
def test_a_wide_known_variable_equals_the_twin():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 40)).astype(np.float32)
    x, y = (z[:, :1] + rng.normal(size=(150, 1)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(
        optax_mi.conditional_ksg(x, y, z, metric="euclidean"),
        twins.conditional_ksg(x, y, z, metric="euclidean"),
        rtol=1e-5,
        atol=2e-6,
    )


@pytest.mark.slow
def test_what_two_variables_share_is_gone_where_it_is_known():
    x, y, z = chain(2000, 0)
    assert optax_mi.ksg(x, y) > 0.45
    assert abs(optax_mi.conditional_ksg(x, y, z)) < 0.05


@pytest.mark.slow
def test_gaussians_of_known_conditional_information():
    x, y, z = chain(2000, 1)
    y = y + 0.5 * (x - z)  # given z: correlation of a and b + a / 2
    rho = 0.5 / np.sqrt(1.25)
    truth = -0.5 * np.log(1 - rho**2)
    assert optax_mi.conditional_ksg(x, y, z) == pytest.approx(truth, abs=0.06)


@pytest.mark.slow
def test_the_chain_rule():
    x, y, z = chain(2000, 2)
    together = optax_mi.ksg(np.stack([y, z], axis=1), x)
    parts = optax_mi.ksg(z, x) + optax_mi.conditional_ksg(x, y, z)
    np.testing.assert_allclose(together, parts, atol=0.05)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="`z` must be as long as `x`, 5 samples"):
        optax_mi.conditional_ksg(np.zeros(5), np.zeros(5), np.zeros(6))
