"""Hostile models, inputs and probes: what is captured and measured."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rows import Refused, cell, check, table

import optax_mi

KEY = jax.random.key(0)
N = 24
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
LABELS = np.arange(N) % 3
IMAGES = np.random.default_rng(1).integers(-128, 128, (N, 4, 4, 1), np.int8)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.asarray(x, jnp.float32).reshape(len(x), -1)
        x = nn.relu(nn.Dense(5, name="hidden")(x))
        return nn.Dense(3, name="head")(x)


class Twice(nn.Module):
    """Sows two arrays by one name."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(5, name="hidden")(x)
        self.sow("intermediates", "seen", x)
        self.sow("intermediates", "seen", 2 * x)
        return x


class Shared(nnx.Module):
    """One layer by two names."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.second = self.first

    def __call__(self, x):
        return self.second(self.first(x))


class Silent(nn.Module):
    """Returns no array with the examples along its first axis."""

    @nn.compact
    def __call__(self, x):
        return jnp.sum(x)


VARIABLES = Network().init(KEY, X)


def capture(inputs: Any = X, model=None, variables: Any = VARIABLES, **options):
    model = Network() if model is None else model
    return optax_mi.capture_activations(model, variables, inputs, **options)


def measured(**arguments):
    """For each captured layer, whether the estimate is a finite number."""
    found = capture(**arguments)
    mi = optax_mi.estimate_mi(found, LABELS)
    return {name: bool(np.isfinite(nats)) for name, nats in mi.items()}


def broken(value):
    return jax.tree.map(lambda leaf: leaf * value, VARIABLES)


def one_layer_broken():
    head = jax.tree.map(lambda leaf: leaf * np.nan, VARIABLES["params"]["head"])
    return {"params": {**VARIABLES["params"], "head": head}}


def changed(value):
    x = X.copy()
    x[3, 2] = value
    return x


ALL = dict.fromkeys(["hidden", "head", ""], True)
NONE = dict.fromkeys(["hidden", "head", ""], False)
SHAPED = "an array with the 24 examples along its first axis, got shape ()"
NOTHING = (
    "`layers` must be satisfied by at least one array with the examples along its "
    "first axis …, got an empty capture"
)
ARRAYS = "`inputs` must be arrays with examples along the first axis"
LAYERS = "`activations` must be a mapping {layer: array} with at least one layer"

# A call; what it returns, in words and as it is, or the error.
ROWS = {
    "int8 images": (
        lambda: measured(inputs=IMAGES, variables=Network().init(KEY, IMAGES)),
        ("a number for every layer", ALL),
    ),
    "NaN in one input": (
        lambda: measured(inputs=changed(np.nan)),
        ("NaN for every layer that it reaches", NONE),
    ),
    "infinity in one input": (
        lambda: measured(inputs=changed(np.inf)),
        ("NaN for every layer that it reaches", NONE),
    ),
    "parameters of NaN": (
        lambda: measured(variables=broken(np.nan)),
        ("NaN for every layer", NONE),
    ),
    "parameters of NaN in the last layer": (
        lambda: measured(variables=one_layer_broken()),
        (
            "NaN for that layer and the output only",
            {"hidden": True, "head": False, "": False},
        ),
    ),
    "parameters of 0: every unit dead": (
        lambda: measured(variables=broken(0)),
        ("a number (0) for every layer", ALL),
    ),
    "parameters of 1e30": (
        lambda: measured(variables=broken(np.float32(1e30))),
        (
            "a number up to the layer where float32 overflows, then NaN",
            {"hidden": True, "head": False, "": False},
        ),
    ),
    "two arrays sown under one name": (
        lambda: list(capture(model=Twice(), variables=Twice().init(KEY, X))),
        ("both, numbered", ["hidden", "seen/0", "seen/1", ""]),
    ),
    "one NNX layer under two names": (
        lambda: list(capture(model=Shared(nnx.Rngs(0)), variables=None)),
        ("its calls, numbered, under the first name", ["first/0", "first/1", ""]),
    ),
    "an unknown layer": (
        lambda: capture(layers=["head", "tail"]),
        Refused("`layers` must be among ['', 'head', 'hidden'], got ['tail']"),
    ),
    "a filter that no layer passes": (
        lambda: capture(layers=lambda name: False),
        Refused(NOTHING),
    ),
    "no array with examples": (
        lambda: capture(model=Silent(), variables={}),
        Refused(NOTHING),
    ),
    "a scalar output, asked for by name": (
        lambda: capture(model=Silent(), variables={}, layers=""),
        Refused(SHAPED),
    ),
    "inputs without arrays": (
        lambda: capture(inputs={}),
        Refused(f"{ARRAYS}, got []"),
    ),
    "a scalar as inputs": (
        lambda: capture(inputs=1.0),
        Refused(f"{ARRAYS}, got [()]"),
    ),
    "a function as the model": (
        lambda: capture(model=jnp.tanh),
        Refused("`model` must be a flax.linen.Module or flax.nnx.Module, got …"),
    ),
    "no variables": (
        lambda: capture(variables=None),
        Refused("`variables` must be a Linen model's variables, got NoneType"),
    ),
    "`max_features` of 0": (
        lambda: capture(max_features=0),
        Refused("`max_features` must be an integer >= 1, got 0"),
    ),
    "a probe larger than the data": (
        lambda: optax_mi.sample_probe(KEY, X, LABELS, size=N + 1),
        Refused("`size` must be at most the number of examples, 24, got 25"),
    ),
    "a probe of size 0": (
        lambda: optax_mi.sample_probe(KEY, X, LABELS, size=0),
        Refused("`size` must be an integer >= 1, got 0"),
    ),
    "a probe of inputs and outcomes of different lengths": (
        lambda: optax_mi.sample_probe(KEY, X[1:], LABELS, size=2),
        Refused("`x` must be as long as `y`, 24 samples, got 23"),
    ),
    "no layers": (
        lambda: optax_mi.estimate_mi({}, LABELS),
        Refused(f"{LAYERS}, got {{}}"),
    ),
    "an array in place of layers": (
        lambda: optax_mi.estimate_mi(X, LABELS),  # pyright: ignore[reportArgumentType]
        Refused(f"{LAYERS}, got array…"),
    ),
    "layers of different lengths": (
        lambda: optax_mi.estimate_mi({"a": X, "b": X[1:]}, LABELS),
        Refused("`activations['b']` must be as long as `outcomes`, 24 samples, got 23"),
    ),
    "an estimator that returns no scalar": (
        lambda: optax_mi.estimate_mi({"a": X}, LABELS, estimator=lambda h, y: h),
        Refused("`estimator` must be a function to a scalar array, got shape (24, 4)"),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_hostile_models_and_probes(row, tally):
    call, outcome = ROWS[row]
    if isinstance(outcome, Refused):
        check(outcome, call)
    else:
        assert call() == outcome[1]
    tally("hostile inputs")


def tables():
    lines = [
        [row, cell(o) if isinstance(o, Refused) else o[0]]
        for row, (_, o) in ROWS.items()
    ]
    return {"capture": table(["model, inputs, probe", "result"], lines)}
