import jax
import numpy as np
import pytest
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
