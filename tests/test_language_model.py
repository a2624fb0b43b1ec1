"""The example of a language model, on its own text."""

from pydoc_data import topics

import jax
import numpy as np
import pytest
from flax import nnx

import optax_mi
from examples import language_model
from examples.common import text as texts

LAYERS = language_model.LAYERS


@pytest.fixture(scope="module")
def text():
    return texts.load_text()


def test_all_of_the_text_is_trained_on_or_held_out(text):
    train, held_out, characters = text
    pages = topics.topics.values()
    assert len(train) + 1 + len(held_out) == len("\n".join(pages))
    assert 0.03 < len(held_out) / len(train) < 0.3
    assert set(np.concatenate([train, held_out])) == set(range(characters))
    x, y = texts.windows(held_out)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(x.ravel(), held_out[: x.size])


@pytest.mark.e2e
def test_every_parameter_has_the_rate_of_its_block_or_of_the_output(text):
    model = texts.Transformer(text[2], nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    labels = language_model.layer_of_each(params)
    found = {}
    for path, label in jax.tree_util.tree_leaves_with_path(labels):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found.setdefault(label, set()).add(name.split("/")[0])
    assert found == {
        "blocks/layers/0": {"blocks"},
        "blocks/layers/1": {"blocks"},
        "logits": {"embed", "position", "norm", "logits"},
    }


def test_it_sees_no_character_before_its_time(text):
    model = texts.Transformer(text[2], nnx.Rngs(0))
    x = texts.windows(text[1])[0][:2]
    changed = x.at[:, 20:].set(0)
    np.testing.assert_allclose(model(x)[:, :20], model(changed)[:, :20], atol=1e-5)
    assert np.abs(model(x)[:, 20:] - model(changed)[:, 20:]).max() > 0.01


def trained(text, steps):
    probe = language_model.draw_probe(text[0], seed=0, contexts=100, size=400)
    *_, history = language_model.train(text, probe, steps=steps)
    assert history.layers == list(LAYERS)
    most = float(optax_mi.label_entropy(probe[1].outcomes))
    for epoch in range(1, steps // language_model.EVERY + 1):
        mi = [row["mi"] for row in history.rows if row["epoch"] == epoch]
        assert 0 < min(mi) < max(mi) < most
    return history, [history.column("learning_rate", layer) for layer in LAYERS]


@pytest.mark.e2e
def test_each_block_has_a_rate_that_its_information_moves(text):
    history, rates = trained(text, 200)
    loss = history.column("loss", "logits")
    assert history.column("step", "logits").tolist() == [50, 100, 150, 200]
    assert loss[-1] < loss[0] - 0.3
    assert {rate[0] for rate in rates} == {np.float32(language_model.LR_MIN)}
    second = [rate[1] for rate in rates]
    assert min(second) > 1.1 * language_model.LR_MIN
    assert len(set(second)) == 3


def test_almost_every_character_of_a_probe_is_used(text):
    probe = language_model.draw_probe(text[0], seed=0, contexts=100, size=400)
    assert 380 < optax_mi.usable_points(probe[1].outcomes) <= 400
