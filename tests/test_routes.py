"""Every way of giving a mapping follows the same layers, or says which argument helps.

What `mi_dynamic_lr` was given as `layer`, and `layerwise_mi_dynamic_lr` as `default`,
lies in the state, so that `record_mi` and `MIHistory.record` know it as `update` does.
"""

import functools
import itertools
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiers
from flax import nnx, serialization
from measurements import GRADS, PARAMS

import optax_mi
from optax_mi._state import PolicyState

POLICIES = {
    "without a memory": optax_mi.reference_policy(),
    "with a memory": optax_mi.warmup_stable_decay_policy(),
}
LABELS = {"dense": "dense", "head": "head"}


def single(policy, layer=None, **options):
    return optax_mi.mi_dynamic_lr(
        1e-3, 0.1, policy=policy, reference=2.0, layer=layer, **options
    )


def layerwise(policy, default=None, labels: Any = "auto"):
    return optax_mi.layerwise_mi_dynamic_lr(
        labels, 1e-3, 0.1, policy=policy, reference=2.0, default=default
    )


def by_hand(policy, **layers):
    return optax.partition(
        {label: single(policy, layer) for label, layer in layers.items()}, LABELS
    )


def injected(policy, default=None):
    make = optax.inject_hyperparams(
        optax_mi.layerwise_mi_dynamic_lr, static_args="policy"
    )
    return make("auto", 1e-3, 0.1, policy=policy, reference=2.0, default=default)


def one_trained(inner):
    labels = {"dense": "train", "head": "frozen"}
    return optax.partition({"train": inner, "frozen": optax.set_to_zero()}, labels)


def two_trained(one, other):
    return optax.partition({"dense": one, "head": other}, LABELS)


MAKERS = {
    "single": single,
    "single, of a layer": functools.partial(single, layer="dense"),
    "single, of another layer": functools.partial(single, layer="out"),
    "single, of the output": functools.partial(single, layer=""),
    "single, injected": lambda policy: optax.inject_hyperparams(
        optax_mi.mi_dynamic_lr, static_args="policy"
    )(1e-3, 0.1, policy=policy, reference=2.0, layer="head"),
    "by hand": functools.partial(by_hand, dense="dense", head="head"),
    "by hand, crossed": functools.partial(by_hand, dense="head", head="out"),
    "by hand, of one trained": lambda policy: one_trained(single(policy, "head")),
    "layer-wise": layerwise,
    "layer-wise, default": functools.partial(layerwise, default="out"),
    "layer-wise, default of its own": functools.partial(layerwise, default="dense"),
    "layer-wise, given labels": functools.partial(layerwise, labels=LABELS),
    "layer-wise, given labels, default": functools.partial(
        layerwise, labels=LABELS, default="out"
    ),
    "layer-wise, injected": injected,
    "layer-wise, injected, default": functools.partial(injected, default="out"),
    "layer-wise, of one trained": lambda policy: one_trained(layerwise(policy, "out")),
    "two of them": lambda policy: two_trained(
        layerwise(policy, "out"), single(policy, "head")
    ),
    "two defaults": lambda policy: two_trained(
        layerwise(policy, "out"), layerwise(policy, "head")
    ),
    "nested labels": lambda policy: one_trained(
        layerwise(policy, labels={"dense": "a", "head": "b"})
    ),
}

AROUND = {
    "alone": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=1),
}

VALUES = {"": 1.0, "dense": 1.1, "head": 1.2, "out": 1.3, "pool": 1.4, "train": 1.5}
NAMES = [
    *itertools.combinations(VALUES, 1),
    *itertools.combinations(VALUES, 2),
    ("dense", "head", ""),
    ("dense", "head", "out"),
    ("dense", "head", "pool"),
    tuple(VALUES),
]
MAPPINGS = [{name: VALUES[name] for name in names} for names in NAMES]
MAPPINGS += [{"a": 1.6, "": 1.0}, {"train": 1.5, "a": 1.6, "": 1.0}, {"x": 1.7}]


