"""Which layers are captured, what they are called, and how many examples there are."""

import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_mi

X = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(4, name="inner")(x))
        return nn.LayerNorm(name="out")(x)


class Deep(nn.Module):
    blocks: int = 2

    @nn.compact
    def __call__(self, x):
        for i in range(self.blocks):
            x = Block(name=f"block_{i}")(x)
        return nn.Dense(3, name="head")(x)


def variables(model, x: Any = X):
    return model.init(jax.random.key(0), x)


def names(layers, model=None):
    model = model or Deep()
    found = optax_mi.capture_activations(model, variables(model), X, layers=layers)
    return list(found)


ALL = ["block_0", "block_0/inner", "block_0/out", "block_1", "block_1/inner"]
ALL = [*ALL, "block_1/out", "head", ""]

SELECTIONS = {
    "a name": ("block_0/out", ["block_0/out"]),
    "names, in their order": (["head", "block_0"], ["head", "block_0"]),
    "a pattern": ("block_*/out", ["block_0/out", "block_1/out"]),
    "a star ends at a slash": ("block_*", ["block_0", "block_1"]),
    "two stars do not": ("block_1**", ["block_1", "block_1/inner", "block_1/out"]),
    "everything": ("**", ALL),
    "a regular expression": (
        re.compile("1/(in|out)"),
        ["block_1/inner", "block_1/out"],
    ),
    "a class": (nn.Dense, ["block_0/inner", "block_1/inner", "head"]),
    "a depth": (1, ["block_0", "block_1", "head", ""]),
    "a predicate": (lambda name: name.endswith("out"), ["block_0/out", "block_1/out"]),
    "several kinds": (
        ["", Block, "*/out"],
        ["", "block_0", "block_1", "block_0/out", "block_1/out"],
    ),
}


@pytest.mark.parametrize(("layers", "expected"), SELECTIONS.values(), ids=SELECTIONS)
def test_layers_are_selected_by(layers, expected):
    found = names(layers)
    # Modules of Linen store what they return behind what those within them store.
    assert sorted(found) == sorted(expected)
    if isinstance(layers, list):
        assert found == expected


class DeepNNX(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.stem, self.head = nnx.Linear(5, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, x):
        return {"logits": self.head(self.norm(self.stem(x))), "twice": 2 * x}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (nnx.Linear, ["head", "stem"]),
        ("*e*", ["head", "stem", "twice"]),
        (["logits"], ["logits"]),
        (None, ["head", "logits", "norm", "stem", "twice"]),
    ],
)
def test_the_layers_of_nnx_are_selected_likewise(layers, expected):
    found = optax_mi.capture_activations(DeepNNX(), None, jnp.asarray(X), layers=layers)
    assert sorted(found) == expected


@pytest.mark.parametrize("layers", ["blok_*", re.compile("blok"), nn.Conv, 0])
def test_what_fits_no_layer_is_refused_with_those_that_there_are(layers):
    with pytest.raises(ValueError, match=r"`layers` must be among \['', 'block_0'"):
        names(layers)


@pytest.mark.parametrize("layers", [2.5, [None, 1.0]])
def test_another_kind_of_selection_is_refused(layers):
    with pytest.raises(ValueError, match="`layers` must be names, patterns"):
        names(layers)


def test_of_many_layers_the_outermost_are_returned_and_that_is_said_once():
    with pytest.warns(UserWarning, match="Of 26 layers the 10 outermost") as said:
        found = names(None, Deep(8))
    assert sorted(found) == sorted(["", "head", *(f"block_{i}" for i in range(8))])
    assert len(said) == 1
    assert len(names("**", Deep(8))) == 26


class Wrapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Deep(8, name="model")(x)


def test_a_network_within_one_module_has_its_own_blocks():
    with pytest.warns(UserWarning, match="layers=3 goes a level deeper"):
        found = names(None, Wrapped())
    assert "model/block_3" in found
    assert "model/block_3/out" not in found


class Outputs(NamedTuple):
    logits: jax.Array
    features: jax.Array


class Heads(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        logits, features = nn.Dense(3)(x), nn.Dense(2)(x)
        if self.kind == "mapping":
            return {"logits": logits, "features": features}
        if self.kind == "named tuple":
            return Outputs(logits, features)
        return logits, [features, x]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("mapping", ["features", "logits"]),
        ("named tuple", ["features", "logits"]),
        ("tuple", ["0", "1/0", "1/1"]),
    ],
)
def test_several_outputs_have_their_own_keys(kind, keys):
    model = Heads(kind)
    found = optax_mi.capture_activations(model, variables(model), X)
    assert sorted(found) == sorted([*keys, "Dense_0", "Dense_1"])
    for key in keys:
        alone = optax_mi.capture_activations(model, variables(model), X, layers=key)
        np.testing.assert_array_equal(alone[key], found[key])


class Shared(nn.Module):
    """Inputs of which one is shared by all examples."""

    @nn.compact
    def __call__(self, inputs):
        anchors = nn.Dense(4, name="of_anchors")(inputs["anchors"])
        return nn.Dense(4, name="of_x")(inputs["x"]) + anchors.mean(0, keepdims=True)


