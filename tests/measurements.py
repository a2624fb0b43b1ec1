"""Measurements, and the rates that policies make of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_mi

PARAMS = {
    "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "head": {"kernel": jnp.ones(3)},
}
GRADS = jax.tree.map(jnp.ones_like, PARAMS)

# d1 = 1 - mi / 2 and gamma = 0.1: +0.05 after the second, +0.025 after the third (kept
# at 0.1 at most), then saturated -0.025, then above the reference -0.01.
MEASUREMENTS = [0.5, 1.0, 1.5, 1.5, 2.2]
RATES = [0.001, 0.051, 0.076, 0.051, 0.041]
# Saturated at lr_min, +0.075, then +0.05 up to lr_max.
HEAD_MEASUREMENTS = [1.5, 1.5, 1.5, 0.5, 1.0]
HEAD_RATES = [0.001, 0.001, 0.001, 0.076, 0.1]


single = functools.partial(optax_mi.mi_dynamic_lr, policy=optax_mi.reference_policy())
layerwise = functools.partial(
    optax_mi.layerwise_mi_dynamic_lr, "auto", policy=optax_mi.reference_policy()
)


def transform(
    make: Callable[..., Any] = single, base: Any = None, **options: Any
) -> optax.GradientTransformationExtraArgs:
    options = {"reference": 2.0, **options}
    base = optax.sgd(1.0) if base is None else base
    return optax.chain(base, make(1e-3, 0.1, **options))


class Form(NamedTuple):
    """One rate or one for each layer, with what is measured and what follows."""

    make: Callable[..., optax.GradientTransformationExtraArgs]
    measurements: list[Any]
    rates: list[dict[str, float]]


PLAIN = Form(single, MEASUREMENTS, [{"": rate} for rate in RATES])
LAYERWISE = Form(
    layerwise,
    [
        {"dense": dense, "head": head}
        for dense, head in zip(MEASUREMENTS, HEAD_MEASUREMENTS, strict=True)
    ],
    [
        {"dense": dense, "head": head}
        for dense, head in zip(RATES, HEAD_RATES, strict=True)
    ],
)

# Doubled up to a fall by more than 3 % of the reference, from where a quarter is left;
# halved again after three measurements without a rise.
WITH_A_MEMORY = Form(
    functools.partial(
        optax_mi.mi_dynamic_lr, policy=optax_mi.warmup_stable_decay_policy()
    ),
    [0.5, 1.0, 1.5, 1.4, 1.5, 1.5, 1.5],
    [{"": rate / 1000} for rate in (2, 4, 8, 2, 2, 2, 1)],
)
# The least of the layers stands for the network: by it both fall at the fourth. Then
# the information of "dense" alone rises, which keeps its own rate up.
LAYERWISE_WITH_A_MEMORY = Form(
    functools.partial(
        optax_mi.layerwise_mi_dynamic_lr,
        "auto",
        policy=optax_mi.warmup_stable_decay_policy(),
    ),
    [
        {"dense": dense, "head": head}
        for dense, head in zip(
            [1.6, 1.6, 1.6, 1.6, 1.6, 1.7, 1.7],
            WITH_A_MEMORY.measurements,
            strict=True,
        )
    ],
    [
        {"dense": dense / 1000, "head": head / 1000}
        for dense, head in zip(
            (2, 4, 8, 2, 2, 2, 2), (2, 4, 8, 2, 2, 2, 1), strict=True
        )
    ],
)
FORMS = {
    "plain": PLAIN,
    "layer-wise": LAYERWISE,
    "with a memory": WITH_A_MEMORY,
    "layer-wise with a memory": LAYERWISE_WITH_A_MEMORY,
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