def measured(state):
    """What each rate has measured, for itself and for the network."""
    found = {}
    is_state = lambda node: isinstance(  # noqa: E731
        node, optax_mi.MIDynamicLRState | PolicyState
    )
    for path, node in jax.tree_util.tree_leaves_with_path(state, is_leaf=is_state):
        if isinstance(node, PolicyState):
            found[path] = float(node.rate.mi), float(node.network_mi)
        elif isinstance(node, optax_mi.MIDynamicLRState):
            found[path] = float(node.mi)
    return found


def outcome(route, *arguments):
    try:
        return route(*arguments)
    except ValueError as error:
        return str(error)


def updated(tx, state, mi):
    return measured(tx.update(GRADS, state, PARAMS, mi=mi)[1])


def recorded(tx, state, mi):
    return measured(tx.update(GRADS, optax_mi.record_mi(state, mi), PARAMS)[1])


def written_down(state, mi):
    history = optax_mi.MIHistory()
    history.record(state, epoch=0, mi=mi)
    return [row["mi"] for row in history.rows]


def of_rates(found):
    return [np.ravel(values)[0] for values in found.values()]


# `update` alone knows whether labels were given, and then refuses other layers.
GIVEN_LABELS = [name for name in MAKERS if "labels" in name]


@pytest.mark.parametrize("policy", tiers.quick(POLICIES, "with a memory"))
@pytest.mark.parametrize("around", tiers.quick(AROUND, "alone"))
@pytest.mark.parametrize("name", MAKERS)
def test_routes_that_take_a_mapping_agree_or_name_the_argument_that_helps(
    name, around, policy
):
    tx = AROUND[around](MAKERS[name](POLICIES[policy]))
    state, taken = tx.init(PARAMS), 0
    with jax.disable_jit():
        for mi in MAPPINGS:
            given, left = (outcome(way, tx, state, mi) for way in (updated, recorded))
            rows = outcome(written_down, state, mi)
            for found in (given, left, rows):
                if isinstance(found, str):
                    assert "`layer`" in found or "`default`" in found
            if isinstance(left, str):
                assert rows == left
                assert isinstance(given, str)
                continue
            assert rows == pytest.approx(of_rates(left))
            if isinstance(given, str):
                assert name in GIVEN_LABELS
                continue
            assert given == left, mi
            taken += 1
    assert taken >= 2


def test_a_rate_in_a_partition_by_hand_without_a_layer_takes_what_it_can_know():
    tx = one_trained(single(POLICIES["without a memory"]))
    state = tx.init(PARAMS)
    for mi in ({"": 1.0}, {"x": 1.7}, 1.2):
        assert updated(tx, state, mi) == recorded(tx, state, mi)
    both = {"train": 1.5, "": 1.0}
    assert of_rates(updated(tx, state, both)) == [1.0]  # it does not know its label
    assert of_rates(recorded(tx, state, both)) == [1.5]
    for way in (updated, recorded):
        with pytest.raises(ValueError, match="`layer`"):
            way(tx, state, {"dense": 1.0, "head": 2.0})


@pytest.mark.parametrize("policy", POLICIES)
def test_without_a_layer_or_a_default_the_state_is_as_it_was(policy):
    state = single(POLICIES[policy]).init(PARAMS)
    keys = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)]
    start = "" if policy == "without a memory" else ".inner.rate"
    assert f"{start}.learning_rate" in keys
    state = layerwise(POLICIES[policy]).init(PARAMS)
    keys = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)]
    start, end = ("", "") if policy == "without a memory" else (".inner", ".rate")
    assert f"{start}.inner_states['head'].inner_state{end}.learning_rate" in keys