@pytest.mark.parametrize("anchors", [7, 23, 46])
@pytest.mark.parametrize("batch_size", [None, 10])
def test_an_input_that_is_shared_is_not_taken_for_examples(anchors, batch_size):
    inputs = {"anchors": jnp.ones((anchors, 5)), "x": jnp.asarray(X)}
    axes = {"anchors": None, "x": 0}
    model = Shared()
    options: Any = {"in_axes": axes} if anchors == len(X) else {}
    found = optax_mi.capture_activations(
        model, variables(model, inputs), inputs, batch_size=batch_size, **options
    )
    expected = np.asarray(model.apply(variables(model, inputs), inputs))
    np.testing.assert_allclose(found[""], expected, rtol=1e-5, atol=1e-6)
    assert found["of_x"].shape == (len(X), 4)
    assert "of_anchors" not in found


def mean(inputs):
    return jnp.mean(inputs["x"]) + jnp.mean(inputs["anchors"])


class Scalar(nn.Module):
    def __call__(self, inputs):
        return jnp.ones((3, 2)) * mean(inputs)


@pytest.mark.parametrize(
    ("in_axes", "message"),
    [
        (0, "no input is as long as the model's output of shape"),
        ({"x": 0}, "`in_axes` must be 0, 1 or a prefix of `inputs`"),
        ({"x": 2, "anchors": None}, "`in_axes` must be 0, 1 or None for each"),
        ({"x": 0, "anchors": 0}, "`in_axes` must be the axes of arrays with as many"),
    ],
)
def test_where_the_number_of_examples_cannot_be_known_that_is_said(in_axes, message):
    inputs = {"anchors": jnp.ones((7, 5)), "x": jnp.asarray(X)}
    with pytest.raises(ValueError, match=re.escape(message)):
        optax_mi.capture_activations(Scalar(), {}, inputs, in_axes=in_axes)


class OfGraph(nn.Module):
    """One graph, whose nodes are the examples, or several, in one set of arrays."""

    whole: bool

    @nn.compact
    def __call__(self, graph):
        sent = nn.Dense(4, name="edges")(graph["nodes"][graph["senders"]])
        summed = jax.ops.segment_sum(sent, graph["receivers"], len(graph["nodes"]))
        nodes = nn.Dense(4, name="nodes")(summed)
        if not self.whole:
            return nodes
        of_node = jnp.repeat(
            jnp.arange(len(graph["n_node"])),
            graph["n_node"],
            total_repeat_length=len(nodes),
        )
        return jax.ops.segment_sum(nodes, of_node, len(graph["n_node"]))


@pytest.mark.parametrize("edges", [7, 20])
@pytest.mark.parametrize("whole", [True, False])
def test_of_graphs_nodes_or_graphs_are_examples(edges, whole):
    rng = np.random.default_rng(0)
    graph = {
        "nodes": jnp.asarray(rng.normal(size=(20, 3)), jnp.float32),
        "senders": jnp.asarray(rng.integers(0, 20, edges)),
        "receivers": jnp.asarray(rng.integers(0, 20, edges)),
        "n_node": jnp.array([12, 8]),
    }
    model = OfGraph(whole)
    axes = {**dict.fromkeys(graph), "n_node" if whole else "nodes": 0}
    found = optax_mi.capture_activations(
        model, variables(model, graph), graph, in_axes=axes
    )
    assert list(found) == ([""] if whole else ["nodes", ""])
    # As many as in the output, where no array holds one for each.
    found = optax_mi.capture_activations(
        model, variables(model, graph), graph, in_axes=None, layers=""
    )
    assert found[""].shape == (2 if whole else 20, 4)


class TimeMajor(nn.Module):
    @nn.compact
    def __call__(self, x, mask):
        x = nn.Dense(4, name="dense")(x * mask.T[..., None])
        x = nn.RNN(nn.SimpleCell(5), time_major=True, name="rnn")(x)
        return nn.Dense(3, name="head")(x[-1])


@pytest.mark.parametrize("times", [6, 23])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_layers_whose_first_axis_is_time_come_with_examples_first(times, place):
    x = np.random.default_rng(0).normal(size=(times, 23, 2)).astype(np.float32)
    mask, model = np.ones((23, times), np.float32), TimeMajor()
    variables = model.init(jax.random.key(0), x, mask)

    def both(inputs):
        return model.apply(variables, *inputs)

    inputs = (place(x), place(mask))

    class OfBoth(nn.Module):
        inner: nn.Module

        def __call__(self, inputs):
            return self.inner(*inputs)

    whole = OfBoth(model)
    given = {"params": {"inner": variables["params"]}}
    found = [
        optax_mi.capture_activations(
            whole, given, inputs, in_axes=(1, 0), batch_size=size
        )
        for size in (None, 10)
    ]
    assert {k: a.shape for k, a in found[0].items()} == {
        "inner/dense": (23, times, 4),
        "inner/rnn": (23, times, 5),
        "inner/head": (23, 3),
        "inner": (23, 3),
        "": (23, 3),
    }
    expected = np.asarray(both(inputs))
    np.testing.assert_allclose(found[0][""], expected, rtol=1e-5)
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_what_examples_share_is_refused_where_it_was_asked_for(batch_size):
    inputs = {"anchors": jnp.ones((len(X), 5)), "x": jnp.asarray(X)}
    with pytest.raises(ValueError, match=r"not of what all examples share, got \['of_"):
        optax_mi.capture_activations(
            Shared(),
            variables(Shared(), inputs),
            inputs,
            layers=["of_anchors", "of_x"],
            in_axes={"anchors": None, "x": 0},
            batch_size=batch_size,
        )
