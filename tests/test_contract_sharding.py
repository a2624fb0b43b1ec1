"""Optax's own tests of sharded states, run on ours."""

import importlib.util

import jax
import pytest
from absl.testing import parameterized

import optax_mi

pytestmark = pytest.mark.usefixtures("compiled_afresh")

POLICIES = {
    "default": optax_mi.warmup_stable_decay_policy(),
    "decay": optax_mi.decay_policy(),
    "change": optax_mi.change_policy(),
    "reference": optax_mi.reference_policy(),
}


def by_leaf(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path), params
    )


def entries():
    for name, policy in POLICIES.items():
        options = {"policy": policy, "reference": 2.0}
        yield f"mi_{name}", optax_mi.mi_dynamic_lr(1e-3, 0.1, **options)
        layers = optax_mi.layerwise_mi_dynamic_lr(by_leaf, 1e-3, 0.1, **options)
        yield f"layerwise_mi_{name}", layers


def contract():
    """The suite's tests with our entries in the place of its own."""
    # Releases up to 0.2.8 have none.
    spec = importlib.util.find_spec("optax.contrib._sharding_test")
    if spec is None or spec.loader is None:
        pytest.skip("this Optax ships no suite of sharding", allow_module_level=True)
    module = importlib.util.module_from_spec(spec)
    named, ours, tables = parameterized.named_parameters, dict(entries()), []

    def named_by_us(table):
        tables.append(dict(table))
        return named(ours.items())

    with pytest.MonkeyPatch.context() as patch:
        # They bind their table when they are decorated.
        patch.setattr(parameterized, "named_parameters", named_by_us)
        spec.loader.exec_module(module)
    assert tables
    for table in tables:
        assert all(hasattr(entry, "update") for entry in table.values())
    suite = module.ContribShardingTest
    tests = [name for name in dir(suite) if name.startswith("test")]
    assert len(tests) >= len(tables) * len(ours)
    return suite


class TestContract(contract()):
    pass
