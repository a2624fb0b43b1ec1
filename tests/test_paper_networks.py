"""The networks of the paper's experiments, and what is done to their images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.common.networks import LAYERS, NETWORKS, max_pool
from examples.common.training import flip_and_shift


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_logits_and_drop_out_in_training_alone(name):
    model, x = NETWORKS[name], np.ones((2, 32, 32, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    shape = jax.eval_shape(lambda v: model.apply(v, x), variables).shape
    assert shape == (2, 10)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables))
    known = {"small": 136_874, "paper": 1_626_442, "classic": 315_722}
    known |= {"allcnn": 1_369_738, "allcnn-half": 343_882, "allcnn-quarter": 86_698}
    assert parameters == known[name]
    layers = {*LAYERS} if name in ("small", "paper", "classic") else set()
    assert layers <= {*variables["params"]}
    key = {"dropout": jax.random.key(1)}
    drawn = jax.make_jaxpr(lambda v: model.apply(v, x, train=True, rngs=key))(variables)
    assert ("random_bits" in str(drawn)) == (name != "small")


@pytest.mark.e2e
def test_the_classic_network_is_the_paper_s_with_a_pool_after_each_convolution():
    model, images = NETWORKS["classic"], np.random.default_rng(0).random((2, 28, 28, 1))
    images = images.astype(np.float32)
    params: Any = model.init(jax.random.key(1), images)["params"]
    x = jnp.asarray(images)
    for name, features in (("Conv_0", 32), ("Conv_1", 64)):
        conv = nn.Conv(features, (3, 3), padding="VALID")
        x = nn.relu(jnp.asarray(conv.apply({"params": params[name]}, x)))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
    assert x.shape == (2, 5, 5, 64)
    x = nn.relu(x.reshape(2, -1) @ params["Dense_0"]["kernel"])  # biases are 0
    logits = x @ params["logits"]["kernel"]
    given = jnp.asarray(model.apply({"params": params}, images))
    np.testing.assert_allclose(given, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.e2e
def test_the_all_cnn_starts_with_logits_that_tell_images_apart():
    """With Flax's default weights they differ by 0.003, and it does not train."""
    model = NETWORKS["allcnn-quarter"]
    keys = jax.random.split(jax.random.key(0), 3)
    colours = jax.random.uniform(keys[0], (64, 1, 1, 3))
    noise = jax.random.uniform(keys[1], (64, 32, 32, 3), minval=-0.1, maxval=0.1)
    images = jnp.clip(colours + noise, 0, 1)
    logits = model.apply(model.init(keys[2], images[:1]), images)
    assert 0.1 < jnp.asarray(logits).std(axis=0).mean() < 3


def test_images_are_flipped_and_shifted_and_nothing_else():
    image = np.arange(1, 65, dtype=np.float32).reshape(8, 8, 1)
    many = flip_and_shift(jax.random.key(0), jnp.asarray(image[None].repeat(500, 0)), 2)
    padded = [np.pad(x, ((2, 2), (2, 2), (0, 0))) for x in (image, image[:, ::-1])]
    views = [
        {x[i : i + 8, j : j + 8].tobytes() for i in range(5) for j in range(5)}
        for x in padded
    ]
    seen = [np.asarray(x).tobytes() for x in many]
    assert set(seen) == views[0] | views[1]
    assert 200 < sum(x in views[0] for x in seen) < 300


@pytest.mark.parametrize("side", [pytest.param(6, marks=pytest.mark.e2e), 7])
def test_pooling_is_flax_s_and_so_is_its_gradient(side):
    x = jax.random.normal(jax.random.key(0), (2, side, side + 1, 3))
    weight = jax.random.normal(jax.random.key(1), (2, 3, (side + 1) // 2, 3))

    def pooled(pool):
        return jax.value_and_grad(lambda x: (pool(x) * weight).sum())(x)

    want = pooled(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
    jax.tree.map(np.testing.assert_array_equal, pooled(max_pool), want)


def test_equal_maxima_of_a_pool_share_the_gradient():
    window = jnp.array([[3.0, 3.0], [1.0, 3.0]])[None, ..., None]
    value, gradient = jax.value_and_grad(lambda x: max_pool(x).sum())(window)
    assert value == 3
    assert gradient[0, 1, 0, 0] == 0
    assert gradient.sum() == 1
    assert gradient[0, 0].min() > 0
    assert gradient[0, 1, 1, 0] > 0
