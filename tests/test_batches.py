"""A probe that runs through the model in batches: the same values, in less memory."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_mi
from optax_mi import _batches

N = 23
X = np.random.default_rng(0).normal(size=(N, 8, 8, 1)).astype(np.float32)
PLACES = {"on the host": np.asarray, "on the device": jnp.asarray}


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = nn.BatchNorm(use_running_average=not train)(x)
        self.sow("intermediates", "pooled", x.mean((1, 2)))
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return {"logits": nn.Dense(3)(x), "x": x}


class NNX(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(384, 3, rngs=rngs)

    def __call__(self, x):
        x = self.drop(self.norm(self.conv(x)).reshape(len(x), -1))
        return self.dense(x)


def linen(x, **options):
    variables = CNN().init(jax.random.key(0), X[:2], train=False)
    return optax_mi.capture_activations(CNN(), variables, x, train=False, **options)


def of_nnx(x, **options):
    return optax_mi.capture_activations(NNX(), None, x, **options)


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("capture", [linen, of_nnx])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("size", [1, 10, 22, 23, 100])
def test_the_values_are_those_of_all_examples_at_once(capture, place, size):
    expected = capture(jnp.asarray(X))
    same(capture(place(X), batch_size=size), expected)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_wide_layers_are_projected_likewise(place):
    options = {"layers": ["Conv_0", "logits"], "max_features": 16}
    expected = linen(jnp.asarray(X), **options)
    assert expected["Conv_0"].shape == (N, 16)
    same(linen(place(X), batch_size=10, **options), expected)


def test_it_runs_in_a_compiled_measurement():
    variables = CNN().init(jax.random.key(0), X[:2], train=False)

    def measured(variables, x, batch_size):
        return optax_mi.capture_activations(
            CNN(), variables, x, train=False, batch_size=batch_size
        )

    compiled = jax.jit(measured, static_argnames="batch_size")
    same(compiled(variables, X, 5), compiled(variables, X, None))


class Table(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("intermediates", "table", jnp.ones((10, 2)))
        return nn.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_is_as_long_as_a_batch_is_not_taken_for_examples(place):
    variables = Table().init(jax.random.key(0), X)
    found = optax_mi.capture_activations(Table(), variables, place(X), batch_size=10)
    assert list(found) == ["Dense_0", ""]


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_second_measurement_compiles_nothing(place):
    linen(place(X), batch_size=10)
    programs = _batches._one._cache_size(), _batches._in_a_loop._cache_size()
    linen(place(X + 1), batch_size=10)
    assert programs == (_batches._one._cache_size(), _batches._in_a_loop._cache_size())


def test_arrays_among_the_arguments_pass_through():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x, scale, *, shift):
            return scale * x + shift

    found = optax_mi.capture_activations(
        Scaled(), {}, X, jnp.float32(2), shift=jnp.float32(1), batch_size=10
    )
    np.testing.assert_allclose(found[""], 2 * X + 1, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [0, 2.5, -1])
def test_a_bad_size_is_refused(batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        linen(X, batch_size=batch_size)


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(4):
            x = nn.Dense(4096)(x)
        return nn.Dense(3)(x)


def memory(batch_size):
    """Bytes that XLA needs beside what goes in and comes out."""
    x = jnp.ones((2000, 16))
    variables = jax.eval_shape(Wide().init, jax.random.key(0), x[:1])

    def measured(variables, x):
        return optax_mi.capture_activations(
            Wide(), variables, x, max_features=8, batch_size=batch_size
        )

    analysis = jax.jit(measured).lower(variables, x).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_memory_is_that_of_one_batch():
    layer = 4 * 4096 * 2000
    assert memory(None) > layer
    assert memory(100) < layer / 4


class Listed(nn.Module):
    sizes: list[int]

    @nn.compact
    def __call__(self, x, y=None):
        for size in self.sizes:
            x = nn.Dense(size)(x.reshape(len(x), -1))
        return x if y is None else x + y


def test_a_model_with_a_list_compiles_once_as_well():
    model = Listed([4, 3])
    variables = model.init(jax.random.key(0), X)
    expected = optax_mi.capture_activations(model, variables, X)
    before = _batches._one._cache_size()
    for _ in range(3):
        same(optax_mi.capture_activations(model, variables, X, batch_size=10), expected)
    assert _batches._one._cache_size() == before + 1
    within = jax.jit(
        lambda v, x: optax_mi.capture_activations(model, v, x, batch_size=10)
    )
    same(dict(sorted(within(variables, X).items())), dict(sorted(expected.items())))


def test_several_inputs_pass_in_batches_as_one():
    model, y = Listed([4, 3]), np.ones((N, 3), np.float32)
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="`args` must be no array of examples where"):
        optax_mi.capture_activations(model, variables, X, y, batch_size=10)
    expected = optax_mi.capture_activations(model, variables, X, y)
    found = optax_mi.capture_activations(
        model, variables, (X, y), batch_size=10, method=lambda m, x: m(x[0], x[1])
    )
    same(found, expected)
