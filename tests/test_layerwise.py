"""Each layer's rate follows that layer's own measurement."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import optax_mi

PARAMS = {"conv": {"kernel": jnp.ones(3)}, "dense": {"kernel": jnp.ones(2)}}
EPOCHS = ({"conv": 0.5, "dense": 1.8}, {"conv": 1.6, "dense": 1.8})
POLICY_B = optax_mi.reference_policy(0.1, 0.1, 0.1)
# With a reference of 2: 0.001 + 0.1 * (1 - 1.6 / 2); dense has saturated.
RATES = {"conv": 0.021, "dense": 0.001}


def layerwise(
    param_labels: Any = "auto", lr_min: Any = 0.001, lr_max: Any = 0.05, **options: Any
) -> optax.GradientTransformationExtraArgs:
    options = {"reference": 2.0, "policy": POLICY_B, **options}
    return optax.chain(
        optax.sgd(1.0),
        optax_mi.layerwise_mi_dynamic_lr(param_labels, lr_min, lr_max, **options),
    )


def rates(tx, params, epochs) -> tuple[Any, dict[str, float]]:
    updates, state = None, tx.init(params)
    for mi in epochs:
        updates, state = tx.update(params, state, params, mi=mi)
    return updates, optax_mi.learning_rates(state)


@pytest.mark.parametrize(
    "labels",
    [
        "auto",
        {"conv": "conv", "dense": "dense"},
        lambda params: {name: name for name in params},
    ],
    ids=["auto", "a prefix of the parameters", "a function"],
)
def test_each_layer_has_a_rate_of_its_own(labels):
    updates, found = rates(layerwise(labels), PARAMS, EPOCHS)
    assert found == pytest.approx(RATES)
    np.testing.assert_allclose(updates["conv"]["kernel"], -0.021, rtol=1e-5)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.001, rtol=1e-5)


def test_recorded_scanned_and_given_measurements_set_the_same_rates():
    tx = layerwise()
    recorded = tx.init(PARAMS)
    for mi in EPOCHS:
        recorded = optax_mi.record_mi(recorded, mi)
        _, recorded = tx.update(PARAMS, recorded, PARAMS)

    def step(state, mi):
        return tx.update(PARAMS, state, PARAMS, mi=mi)[1], None

    stacked = jax.tree.map(lambda *values: jnp.stack(values), *EPOCHS)
    scanned, _ = jax.lax.scan(step, tx.init(PARAMS), stacked)
    for state in (recorded, scanned):
        assert optax_mi.learning_rates(state) == pytest.approx(RATES)


def test_arguments_go_by_their_names_and_measurements_by_nothing_else():
    tx = optax_mi.layerwise_mi_dynamic_lr(
        param_labels="auto", lr_min=0.001, lr_max=0.05, reference=2.0, policy=POLICY_B
    )
    state = tx.init(params=PARAMS)
    tx.update(updates=PARAMS, state=state, params=PARAMS, mi=EPOCHS[0])
    with pytest.raises(TypeError, match="positional"):
        tx.update(PARAMS, state, PARAMS, EPOCHS[0])  # pyright: ignore
    with pytest.raises(TypeError, match="positional"):
        optax_mi.layerwise_mi_dynamic_lr("auto", 0.001, 0.05, None)  # pyright: ignore


def test_a_scalar_moves_all_rates_alike():
    _, found = rates(layerwise(), PARAMS, (0.5, 1.0))
    assert found == pytest.approx({"conv": 0.05, "dense": 0.05})


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.LayerNorm()(nn.Dense(8)(x)))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=True)(Block()(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.dense(x))))


@pytest.mark.parametrize("whole", [True, False], ids=["variables", "params"])
def test_auto_finds_the_layers_of_a_linen_model(whole):
    model, x = Linen(), jnp.ones((9, 4))
    variables = model.init(jax.random.key(0), x)
    params = variables if whole else variables["params"]
    activations = optax_mi.capture_activations(model, variables, x)
    assert "Dropout_0" in activations  # has no parameters, and so no rate
    # A measured name of the path's beginning serves what lies within.
    low, high = (dict.fromkeys(activations, m) for m in (0.5, 1.0))
    high |= {"Block_0/Dense_0": 1.9, "Block_0/LayerNorm_0": 0.5}
    _, found = rates(layerwise(lr_max=1.0), params, (low, high))
    assert found == pytest.approx(
        {"Block_0/Dense_0": 0.006, "Block_0/LayerNorm_0": 0.001, "Dense_0": 0.051}
    )
    for mi in (low, high):
        del mi["Block_0/LayerNorm_0"]
    _, found = rates(layerwise(lr_max=1.0), params, (low, high))
    assert found["Block_0/LayerNorm_0"] == pytest.approx(0.051)  # that of Block_0


@pytest.mark.parametrize("default", ["dense", None])
def test_parameters_without_a_measurement_follow_the_default(default):
    model = Nnx(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, layerwise(default=default), wrt=nnx.Param)
    gradients = nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 4)))))(model)
    for mi in (
        {"dense": 0.5, "out": 0.5, "": 0.5},
        {"dense": 1.0, "out": 1.5, "": 1.8},
    ):
        optimizer.update(model, gradients, mi=mi)
    followed = 1.0 if default else 1.8
    assert optax_mi.learning_rates(optimizer.opt_state) == pytest.approx(
        {
            "dense": 0.05,
            "out": 0.026,
            "norm": min(0.05, 0.001 + 0.1 * (1 - followed / 2)),
        }
    )


def update(tx, mi):
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, mi=mi)


def record(tx, mi):
    return optax_mi.record_mi(tx.init(PARAMS), mi)


@pytest.mark.parametrize("give", [update, record])
def test_labels_without_a_measurement_are_named_with_both_sets(give):
    with pytest.raises(
        ValueError, match=r"\['conv', 'dense'\].*\['conv'\] \(\['dense'"
    ):
        give(layerwise(), {"conv": 1.0})


def test_layers_that_nobody_follows_are_named_with_both_sets():
    labels = {"conv": "conv", "dense": "dense"}
    with pytest.raises(ValueError, match=r"\['conv', 'dense'\].*\(\['dens'\] without"):
        update(layerwise(labels), EPOCHS[0] | {"dens": 1.0})
    update(layerwise(), EPOCHS[0] | {"pool": 1.0})  # a layer without parameters


@pytest.mark.parametrize("give", [update, record])
def test_a_default_that_was_not_measured_is_refused(give):
    with pytest.raises(
        ValueError, match="`mi` must be a mapping with the layer of `default`, 'norm'"
    ):
        give(layerwise(default="norm"), EPOCHS[0])


def test_bounds_and_policies_may_be_given_for_each_layer():
    tx = layerwise(
        lr_min={"conv": 0.001, "dense": 0.01},
        lr_max={"conv": 0.002, "": 1.0},
        policy={"conv": POLICY_B, "dense": lambda p: p.lr_max / 2},
        reference={"conv": 2.0, "dense": 3.0},
    )
    _, found = rates(tx, PARAMS, EPOCHS)
    assert found == pytest.approx({"conv": 0.002, "dense": 0.5})
    with pytest.raises(ValueError, match=r"`lr_max` must be .*'dense'.*'conv'"):
        layerwise(lr_max={"conv": 0.1}).init(PARAMS)
    with pytest.raises(ValueError, match=r"`lr_min` must be .*\['pool'\]"):
        layerwise(lr_min={"conv": 0.0, "dense": 0.0, "pool": 0.0}).init(PARAMS)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`param_labels` must be one of 'auto'"):
        layerwise("automatic")
    with pytest.raises(ValueError, match="`param_labels` must be strings, got int 1"):
        layerwise({"conv": 1, "dense": 2}).init(PARAMS)
    with pytest.raises(ValueError, match="`lr_min` must be at most `lr_max`"):
        layerwise(lr_min=0.2)


def test_labels_of_which_none_is_measured_do_not_all_follow_the_output():
    rate = functools.partial(optax_mi.mi_dynamic_lr, policy=POLICY_B, reference=2.0)
    tx = optax.partition(
        {"body": rate(1e-3, 0.1), "head": rate(1e-3, 0.1)},
        {"conv": "body", "dense": "head"},
    )
    state = tx.init({"conv": jnp.ones(2), "dense": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"`mi` must be .* \['body', 'head'\]"):
        optax_mi.record_mi(state, {"conv": 0.5, "dense": 0.6, "": 0.7})


class Pair(NamedTuple):
    kernel: Any
    bias: Any


def test_named_tuples_and_nnx_models_are_labelled_by_their_paths():
    tx = optax_mi.layerwise_mi_dynamic_lr(
        "auto", 1e-3, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    pair = Pair(jnp.ones(1), jnp.ones(2))
    rates = optax_mi.learning_rates(tx.init({"a": pair, "b": pair}))
    assert list(rates) == ["a", "b"]

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.inner(x)

    model = Model(nnx.Rngs(0))
    trees: list[Any] = [model, nnx.state(model, nnx.Param)]
    for params in trees:
        state = tx.init(params)
        assert list(optax_mi.learning_rates(state)) == ["inner"]
        tx.update(jax.tree.map(jnp.ones_like, params), state)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """Parameters, or labels, in a module that is a pytree, as Equinox has them."""

    conv: Any
    dense: Any
    activation: Any = None

    def __call__(self, x):
        raise AssertionError("called as a function")


OF_LAYERS = Module("conv", "dense")


@pytest.mark.parametrize(
    "labels",
    [
        Module({"kernel": "conv"}, {"kernel": "dense"}),
        OF_LAYERS,
        lambda params: OF_LAYERS,
        functools.partial(lambda labels, params: labels, OF_LAYERS),
        jax.tree_util.Partial(lambda labels, params: labels, OF_LAYERS),
        "auto",
    ],
    ids=["labels", "a prefix", "a function", "partial", "Partial, a pytree", "auto"],
)
def test_labels_in_a_module_that_can_be_called_are_labels(labels):
    updates, found = rates(layerwise(labels), Module(**PARAMS), EPOCHS)
    assert found == pytest.approx(RATES)
    np.testing.assert_allclose(updates.conv["kernel"], -0.021, rtol=1e-5)
    np.testing.assert_allclose(updates.dense["kernel"], -0.001, rtol=1e-5)


def test_they_are_not_called_where_a_policy_goes_back():
    tx, params = layerwise(OF_LAYERS, policy=None), Module(**PARAMS)
    _, found = rates(tx, params, [mi | {"": 1.0} for mi in EPOCHS])
    assert list(found) == ["conv", "dense"]


def test_what_is_no_string_among_them_is_named():
    params: Any = Module(**PARAMS)
    with pytest.raises(ValueError, match="`param_labels` must be strings, got int 1"):
        layerwise(Module(1, 2)).init(params)
    with pytest.raises(
        ValueError, match="`param_labels` must be strings, got float32 of"
    ):
        layerwise(Module("conv", PARAMS["dense"])).init(params)
    with pytest.raises(
        ValueError, match="`param_labels` must be strings, got function"
    ):
        layerwise(Module("conv", "dense", rates)).init(params)


class ScannedBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.relu(nn.Dense(4, name="dense")(x)), None


class Scanned(nn.Module):
    """A network whose blocks share stacked parameters, as for fast compilation."""

    @nn.compact
    def __call__(self, x):
        blocks = nn.scan(
            ScannedBlock,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = blocks(name="blocks")(nn.Dense(4, name="first")(x), None)
        return nn.Dense(2, name="head")(x)


def test_parameters_stacked_by_a_scan_do_not_follow_another_layer_in_silence():
    x = jax.random.normal(jax.random.key(0), (60, 3))
    variables = Scanned().init(jax.random.key(1), x)
    params, tx = variables["params"], layerwise(policy=None)
    layers = optax_mi.capture_activations(Scanned(), variables, x)
    mi: Any = dict(optax_mi.estimate_mi(layers, jnp.arange(60) % 2))
    blocks = [f"blocks/dense/{i}" for i in range(3)]
    assert {*blocks} < {*mi}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"give mi\['blocks'\], such as their me"):
        optax_mi.record_mi(state, mi)
    with pytest.raises(ValueError, match="got .*'blocks/dense/2'"):
        tx.update(params, state, params, mi=mi)
    # What it says to write:
    mi = {name: value for name, value in mi.items() if not name.startswith("blocks")}
    mi["blocks"] = jnp.float32(0.5)
    state = optax_mi.record_mi(state, mi)
    assert {*optax_mi.learning_rates(state)} == {"first", "blocks/dense", "head"}


def test_numbers_that_are_names_of_modules_are_not_taken_for_a_stack():
    params = {"blocks": {"layers": [{"kernel": jnp.ones(2)} for _ in range(2)]}}
    tx = layerwise()
    state = optax_mi.record_mi(tx.init(params), {"blocks/layers/0": 0.5, "": 0.4})
    assert {*optax_mi.learning_rates(state)} == {"blocks/layers/0", "blocks/layers/1"}


def test_of_a_stack_with_several_modules_the_outermost_is_named():
    params = {"layers": {"bn": {"scale": jnp.ones(3)}, "linear": {"w": jnp.ones(3)}}}
    tx = layerwise(policy=None)
    state = tx.init(params)
    mi: Any = {f"layers/{i}": 0.5 for i in range(3)} | {"": 0.4}
    for several in (mi, mi | {f"layers/bn/{i}": 0.5 for i in range(3)}):
        with pytest.raises(ValueError, match=r"give mi\['layers'\], such as"):
            optax_mi.record_mi(state, several)
    state = optax_mi.record_mi(state, {"layers": 0.5, "": 0.4})
    pending = optax.tree.get_all_with_path(state, "pending")
    assert [float(value) for _, value in pending] == [0.5, 0.5]


def test_a_model_of_several_outputs_says_so():
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x), nn.Dense(3)(x)

    x = jnp.ones((5, 2))
    variables = Two().init(jax.random.key(0), x)
    with pytest.raises(
        ValueError, match=r"the model has several outputs, \['0', '1'\]"
    ):
        optax_mi.capture_activations(Two(), variables, x, layers="")
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1)
    with pytest.raises(ValueError, match=r"'', in it, or one of its values alone \(`l"):
        optax_mi.record_mi(tx.init(x), {"0": 1.0, "1": 1.0})
    labels = layerwise(policy=None).init(variables["params"])
    with pytest.raises(ValueError, match="`default` names the layer that the others"):
        optax_mi.record_mi(labels, {"0": 1.0, "1": 1.0})
