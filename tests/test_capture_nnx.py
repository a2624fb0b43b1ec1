"""Activations of NNX models, by the paths of their modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_mi


class Block(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        hidden = self.dense(x)
        self.sow(nnx.Intermediate, "hidden", hidden)
        return nnx.relu(self.dense(hidden))


class Narrow(Block):
    """Inherits its call."""


class Model(nnx.Module):
    def __init__(self, rngs):
        self.block = Narrow(rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu)

    def __call__(self, x, *, scale=1.0):
        return scale * self.head(self.dropout(self.norm(self.block(x))))


@pytest.fixture
def model():
    return Model(nnx.Rngs(0))


X = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4)), jnp.float32)


def test_modules_and_sown_values_are_named_by_their_paths(model):
    found = optax_mi.capture_activations(model, None, X)
    assert {name: a.shape for name, a in found.items()} == {
        "block/dense/0": (7, 4),
        "block/dense/1": (7, 4),
        "block/hidden": (7, 4),
        "block": (7, 4),
        "norm": (7, 4),
        "dropout": (7, 4),
        "head/layers/0": (7, 8),
        "head": (7, 8),
        "": (7, 8),
    }
    hidden = model.block.dense(X)
    np.testing.assert_array_equal(found["block/hidden"], hidden)
    np.testing.assert_array_equal(found["block/dense/0"], hidden)
    np.testing.assert_allclose(found["block"], nnx.relu(model.block.dense(hidden)))


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")  # of the plain call
def test_the_model_is_run_in_evaluation_mode_and_left_as_it_was(model):
    before = jax.tree.map(jnp.copy, nnx.state(model))
    kind = type(model.block)
    found = optax_mi.capture_activations(model, None, X, scale=2.0)
    for have, want in zip(
        jax.tree.leaves(nnx.state(model)), jax.tree.leaves(before), strict=True
    ):
        assert jnp.all(have == want)
    assert type(model.block) is kind
    assert not model.dropout.deterministic
    np.testing.assert_array_equal(found["dropout"], found["norm"])
    model.eval()
    np.testing.assert_allclose(found[""], model(X, scale=2.0), rtol=1e-6)


def test_it_runs_compiled_and_keeps_the_layers_asked_for(model):
    names = ["block/hidden", "head/layers/0"]

    @jax.jit
    def functional(state):
        merged = nnx.merge(nnx.graphdef(model), state)
        return optax_mi.capture_activations(merged, None, X, layers=names)

    @nnx.jit
    def stateful(model):
        return optax_mi.capture_activations(model, None, X, layers=names)

    plain = optax_mi.capture_activations(model, None, X)
    for found in (functional(nnx.state(model)), stateful(model)):
        assert sorted(found) == names
        for name, array in found.items():
            np.testing.assert_allclose(array, plain[name], rtol=1e-5)


def test_transformed_modules_leak_no_tracers():
    class Rematerialised(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            return nnx.remat(lambda inner, x: inner(x))(self.inner, x)

    model = Rematerialised(nnx.Rngs(0))
    found = optax_mi.capture_activations(model, None, X)
    np.testing.assert_allclose(found["inner"], model.inner(X), rtol=1e-6)


def test_unknown_layers_and_misplaced_variables_are_named(model):
    with pytest.raises(ValueError, match=r"`layers` must be among .*'block'.*'blok'"):
        optax_mi.capture_activations(model, None, X, layers="blok")
    with pytest.raises(ValueError, match="`variables` must be None for an NNX model"):
        optax_mi.capture_activations(model, {"params": {}}, X)


def test_the_layers_of_a_scan_are_numbered():
    class Scanned(nnx.Module):
        def __init__(self, rngs):
            @nnx.split_rngs(splits=3)
            @nnx.vmap(in_axes=0, out_axes=0)
            def stacked(rngs):
                return nnx.Linear(4, 4, rngs=rngs)

            self.layers = stacked(rngs)

        def __call__(self, x):
            @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            def forward(layer, x):
                return layer(x)

            return forward(self.layers, x)

    model = Scanned(nnx.Rngs(0))
    found = optax_mi.capture_activations(model, None, X)
    h = X
    for i in range(3):
        h = h @ model.layers.kernel[i] + jnp.asarray(model.layers.bias)[i][None]
        np.testing.assert_allclose(found[f"layers/{i}"], h, rtol=1e-5)
    assert sorted(found) == ["", "layers/0", "layers/1", "layers/2"]


class Counting(nnx.Module):
    """Draws noise, counts its calls and keeps statistics, whatever its mode."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.rngs = nnx.Rngs(noise=1)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, x):
        self.calls[...] = self.calls[...] + 1
        noise = jax.random.normal(self.rngs.noise(), (len(x), 2))
        return self.norm(self.dense(x) + noise, use_running_average=False)


def test_what_a_model_changes_when_called_it_changes_in_the_copy_alone():
    model = Counting(nnx.Rngs(0))
    before = numbers(model)
    for capture in (optax_mi.capture_activations, jax.jit(captured)):
        capture(model, None, X)
        jax.tree.map(np.testing.assert_array_equal, before, numbers(model))
    with pytest.raises(ValueError, match=r"`layers` must be among .*'dense'.*'dens'"):
        optax_mi.capture_activations(model, None, X, layers="dens")


def numbers(model):
    leaves = jax.tree.leaves(nnx.state(model))
    return [
        np.array(
            jax.random.key_data(a)
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
            else a
        )
        for a in leaves
    ]


def captured(model, variables, x):
    return optax_mi.capture_activations(model, variables, x)


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.GRUCell, nnx.SimpleCell])
def test_recurrent_networks_are_captured_without_their_cells(cell):
    class Recurrent(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(cell(4, 8, rngs=rngs))
            self.head = nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(jnp.asarray(self.rnn(x))[:, -1])

    model, x = Recurrent(nnx.Rngs(0)), jnp.ones((12, 5, 4))
    found = optax_mi.capture_activations(model, None, x)
    assert {k: a.shape for k, a in found.items()} == {
        "rnn": (12, 5, 8),
        "head": (12, 2),
        "": (12, 2),
    }
    np.testing.assert_allclose(found[""], model(x), rtol=1e-5)
