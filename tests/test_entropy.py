import jax
import numpy as np
import pytest
import tiers
import twins

import optax_mi


@pytest.mark.parametrize("classes", [1, 2, 10, 500])
def test_it_equals_the_twin(classes):
    labels = np.random.default_rng(0).integers(0, classes, 700) * 3 - 100
    np.testing.assert_allclose(
        optax_mi.label_entropy(labels), twins.label_entropy(labels), rtol=1e-5, atol=0
    )


def test_booleans_are_two_classes():
    assert optax_mi.label_entropy(np.arange(10) % 2 == 0) == pytest.approx(np.log(2))


def test_it_runs_under_vmap():
    labels = np.random.default_rng(0).integers(0, 3, (4, 50))
    np.testing.assert_allclose(
        jax.vmap(optax_mi.label_entropy)(labels),
        [twins.label_entropy(row) for row in labels],
        rtol=1e-5,
    )


def test_labels_that_are_not_integers_are_refused():
    with pytest.raises(ValueError, match="`labels` must be integer class labels"):
        optax_mi.label_entropy(np.zeros(5))


@pytest.mark.parametrize(
    "metric", tiers.quick(["euclidean", "manhattan", "chebyshev"], "euclidean")
)
@pytest.mark.parametrize("d", [1, 4, 30])
def test_the_entropy_of_points_equals_the_twin(d, metric):
    x = np.random.default_rng(0).normal(size=(211, d)).astype(np.float32) + 100
    np.testing.assert_allclose(
        optax_mi.knn_entropy(x, metric=metric),
        twins.knn_entropy(x, metric=metric),
        rtol=1e-5,
    )


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_the_entropy_of_points_of_known_density_at_any_scale(scale):
    x = np.float32(scale) * np.random.default_rng(0).normal(size=(3000, 2))
    truth = np.log(2 * np.pi * np.e) + 2 * np.log(scale)
    assert optax_mi.knn_entropy(x) == pytest.approx(truth, abs=0.08)


def test_repeated_points_have_no_density():
    assert optax_mi.knn_entropy(np.arange(40) // 10) == -np.inf
