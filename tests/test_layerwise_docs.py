"""The programs of docs/guides/layerwise.md, run as they stand there, on digits."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pages
import pytest
from flax import nnx
from sklearn import datasets

import optax_mi

pytestmark = pytest.mark.e2e

PROGRAMS = pages.programs("guides/layerwise.md")
LAYERS = {
    "Linen": ["layers_0", "layers_2", "layers_5", "layers_7"],
    "NNX": ["layers/0", "layers/2", "layers/5", "layers/7"],
}


def train(style, program, data, epochs=8):
    """Runs a program; its rates after each epoch, and its accuracy on other images."""
    x, y, held_x, held_y, test_x, test_y = data
    rates = []
    names = {
        "nn": nn,
        "nnx": nnx,
        "jax": jax,
        "np": np,
        "optax": optax,
        "optax_mi": optax_mi,
        "rngs": nnx.Rngs(0),
        "x": x,
        "y": y,
        "held_x": held_x,
        "held_y": held_y,
        "epochs": epochs,
        "report": rates.append,
    }
    exec(program, names)
    model = names["model"]
    of = (lambda x: model.apply(names["params"], x)) if style == "Linen" else model
    return rates, 100 * np.mean(np.argmax(of(test_x), axis=-1) == test_y)


def single(program):
    """The program with one rate, set by the output."""
    one = program.replace(
        'layerwise_mi_dynamic_lr(\n    "auto", ', "mi_dynamic_lr(\n    "
    )
    assert one != program
    return one.replace("probe.inputs, max_features=1024", 'probe.inputs, layers=""')


@pytest.fixture(scope="module")
def digits():
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return x[:1100], y[:1100], x[1100:1400], y[1100:1400], x[1400:], y[1400:]


@pytest.mark.parametrize(("style", "program"), [*zip(LAYERS, PROGRAMS, strict=True)])
def test_every_layers_rate_moves_and_the_end_is_that_of_one_rate(
    style, program, digits
):
    assert len([line for line in program.splitlines() if line.strip()]) < 25
    rates, accuracy = train(style, program, digits)
    assert [list(epoch) for epoch in rates] == [LAYERS[style]] * 8
    for layer in LAYERS[style]:
        visited = {epoch[layer] for epoch in rates}
        assert len(visited) >= 2
        assert max(visited) > 0.005
    _, of_one = train(style, single(program), digits)
    assert of_one > 85
    # 397 images: a standard error of 1.3 points.
    assert accuracy > of_one - 2.6
