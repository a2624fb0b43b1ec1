import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

X = jax.random.normal(jax.random.key(1), (12, 8, 8, 1))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(16)(x))
        self.sow("intermediates", "hidden", x)
        return nn.softmax(nn.Dense(10, name="head")(x))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6)(x))
        self.sow("intermediates", "normed", x)
        return nn.Dropout(0.5, deterministic=not train)(x)


class Nested(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = Block(name="block")(x.reshape(len(x), -1), train)
        shared = nn.Dense(6, name="shared")
        return shared(nn.relu(shared(x)))


class Odd(nn.Module):
    """Returns two arrays; sows a scalar, and a table without examples."""

    @nn.compact
    def __call__(self, x):
        self.sow("intermediates", "scale", jnp.float32(1))
        self.sow("intermediates", "table", jnp.ones((3, 2)))
        return x, x[..., 0] + 1


def init(model, **kwargs):
    return model.init(jax.random.key(0), X, **kwargs)


def test_all_layers_come_named_by_path_in_the_order_of_the_forward_pass():
    acts = optax_mi.capture_activations(CNN(), init(CNN()), X)
    assert {name: a.shape for name, a in acts.items()} == {
        "Conv_0": (12, 8, 8, 4),
        "Dense_0": (12, 16),
        "hidden": (12, 16),
        "head": (12, 10),
        "": (12, 10),
    }
    assert list(acts) == ["Conv_0", "Dense_0", "hidden", "head", ""]


def test_values_are_those_of_the_model():
    variables = init(CNN())
    acts = optax_mi.capture_activations(CNN(), variables, X)
    output = jnp.asarray(CNN().apply(variables, X))
    np.testing.assert_array_equal(acts[""], output)
    np.testing.assert_allclose(nn.softmax(acts["head"]), output, rtol=1e-6)
    np.testing.assert_array_equal(acts["hidden"], nn.relu(acts["Dense_0"]))


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("head", ["head"]),
        ("", [""]),
        (("head", "Conv_0"), ["head", "Conv_0"]),
        (lambda name: name.startswith("Dense"), ["Dense_0"]),
    ],
    ids=["name", "output", "names", "predicate"],
)
def test_only_the_layers_asked_for_are_returned(layers, names):
    acts = optax_mi.capture_activations(CNN(), init(CNN()), X, layers=layers)
    assert list(acts) == names


def test_only_the_layers_asked_for_are_computed_under_jit():
    variables = init(CNN())

    def capture(layers):
        run = jax.jit(
            lambda v: optax_mi.capture_activations(CNN(), v, X, layers=layers)
        )
        return str(run.lower(variables).compile().as_text())

    assert "exponential" in capture("")  # the softmax
    assert "exponential" not in capture("Conv_0")


def test_nested_modules_sown_values_and_repeated_calls_have_their_own_names():
    variables = init(Nested(), train=False)
    acts = optax_mi.capture_activations(Nested(), variables, X, train=False)
    assert list(acts) == [
        "block/Dense_0",
        "block/BatchNorm_0",
        "block/normed",
        "block/Dropout_0",
        "block",
        "shared/0",
        "shared/1",
        "",
    ]
    np.testing.assert_array_equal(acts["shared/1"], acts[""])
    second = optax_mi.capture_activations(
        Nested(), variables, X, train=False, layers="shared/1"
    )
    assert list(second) == ["shared/1"]


def test_batch_statistics_and_variables_are_left_alone():
    variables = init(Nested(), train=False)
    before = jax.tree.map(np.array, variables)
    optax_mi.capture_activations(Nested(), variables, X, train=False)
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_values_sown_in_an_earlier_run_are_not_taken_for_new_ones():
    params = init(CNN())
    _, earlier = CNN().apply(params, X, mutable=["intermediates"])
    acts = optax_mi.capture_activations(CNN(), {**params, **earlier}, 2 * X)
    fresh = optax_mi.capture_activations(CNN(), params, 2 * X)
    assert list(acts) == list(fresh)
    np.testing.assert_array_equal(acts["hidden"], fresh["hidden"])


