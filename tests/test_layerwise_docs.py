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


@pytest.mark.parametrize(("style", "program"), [*zip(LAYERS, PROGRAMS, strict=True)])
def test_every_layers_rate_moves_by_its_own_information(style, program):
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1)[:1200].astype(np.float32) / 16
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
        "y": y[:1200],
        "epochs": 8,
        "report": rates.append,
    }
    assert len([line for line in program.splitlines() if line.strip()]) < 20
    exec(program, names)
    assert [list(epoch) for epoch in rates] == [LAYERS[style]] * 8
    highest = [max(epoch[layer] for epoch in rates) for layer in LAYERS[style]]
    assert min(highest) > 0.005  # each has left its lower bound
    assert len(set(highest)) == 4  # by itself
    logits = (
        names["model"](x)
        if style == "NNX"
        else names["model"].apply(names["params"], x)
    )
    assert np.mean(np.argmax(logits, axis=-1) == y[:1200]) > 0.8
