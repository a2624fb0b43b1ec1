"""What every estimator owes its users, whatever it computes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiers

import optax_mi

KEY = jax.random.key(0)
N = 120
SHORT = dict(steps=20, batch_size=32)


def bound(x, labels, **options):
    return optax_mi.pairwise_distance_bounds(x, labels, noise=1.0, **options).lower


CONTINUOUS = {
    "ksg": optax_mi.ksg,
    "ksg 2": partial(optax_mi.ksg, algorithm=2),
    "ksg euclidean": partial(optax_mi.ksg, metric="euclidean"),
    "ksg of margins": partial(optax_mi.ksg, margins="gaussian"),
    "ksg_mixed": optax_mi.ksg_mixed,
    "conditional_ksg": lambda x, y, **o: optax_mi.ksg_conditional(x, y, -x[:, 1:], **o),
    "mine": lambda x, y: optax_mi.mine(KEY, x, y, **SHORT).mi,
    "info_nce": lambda x, y: optax_mi.info_nce(KEY, x, y, **SHORT).mi,
}
DISCRETE = {"ksg_discrete": optax_mi.ksg_discrete, "bounds": bound}
LABELS = {"discrete_mi": optax_mi.plug_in_mi}
NEURAL = ["mine", "info_nce"]
NEIGHBOURS = [n for n in [*CONTINUOUS, *DISCRETE] if n not in [*NEURAL, "bounds"]]
EVERY = {**CONTINUOUS, **DISCRETE, **LABELS}
POINTS = [*CONTINUOUS, *DISCRETE]
# Those that take a block size and do not train.
IN_BLOCKS = [*NEIGHBOURS, "bounds"]
ONE_OF_EACH = ["ksg", "ksg_discrete", "bounds"]


def arguments(name, d=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, N)
    x = (rng.normal(size=(N, d)) + labels[:, None]).astype(np.float32)
    if name in LABELS:
        return labels, (labels + rng.integers(0, 2, N)) % 3
    if name in DISCRETE:
        return x, labels
    return x, x[:, :1] + rng.normal(size=(N, 1)).astype(np.float32)


@pytest.mark.parametrize("name", tiers.quick(EVERY, "ksg_discrete"))
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ksg_discrete", "ksg"])
def test_it_runs_without_jit(name):
    x, y = (array[:16] for array in arguments(name))
    plain = EVERY[name](x, y)
    with jax.disable_jit():
        mi = EVERY[name](x, y, block_size=16)
    np.testing.assert_allclose(mi, plain, rtol=1e-5)


@pytest.mark.parametrize("name", tiers.quick(POINTS, *ONE_OF_EACH))
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    x, y = arguments(name)
    half = jnp.asarray(x, dtype)
    mi = EVERY[name](half, y)
    assert mi.dtype == jnp.float32
    np.testing.assert_allclose(mi, EVERY[name](half.astype(jnp.float32), y), rtol=1e-5)


@pytest.mark.parametrize("name", tiers.quick(EVERY, "ksg_discrete"))
def test_float64_is_kept_under_x64_and_says_the_same(name, request):
    x, y = arguments(name)
    single = EVERY[name](x, y)
    request.getfixturevalue("x64")
    if name not in LABELS:
        x = x.astype(np.float64)
    y = y.astype(np.float64) if y.dtype == np.float32 else y
    double = EVERY[name](x, y)
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, single, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ksg", "ksg_discrete", "bounds", "mine"])
def test_float32_is_kept_under_x64(name, request):
    x, y = arguments(name)
    plain = EVERY[name](x, y)
    request.getfixturevalue("x64")
    mi = EVERY[name](x, y)
    assert mi.dtype == jnp.float32
    np.testing.assert_allclose(mi, plain, atol=1e-4)


@pytest.mark.parametrize("block_size", [13, 500])
@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("ksg_discrete", 3),
        pytest.param("ksg_discrete", 30, marks=pytest.mark.slow),
        *[
            pytest.param(name, 3, marks=pytest.mark.slow)
            for name in IN_BLOCKS
            if name not in ("ksg_discrete", "ksg euclidean")
        ],
        pytest.param("ksg euclidean", 30, marks=pytest.mark.slow),
    ],
)
def test_any_block_size_gives_the_same_result(name, d, block_size):
    x, y = arguments(name, d=d)
    np.testing.assert_allclose(
        EVERY[name](x, y, block_size=block_size), EVERY[name](x, y), rtol=1e-6
    )


@pytest.mark.parametrize("name", tiers.quick(IN_BLOCKS, *ONE_OF_EACH))
def test_the_order_of_the_samples_does_not_matter(name):
    x, y = arguments(name)
    order = np.random.default_rng(2).permutation(len(x))
    np.testing.assert_allclose(
        EVERY[name](x[order], y[order]), EVERY[name](x, y), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_are_checked(name):
    x, y = arguments(name)
    for options, message in [
        ({"k": 0}, "`k` must be at least 1, got 0"),
        ({"k": N}, "`k` must be less than the number of samples, 120, got 120"),
        ({"metric": "cosine"}, "`metric` must be one of 'euclidean'"),
        ({"block_size": 0}, "`block_size` must be an integer >= 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            EVERY[name](x, y, **options)
