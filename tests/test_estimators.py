"""What every estimator owes its users, whatever it computes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

KEY = jax.random.key(0)
SHORT = dict(steps=20, batch_size=32)


def bound(x, labels, **options):
    return optax_mi.pairwise_distance_bounds(x, labels, noise=1.0, **options).lower


CONTINUOUS = {
    "ksg": optax_mi.ksg,
    "ksg 2": partial(optax_mi.ksg, algorithm=2),
    "ksg euclidean": partial(optax_mi.ksg, metric="euclidean"),
    "ksg of margins": partial(optax_mi.ksg, margins="gaussian"),
    "ksg_mixed": optax_mi.ksg_mixed,
    "conditional_ksg": lambda x, y, **o: optax_mi.conditional_ksg(x, y, -x[:, 1:], **o),
    "mine": lambda x, y: optax_mi.mine(KEY, x, y, **SHORT).mi,
    "info_nce": lambda x, y: optax_mi.info_nce(KEY, x, y, **SHORT).mi,
}
DISCRETE = {"ksg_discrete": optax_mi.ksg_discrete, "bounds": bound}
LABELS = {"discrete_mi": optax_mi.discrete_mi}
NEURAL = ["mine", "info_nce"]
NEIGHBOURS = [n for n in [*CONTINUOUS, *DISCRETE] if n not in [*NEURAL, "bounds"]]
EVERY = {**CONTINUOUS, **DISCRETE, **LABELS}


def arguments(name, n=120, d=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = (rng.normal(size=(n, d)) + labels[:, None]).astype(np.float32)
    if name in LABELS:
        return labels, (labels + rng.integers(0, 2, n)) % 3
    if name in DISCRETE:
        return x, labels
    return x, x[:, :1] + rng.normal(size=(n, 1)).astype(np.float32)


@pytest.mark.parametrize("name", EVERY)
def test_jit_vmap_scan_and_cond_agree_with_a_plain_call(name):
    estimator = EVERY[name]
    first, second = arguments(name), arguments(name, seed=1)
    plain = np.array([estimator(*first), estimator(*second)])
    x, y = (jnp.stack(pair) for pair in zip(first, second, strict=True))
    # Training amplifies the rounding of batched products.
    tolerance = 2e-3 if name in NEURAL else 1e-5
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=tolerance)
    close(jax.vmap(estimator)(x, y), plain)

    def where_due(pair):
        return jax.lax.cond(
            jnp.all(pair[0] == pair[0]), estimator, lambda *_: jnp.float32(0), *pair
        )

    close(jax.jit(lambda *pairs: jax.lax.map(where_due, pairs))(x, y), plain)


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    x, y = arguments(name)
    half = jnp.asarray(x, dtype)
    mi = EVERY[name](half, y)
    assert mi.dtype == jnp.float32
    np.testing.assert_allclose(mi, EVERY[name](half.astype(jnp.float32), y), rtol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_float64_is_kept_under_x64_and_says_the_same(name, x64):
    x, y = arguments(name)
    mi = EVERY[name](x, y)
    if name not in LABELS:
        x = x.astype(np.float64)
    y = y.astype(np.float64) if y.dtype == np.float32 else y
    double = EVERY[name](x, y)
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, mi, atol=1e-4)


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_gives_nan_rather_than_a_number(name, bad):
    x, y = arguments(name)
    x[7, 1] = bad
    assert np.isnan(EVERY[name](x, y))


@pytest.mark.parametrize("name", [*NEIGHBOURS, "bounds"])
@pytest.mark.parametrize("block_size", [13, 500])
def test_any_block_size_gives_the_same_result(name, block_size):
    x, y = arguments(name)
    np.testing.assert_allclose(
        EVERY[name](x, y, block_size=block_size), EVERY[name](x, y), rtol=1e-6
    )


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_smallest_sample_and_constant_data_give_finite_numbers(name):
    x, y = arguments(name, n=4)
    assert np.isfinite(EVERY[name](x, y, k=3))
    x, y = arguments(name)
    assert np.isfinite(EVERY[name](np.zeros_like(x), y))


@pytest.mark.parametrize("name", [*NEIGHBOURS, "bounds"])
def test_the_order_of_the_samples_does_not_matter(name):
    x, y = arguments(name)
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_allclose(
        EVERY[name](x[order], y[order]), EVERY[name](x, y), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_scale_does_not_matter(name, scale):
    x, y = arguments(name)
    np.testing.assert_allclose(
        EVERY[name](np.float32(scale) * x, y), EVERY[name](x, y), atol=2e-3
    )


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_checked(name):
    x, y = arguments(name)
    for options, message in [
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"k": 120}, "`k` must be less than the number of samples, 120, got 120"),
        ({"metric": "cosine"}, "`metric` must be one of 'euclidean'"),
        ({"block_size": 0}, "`block_size` must be an integer >= 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            EVERY[name](x, y, **options)
