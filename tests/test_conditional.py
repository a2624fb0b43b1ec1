from typing import Any

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
        optax_mi.ksg_conditional(x, y, z, metric=metric),
        twins.ksg_conditional(x, y, z, metric=metric),
        rtol=1e-5,
        atol=2e-6,
    )


def test_a_value_of_z_that_is_not_finite_gives_nan():
    x, y, z = (np.asarray(v, np.float32) for v in chain(300, 0))
    z[7] = np.inf
    assert np.isnan(optax_mi.ksg_conditional(np.stack([x, y], axis=1), y, z))


@pytest.mark.slow
def test_a_wide_known_variable_equals_the_twin():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 40)).astype(np.float32)
    x, y = (z[:, :1] + rng.normal(size=(150, 1)).astype(np.float32) for _ in range(2))
    np.testing.assert_allclose(
        optax_mi.ksg_conditional(x, y, z, metric="euclidean"),
        twins.ksg_conditional(x, y, z, metric="euclidean"),
        rtol=1e-5,
        atol=2e-6,
    )


@pytest.mark.slow
def test_what_two_variables_share_is_gone_where_it_is_known():
    x, y, z = chain(2000, 0)
    assert optax_mi.ksg(x, y) > 0.45
    assert abs(optax_mi.ksg_conditional(x, y, z)) < 0.05


@pytest.mark.slow
def test_gaussians_of_known_conditional_information():
    x, y, z = chain(2000, 1)
    y = y + 0.5 * (x - z)  # given z: correlation of a and b + a / 2
    rho = 0.5 / np.sqrt(1.25)
    truth = -0.5 * np.log(1 - rho**2)
    assert optax_mi.ksg_conditional(x, y, z) == pytest.approx(truth, abs=0.06)


@pytest.mark.slow
def test_the_chain_rule():
    x, y, z = chain(2000, 2)
    together = optax_mi.ksg(np.stack([y, z], axis=1), x)
    parts = optax_mi.ksg(z, x) + optax_mi.ksg_conditional(x, y, z)
    np.testing.assert_allclose(together, parts, atol=0.05)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="`z` must be as long as `x`, 5 samples"):
        optax_mi.ksg_conditional(np.zeros(5), np.zeros(5), np.zeros(6))


def grouped(n=300, groups=12, seed=0):
    """Continuous x, y and z, and classes that x and y depend on."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, groups, n)
    labels[:3] = [groups, groups + 1, groups + 1]  # alone, and two
    x, y, z = rng.normal(size=(3, n))
    return x + labels % 3, y + 0.5 * x + labels % 2, z + x, labels


@pytest.mark.parametrize("metric", ["chebyshev", "euclidean", "manhattan"])
@pytest.mark.parametrize("classes", ["z", "y", "x", "xz", "yz"])
def test_classes_equal_the_twin(classes, metric):
    x, y, z, labels = grouped()
    given: list[Any] = [
        np.float32(x),
        np.float32(np.stack([y, y**2], axis=1)),
        np.float32(z),
    ]
    for i, name in enumerate("xyz"):
        if name in classes:
            given[i] = labels if i == 2 else labels % 5
    found = optax_mi.ksg_conditional(*given, metric=metric)
    expected = twins.conditional_of_classes(*given, metric=metric)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_given_classes_it_is_the_mean_over_them():
    x, y, _, labels = grouped(seed=1)
    labels[:3] = 0
    given = optax_mi.ksg_conditional(x, y, labels)
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    within = [float(optax_mi.ksg(x[g], y[g])) for g in groups]
    # Each group by its own spread there, all groups by one here.
    assert given == pytest.approx(
        np.average(within, weights=[len(g) for g in groups]), abs=0.1
    )
    codes = labels[:, None] == np.unique(labels)
    coded = optax_mi.ksg_conditional(x, y, 1e6 * codes)
    assert given == pytest.approx(float(coded), abs=0.1)


@pytest.mark.slow
def test_independent_measurements_of_a_hundred_groups_share_nothing_in_a_group():
    rng = np.random.default_rng(100)
    z = rng.integers(0, 100, 2000)
    means = rng.normal(0, 3, (2, 100))
    x, y = means[:, z] + rng.normal(size=(2, 2000))
    assert abs(optax_mi.ksg_conditional(x, y, z)) < 0.05
    x, y = x - 0.9 * means[0, z], y - 0.9 * means[1, z]  # as spread within as between
    found = optax_mi.ksg_conditional(x, x + y, z % 10)
    assert found == pytest.approx(0.5 * np.log(2), abs=0.06)


@pytest.mark.slow
def test_known_information_about_classes_given_a_number():
    rng = np.random.default_rng(0)
    z, noise = rng.normal(size=(2, 3000))
    coin = rng.integers(0, 2, 3000)
    # z alone tells nothing of the coin; x tells it from z.
    x = z + np.where(coin, 5.0, 0.0) + 0.1 * noise
    assert optax_mi.ksg_conditional(x, coin, z) == pytest.approx(np.log(2), abs=0.03)
    # What x says of the class, z says as well.
    classes = (z > 0).astype(int)
    assert abs(optax_mi.ksg_conditional(z + 0.1 * noise, classes, z)) < 0.03


def test_classes_alone_come_to_the_table_of_frequencies():
    rng = np.random.default_rng(0)
    z = rng.integers(0, 2, 2000)
    x = (z + (rng.random(2000) < 0.3)) % 3
    y = (x + (rng.random(2000) < 0.2)) % 3
    parts = [np.mean(z == c) * twins.plug_in_mi(x[z == c], y[z == c]) for c in (0, 1)]
    assert optax_mi.ksg_conditional(x, y, z) == pytest.approx(sum(parts), abs=0.005)


def test_of_classes_that_are_all_alone_there_is_no_estimate():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert np.isnan(optax_mi.ksg_conditional(x, y, np.arange(30)))


def test_integers_of_several_columns_are_numbers():
    x, y, z = grouped()[:3]
    z = np.round(3 * np.stack([z, x], axis=1)).astype(int)
    found = optax_mi.ksg_conditional(x, y, z)
    assert found == optax_mi.ksg_conditional(x, y, z.astype(float))