NAMED = {
    "layer": lambda policy: single(policy, "blocks/0"),
    "the output": lambda policy: single(policy, ""),
    "default": lambda policy: layerwise(policy, "out/head"),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_names_are_saved_and_restored(tmp_path, named, policy):
    tx = optax.chain(optax.sgd(1.0), named(POLICIES[policy]))
    state = tx.init(PARAMS)
    mi = {"blocks/0": 1.0, "": 1.1, "out/head": 1.2}
    state = optax_mi.record_mi(state, mi)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave(state))
        from_orbax = manager.restore(1, args=ocp.args.StandardRestore(tx.init(PARAMS)))
    written = serialization.to_bytes(state)
    for found in (from_orbax, serialization.from_bytes(tx.init(PARAMS), written)):
        assert jax.tree.structure(found) == jax.tree.structure(state)
        jax.tree.map(np.testing.assert_array_equal, found, state)
        assert measured(optax_mi.record_mi(found, mi)) == measured(state)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)
        self.head = nnx.Linear(3, 1, rngs=rngs)


@pytest.mark.parametrize("policy", POLICIES)
def test_names_are_kept_by_nnx_scans_and_maps_over_parameters(policy):
    mi = {"dense": 1.1, "out": 1.3}
    for named, expected in (
        (single(POLICIES[policy], "out"), {1.3}),
        (layerwise(POLICIES[policy], "out"), {1.1, 1.3}),
    ):
        model = Model(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, named, wrt=nnx.Param)
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        pending = optax.tree.get_all_with_path(optimizer.opt_state, "pending")
        assert {round(float(value[...]), 3) for _, value in pending} == expected

        state = optax_mi.record_mi(named.init(PARAMS), mi)
        mapped = optax.tree.map_params(named, lambda p: p, state)
        assert jax.tree.structure(mapped) == jax.tree.structure(state)
        step = lambda state, _, tx=named: (tx.update(GRADS, state, PARAMS)[1], None)  # noqa: E731
        state, _ = jax.lax.scan(step, state, length=2)
        assert {round(value, 3) for value in of_rates(measured(state))} == expected


def test_a_state_of_another_layer_is_refused_with_both():
    policy = POLICIES["without a memory"]
    for tx, other, message in (
        (single(policy, "a"), single(policy, "b"), "layer='a', got .* layer='b'"),
        (single(policy, "a"), single(policy), "layer='a', got .* no layer"),
        (layerwise(policy, "a"), layerwise(policy), "default='a', got .* no default"),
    ):
        with pytest.raises(ValueError, match=f"`state` must be .*{message}"):
            tx.update(GRADS, other.init(PARAMS), PARAMS)


def test_a_name_that_is_no_string_is_refused():
    policy: Any = POLICIES["without a memory"]
    with pytest.raises(ValueError, match="`layer` must be a string, got int 0"):
        single(policy, 0)
    with pytest.raises(ValueError, match="`default` must be a string, got int 0"):
        layerwise(policy, 0)


def test_rates_keep_their_labels():
    policy = POLICIES["with a memory"]
    rates = optax_mi.learning_rates(single(policy, "head").init(PARAMS))
    assert [*rates] == [""]
    for tx in (layerwise(policy, "out"), by_hand(policy, dense="dense", head="out")):
        assert [*optax_mi.learning_rates(tx.init(PARAMS))] == ["dense", "head"]


def test_references_go_the_same_ways_and_need_no_default():
    policy = POLICIES["without a memory"]

    def references(tx, reference):
        state = optax_mi.record_mi(tx.init(PARAMS), None, reference)
        found = optax.tree.get_all_with_path(state, "reference")
        return [round(float(value), 3) for _, value in found]

    assert references(single(policy, "head"), {"head": 1.2, "": 1.0}) == [1.2]
    by_default = layerwise(policy, "out")
    assert references(by_default, {"dense": 1.1, "head": 1.2}) == [1.1, 1.2]
    assert references(by_default, {"dense": 1.1, "out": 1.3}) == [1.1, 1.3]
