"""Digammas of numbers of points against SciPy's."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from optax_mi._estimators import _psi


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-10)]
)
def test_digammas_are_right(dtype, tolerance, request):
    if dtype is np.float64:
        request.getfixturevalue("x64")
    whole = np.concatenate([np.arange(1, 2000), [10**4, 10**5, 10**6, 10**7]])
    between = np.random.default_rng(0).uniform(1, 500, 2000)
    x = np.concatenate([whole, between]).astype(dtype)
    found = np.asarray(_psi.digamma(jnp.asarray(x)))
    curved = np.asarray(_psi.second_derivative(jnp.asarray(x)))
    assert found.dtype == curved.dtype == dtype
    truth, curve = (
        special.digamma(x.astype(float)),
        special.polygamma(2, x.astype(float)),
    )
    np.testing.assert_allclose(found, truth, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(curved, curve, rtol=10 * tolerance)