def test_several_arrays_are_numbered_and_those_without_examples_left_out():
    acts = optax_mi.capture_activations(Odd(), {}, X)
    assert {name: a.shape for name, a in acts.items()} == {
        "0": (12, 8, 8, 1),
        "1": (12, 8, 8),
    }


def test_inputs_may_be_a_mapping_and_positional_arguments_pass_through():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, inputs, scale):
            return nn.Dense(3)(inputs["x"]) * scale

    inputs = {"x": jnp.ones((7, 2))}
    variables = Model().init(jax.random.key(0), inputs, 2.0)
    acts = optax_mi.capture_activations(Model(), variables, inputs, 2.0)
    np.testing.assert_array_equal(2 * acts["Dense_0"], acts[""])


def test_an_unknown_layer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"`layers` .* 'Conv_0', .* got \['conv'\]"):
        optax_mi.capture_activations(CNN(), init(CNN()), X, layers=["head", "conv"])


def test_an_empty_capture_is_refused_and_says_why_sow_may_store_nothing():
    with pytest.raises(ValueError, match="empty capture") as error:
        optax_mi.capture_activations(
            CNN(), init(CNN()), X, layers=lambda name: name == "nothing"
        )
    assert "`sow` stores nothing in a collection that is not mutable" in str(error)


def test_an_array_asked_for_without_the_examples_is_refused():
    with pytest.raises(ValueError, match=r"12 examples .* got shape \(3, 2\)"):
        optax_mi.capture_activations(Odd(), {}, X, layers="table")


def test_something_else_than_a_linen_module_is_refused():
    with pytest.raises(ValueError, match=r"`model` must be a flax.linen.Module"):
        optax_mi.capture_activations(lambda x: x, {}, X)  # pyright: ignore


def test_another_method_than_call_is_the_models_output():
    class Encoder(nn.Module):
        def setup(self):
            self.d = nn.Dense(4)

        def __call__(self, x):
            return self.encode(x).sum()

        def encode(self, x):
            return self.d(x)

    x, model = jnp.ones((5, 3)), Encoder()
    variables = model.init(jax.random.key(0), x)
    for method in ("encode", Encoder.encode):
        acts = optax_mi.capture_activations(model, variables, x, method=method)
        assert list(acts) == ["d", ""]


def test_a_predicate_sees_numbered_names():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(3)
            return dense(dense(x))

    x, model = jnp.ones((5, 3)), Twice()
    variables = model.init(jax.random.key(0), x)
    acts = optax_mi.capture_activations(
        model, variables, x, layers=lambda name: name == "Dense_0/1"
    )
    assert list(acts) == ["Dense_0/1"]


def test_scalar_inputs_may_stand_beside_the_examples():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            return nn.Dense(2)(inputs["image"]) * inputs["gain"]

    inputs, model = {"gain": jnp.ones(()), "image": jnp.ones((5, 3))}, Scaled()
    variables = model.init(jax.random.key(0), inputs)
    acts = optax_mi.capture_activations(model, variables, inputs)
    assert acts["Dense_0"].shape == (5, 2)


def test_what_the_capture_sets_itself_is_refused():
    model = nn.Dense(2)
    variables = model.init(jax.random.key(0), jnp.ones((5, 3)))
    with pytest.raises(ValueError, match="without 'mutable'"):
        optax_mi.capture_activations(
            model, variables, jnp.ones((5, 3)), mutable=["batch_stats"]
        )


@pytest.mark.slow
def test_random_combinations_of_many_features_keep_distances_and_information():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    latent = rng.normal(size=(5, 20))[labels] + rng.normal(size=(400, 20))
    x = np.maximum(latent @ rng.normal(size=(20, 3000)), 0)
    model = nn.Dense(3000, kernel_init=lambda *_: jnp.eye(3000), use_bias=False)
    x = jnp.asarray(x, jnp.float32)
    variables = model.init(jax.random.key(0), x)
    whole = optax_mi.capture_activations(model, variables, x)[""]
    reduced = optax_mi.capture_activations(model, variables, x, max_features=256)[""]
    assert reduced.shape == (400, 256)
    same = optax_mi.capture_activations(model, variables, x, max_features=3000)[""]
    np.testing.assert_array_equal(same, whole)

    far = [np.linalg.norm(a[:200] - a[200:], axis=1) for a in (whole, reduced)]
    error = far[1] / far[0] - 1
    # About 1 / sqrt(2 * 256) = 0.044; the mean of 200 of them within four sigma.
    assert abs(np.mean(error)) < 4 * 0.044 / np.sqrt(200)
    assert 0.044 * 0.8 < np.std(error) < 0.044 * 1.2
    # Over eight seeds the two differed by 0.018 nats at most, deviation 0.009.
    full, projected = (
        float(optax_mi.ksg_discrete(a, labels)) for a in (whole, reduced)
    )
    assert full > 0.5
    assert abs(full - projected) < 0.04


