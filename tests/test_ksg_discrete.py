import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiers
import twins
from scipy.special import digamma

import optax_mi

N = 300


def sample(n, d, classes, seed=0, step=None, shift=0.5):
    """Class-dependent Gaussians as float32, rounded to multiples of `step`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) + shift * labels[:, None]
    if step is not None:
        x = np.round(x / step) * step
    return x.astype(np.float32), labels


# Those of one shape share their programs.
SHAPES = {
    "one feature": dict(n=N, d=1, classes=3),
    "odd n": dict(n=311, d=5, classes=4),
    "exact binary steps": dict(n=311, d=5, classes=5, step=0.25),
    "looped features": dict(n=N, d=40, classes=5),
    "rare classes": dict(n=N, d=3, classes=200),
    "integers": dict(n=N, d=3, classes=4, step=1.0),
    "all tied": dict(n=N, d=3, classes=3, step=100.0),
}
OPTIONS = {"euclidean": 3, "chebyshev": 1, "manhattan": 7}  # k


@pytest.mark.parametrize("metric", tiers.quick(OPTIONS, "euclidean"))
@pytest.mark.parametrize("name", SHAPES)
def test_counts_equal_the_twins(name, metric):
    (x, labels), k = sample(**SHAPES[name]), OPTIONS[metric]
    counts = compiled.discrete_counts(x, labels, k=k, metric=metric)
    expected = twins.discrete_counts(x, labels, k, metric)
    has_neighbour = expected[1] > 0
    for field, got, want in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(
            np.asarray(got)[has_neighbour], want[has_neighbour], err_msg=field
        )


@pytest.mark.parametrize("metric", tiers.quick(OPTIONS, "euclidean"))
@pytest.mark.parametrize("name", ["integers", "rare classes"])
def test_the_estimate_agrees_with_the_twin(name, metric):
    (x, labels), k = sample(**SHAPES[name]), OPTIONS[metric]
    np.testing.assert_allclose(
        optax_mi.ksg_discrete(x, labels, k=k, metric=metric),
        twins.ksg_discrete(x, labels, k, metric),
        rtol=1e-5,
        atol=2e-6,  # float32 digamma of n, where the information itself is near zero
    )


def test_without_ties_it_is_ross():
    x, labels = sample(N, 3, 4)
    mi = optax_mi.ksg_discrete(x, labels, scaling="none")
    np.testing.assert_allclose(mi, twins.ross(x, labels), rtol=1e-5)


def test_float64_agrees_to_ten_digits(x64):
    x, labels = sample(N, 3, 4, step=0.5)
    mi = optax_mi.ksg_discrete(x.astype(np.float64), labels)
    assert mi.dtype == jnp.float64
    np.testing.assert_allclose(mi, twins.ksg_discrete(x, labels), rtol=1e-10)


def test_classes_may_be_renamed():
    x, labels = sample(N, 3, 4, step=0.5)
    renamed = np.array([7, -2, 2**31 - 1, 0])[labels]
    assert optax_mi.ksg_discrete(x, renamed) == optax_mi.ksg_discrete(x, labels)


def test_gradients_are_zero():
    x, labels = sample(N, 3, 3)
    gradient = jax.grad(lambda x: optax_mi.ksg_discrete(x, labels))(x)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.uint8, np.int32, bool])
def test_narrow_and_integer_points_are_computed_in_float32(dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N)
    x = (rng.integers(0, 100, (N, 3)) + 100 * labels[:, None]).astype(dtype)
    mi = optax_mi.ksg_discrete(x, labels)
    assert mi.dtype == jnp.float32
    assert mi == optax_mi.ksg_discrete(np.asarray(x, np.float32), labels)


def test_trailing_axes_are_features():
    x, labels = sample(N, 40, 3)
    assert optax_mi.ksg_discrete(
        x.reshape(N, 2, 5, 4), labels
    ) == optax_mi.ksg_discrete(x, labels)


def test_an_enormous_outlier_leaves_the_others_distinct():
    x, labels = sample(N, 3, 4)
    x[0] = 1e25
    np.testing.assert_allclose(
        optax_mi.ksg_discrete(x, labels),
        twins.ksg_discrete(x, labels),
        rtol=1e-5,
    )


def test_a_class_of_one_is_left_out_of_the_mean_but_counted_as_a_neighbour():
    x = np.array([[0.0], [1.0], [1.1], [2.0], [3.0], [3.1]], np.float32)
    labels = np.array([0, 0, 5, 0, 1, 1])
    assert twins.discrete_counts(x, labels, 1)[1].tolist() == [1, 1, 0, 1, 1, 1]
    np.testing.assert_allclose(
        optax_mi.ksg_discrete(x, labels, k=1),
        twins.ksg_discrete(x, labels, 1),
        rtol=1e-5,
    )


def test_classes_no_larger_than_k_use_all_their_members():
    x, labels = sample(N, 3, 2)
    labels[:2], labels[2:5], labels[5:9] = 10, 11, 12  # of size 2, 3 and 4 for k = 3
    assert set(twins.discrete_counts(x, labels)[1][:9]) == {1, 2, 3}
    np.testing.assert_allclose(
        optax_mi.ksg_discrete(x, labels), twins.ksg_discrete(x, labels), rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("informative", [False, True])
def test_fifty_thousand_tokens_most_of_them_rarer_than_k(informative):
    """What is said about a group of tokens is said about each token, however rare."""
    rng, tokens = np.random.default_rng(0), np.arange(50_000)
    frequency = 1 / (tokens + 1)  # Zipf's law
    frequency /= frequency.sum()
    labels = rng.choice(tokens, size=4000, p=frequency)
    corner = np.stack([labels % 2, labels // 2 % 2], axis=1)
    x = rng.normal(size=(4000, 4))
    if informative:
        x[:, :2] += 8 * corner
    groups = np.bincount(tokens % 4, weights=frequency)
    truth = -(groups * np.log(groups)).sum() if informative else 0
    _, own, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    assert (sizes <= 3).mean() > 0.9
    assert 2400 < optax_mi.usable_points(labels) == sizes[sizes > 1].sum() < 2600
    # The spread of a feature is what tells here, as in a layer.
    mi = optax_mi.ksg_discrete(x, labels, scaling="variable")
    np.testing.assert_allclose(mi, truth, atol=0.05)
    if informative:
        assert truth == pytest.approx(1.38, abs=0.01)  # of 7.6 nats in the tokens
        merged = np.where(sizes[own] > 3, labels, -1)
        assert optax_mi.ksg_discrete(x, merged) < 0.75  # and so they stay apart


@pytest.mark.slow
def test_outcomes_say_about_themselves_what_no_layer_can_exceed():
    rng = np.random.default_rng(0)
    labels = rng.zipf(1.1, size=1000) % 50_000
    sizes = np.bincount(labels)[labels]
    bound = (digamma(1000) - digamma(sizes))[sizes > 1].mean()
    np.testing.assert_allclose(optax_mi.ksg_discrete(labels, labels), bound, rtol=1e-4)
    far_apart = rng.normal(size=(50_000, 20))[labels]
    noise = 0.01 * rng.normal(size=(1000, 20))
    assert 0.9 * bound < optax_mi.ksg_discrete(far_apart + noise, labels) <= bound
    assert bound < 0.8 * optax_mi.label_entropy(labels)


@pytest.mark.slow
def test_pairs_told_apart_read_psi_n_minus_psi_2():
    labels = np.concatenate([np.arange(300), np.arange(300, 400).repeat(2)])
    x = np.eye(400)[labels] + 1e-6 * np.random.default_rng(0).normal(size=(500, 400))
    mi = optax_mi.ksg_discrete(x, labels)
    np.testing.assert_allclose(mi, digamma(500) - digamma(2), rtol=1e-4)
    assert optax_mi.usable_points(labels) == 200
    assert optax_mi.usable_points(np.arange(5)) == 0


def test_only_classes_of_one_give_nan():
    assert np.isnan(optax_mi.ksg_discrete(np.arange(10.0), np.arange(10)))


def test_n_equal_to_k_plus_one_works():
    mi = optax_mi.ksg_discrete(np.arange(4.0), np.array([0, 0, 1, 1]), k=3)
    np.testing.assert_allclose(
        mi, twins.ksg_discrete(np.arange(4.0), np.array([0, 0, 1, 1]), 3), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("x", "labels", "options", "message"),
    [
        (np.zeros((5, 2)), np.zeros(4, int), {}, r"`labels` .* as `x`, 5 .* got 4"),
        (np.zeros((3, 2)), np.zeros(3, int), {}, r"`k` .* less than .* 3, got 3"),
        (np.zeros((5, 2)), np.zeros(5, int), {"k": 0}, r"`k` .* at least 1, got 0"),
        (np.zeros((5, 2)), np.zeros(5, int), {"k": 2.0}, r"`k` .* Python integer"),
        (np.zeros((5, 2)), np.zeros((5, 3), int), {}, r"`labels` .* \(5, 3\)"),
        (np.zeros((5, 2)), np.zeros(5), {}, r"`labels` .* integer .* float"),
        (np.float32(0), np.zeros(5, int), {}, r"`x` .* a scalar"),
        (np.zeros((5, 0)), np.zeros(5, int), {}, r"`x` .* non-empty"),
        (np.zeros((5, 2), complex), np.zeros(5, int), {}, r"`x` .* real"),
        (np.zeros((5, 2)), np.full(5, 2**40), {}, r"`labels` .* int32 range"),
        (np.zeros((5, 2)), np.zeros(5, int), {"metric": "l1"}, r"`metric` .* 'l1'"),
        (np.zeros((5, 2)), np.zeros(5, int), {"block_size": 0}, r"`block_size` .* 0"),
    ],
)
def test_bad_input_is_refused_with_its_name(x, labels, options, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.ksg_discrete(x, labels, **options)


def test_bad_shapes_are_refused_under_jit_too():
    with pytest.raises(ValueError, match="`labels` must be as long as `x`"):
        jax.jit(optax_mi.ksg_discrete)(jnp.zeros((5, 2)), jnp.zeros(4, int))
