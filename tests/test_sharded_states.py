"""Where the transformation's state lies beside parameters on eight virtual devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiers
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import optax_mi

pytestmark = pytest.mark.usefixtures("compiled_afresh")

DEVICES = 8
KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
POLICIES = {
    "default": optax_mi.warmup_stable_decay_policy(),
    "decay": optax_mi.decay_policy(),
    "change": optax_mi.change_policy(),
    "reference": optax_mi.reference_policy(),
}
RATES = {
    "one rate": optax_mi.mi_dynamic_lr,
    "layers": partial(optax_mi.layerwise_mi_dynamic_lr, "auto"),
}
ROWS = {
    f"{rate}, {policy}, {kind}": (RATES[rate], POLICIES[policy], KINDS[kind])
    for rate in RATES
    for policy in POLICIES
    for kind in KINDS
}
# A measurement and a loss of each step. At the third one training has diverged: a
# policy that can go back does so.
STEPS = [(1.0, 1.0), (1.5, 0.5), (np.nan, np.nan), (0.1, 0.5), (1.9, 0.4)]


def parameters(mesh):
    """Cut along one axis or another, and whole, in two dtypes."""

    def put(array, *spec):
        return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))

    return {
        "a": {
            "kernel": put(jnp.ones((2, 8, 4), jnp.float16), None, "x"),
            "bias": put(jnp.ones(16, jnp.float16), "x"),
        },
        "b": {"kernel": put(jnp.ones(3))},
    }


def same(now, then):
    """Whether types are the same, and arrays are cut as they were.

    A type has the sharding along explicit axes. A number may move to more devices.
    """
    cuts = [
        a.ndim == 0 or a.sharding.is_equivalent_to(b.sharding, a.ndim)
        for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(then), strict=True)
    ]
    return all(cuts) and jax.tree.map(jax.typeof, now) == jax.tree.map(jax.typeof, then)


@pytest.mark.parametrize("row", tiers.quick(ROWS, "one rate, default, explicit"))
def test_updates_leave_the_state_where_it_lies(row):
    rate, policy, kind = ROWS[row]
    tx = rate(1e-3, 0.1, policy=policy, reference=2.0)

    def step(params, state, mi, value):
        updates, state = tx.update(params, state, params, mi=mi, value=value)
        return optax.apply_updates(params, updates), state

    mesh = jax.make_mesh((DEVICES,), ("x",), axis_types=(kind,))
    donating = jax.jit(step, donate_argnums=(0, 1))
    with jax.set_mesh(mesh):
        params = parameters(mesh)
        start = params, tx.init(params)
        # Of a policy that cannot go back the state is numbers alone.
        assert same(optax.tree.get(start[1], "kept", params), params)
        params, state = step(*start, *STEPS[0])
        assert same((params, state), start)
        state = optax_mi.record_mi(state, 0.5)
        assert same(state, start[1])
        for measured in STEPS:
            params, state = donating(params, state, *measured)
            assert same((params, state), start)