class Scanned(nn.Module):
    """Three blocks in a scan, which keeps what they store where it is told to."""

    kept: bool = True

    @nn.compact
    def __call__(self, x):
        class Layer(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                return nn.relu(nn.Dense(6)(x)), None

        axes: dict[Any, Any] = {"params": 0}
        if self.kept:
            axes["intermediates"] = 0
        layers = nn.scan(
            Layer, variable_axes=axes, split_rngs={"params": True}, length=3
        )
        x = x.reshape(len(x), -1)[:, :6]
        return nn.Dense(2)(layers(name="layers")(x, None)[0])


def test_the_layers_of_a_scan_are_numbered_where_it_keeps_them():
    variables = init(Scanned())
    found = optax_mi.capture_activations(Scanned(), variables, X)
    assert list(found) == [
        *(f"layers/Dense_0/{i}" for i in range(3)),
        *(f"layers/{i}" for i in range(3)),
        *("Dense_0", ""),
    ]
    h = X.reshape(len(X), -1)[:, :6]
    scanned: Any = variables["params"]["layers"]["Dense_0"]
    for i in range(3):
        h = h @ scanned["kernel"][i] + scanned["bias"][i][None]
        np.testing.assert_allclose(found[f"layers/Dense_0/{i}"], h, rtol=1e-5)
        h = nn.relu(h)
        np.testing.assert_allclose(found[f"layers/{i}"], h, rtol=1e-5)
    one = optax_mi.capture_activations(Scanned(), variables, X, layers="layers/1")
    assert list(one) == ["layers/1"]
    dropped = optax_mi.capture_activations(Scanned(kept=False), variables, X)
    assert list(dropped) == ["Dense_0", ""]


@pytest.mark.parametrize("dtype", [bool, jnp.int8, jnp.uint8])
def test_narrow_integers_are_projected_as_numbers(dtype):
    class Rounded(nn.Module):
        @nn.compact
        def __call__(self, x):
            return (jnp.abs(x.reshape(len(x), -1)) * 40).astype(dtype)

    def projected(model):
        return optax_mi.capture_activations(model, {}, X, max_features=16)[""]

    class AsFloats(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Rounded()(x).astype(jnp.float32)

    assert jnp.std(projected(AsFloats())) > 0.1
    np.testing.assert_array_equal(projected(Rounded()), projected(AsFloats()))


@pytest.mark.parametrize(
    "method", [lambda m, x: m(x), functools.partial(CNN.__call__)], ids=["lambda", "p"]
)
def test_a_function_for_the_method_is_the_models_output_too(method):
    variables = init(CNN())
    found = optax_mi.capture_activations(CNN(), variables, X, method=method)
    np.testing.assert_array_equal(found[""], CNN().apply(variables, X))
    one = optax_mi.capture_activations(CNN(), variables, X, layers="", method=method)
    assert list(one) == [""]


def test_a_call_of_the_parent_class_is_no_second_call():
    class Rectified(nn.Dense):
        def __call__(self, inputs):
            return nn.relu(super().__call__(inputs))

    model = nn.Sequential([lambda x: x.reshape(len(x), -1), Rectified(3), nn.Dense(2)])
    found = optax_mi.capture_activations(model, init(model), X)
    assert list(found) == ["layers_1", "layers_2", ""]
    assert jnp.min(found["layers_1"]) == 0


def test_projecting_what_numpy_holds_in_double_precision_warns_of_nothing():
    class Identity(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x

    x = np.random.default_rng(0).normal(size=(20, 64))
    found = optax_mi.capture_activations(Identity(), {}, x, max_features=8)
    assert found[""].shape == (20, 8)
