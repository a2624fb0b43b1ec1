"""Regression: the default policy beside tuned rates and the paper's policies.

    python -m examples.regression
    python -m examples.regression --base adam
    python -m examples.regression --data diabetes

Trains a perceptron on scikit-learn's Friedman1 or its diabetes data, all seeds in one
compiled program for each method, and prints the mean squared errors as a table.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn import datasets

import optax_mi
from examples.common.report import markdown

LAST = 5  # an error is the mean over so many epochs at the end

Part = tuple[Any, Any]  # inputs [n, d] and outcomes [n]


class Sizes(NamedTuple):
    """Of the three parts of a data set, and of a batch."""

    train: int
    held_out: int
    test: int
    batch: int
    within_reach: float  # an R2 to hope for


SIZES = {
    "friedman1": Sizes(1000, 300, 2000, batch=20, within_reach=0.95),
    "diabetes": Sizes(240, 100, 102, batch=10, within_reach=0.5),
}


class Base(NamedTuple):
    """A base optimizer, bounds for its rate, and fixed rates to try."""

    optimizer: optax.GradientTransformation
    bounds: tuple[float, float]
    narrow: tuple[float, float]  # the paper's policies need them
    rates: tuple[float, ...]


BASES = {
    "sgd": Base(
        optax.sgd(1.0),
        (1e-4, 3.0),
        (1e-3, 0.1),
        (3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0),
    ),
    "momentum": Base(
        optax.sgd(1.0, momentum=0.9),
        (1e-5, 1.0),
        (1e-4, 0.01),
        (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3),
    ),
    "adam": Base(
        optax.adam(1.0),
        (1e-6, 0.1),
        (1e-4, 0.01),
        (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1),
    ),
}


class Split(NamedTuple):
    """Data in three parts, in standard deviations of those trained on."""

    train: Part
    held_out: Part  # for measuring, and for choosing among rates
    test: Part  # for the report alone


class Method(NamedTuple):
    """How a rate is set, and what is measured for it."""

    rate: Any
    probe: str = "held_out"  # or "train"
    k: int = 10  # neighbours; three, the usual number, are noisier
    dense_epochs: int = 2
    measures: bool = True
    reference: Any = None  # nats, or "input"


class Perceptron(nn.Module):
    """Two hidden layers of 64."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, d] to [n, 1]."""
        for _ in range(2):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(1)(x)


model = Perceptron()


def load(name: str, seed: int) -> Split:
    """The data of one seed."""
    sizes = SIZES[name]
    n = sizes.train + sizes.held_out + sizes.test
    if name == "friedman1":
        x, y = datasets.make_friedman1(n, noise=1.0, random_state=seed)
    else:
        x, y = datasets.load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order].astype(np.float32)
    x, y = (
        (a - a[: sizes.train].mean(axis=0)) / a[: sizes.train].std(axis=0)
        for a in (x, y)
    )
    ends = [sizes.train, sizes.train + sizes.held_out]
    return Split(*zip(np.split(x, ends), np.split(y, ends), strict=True))


def squared_error(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """The mean over the examples."""
    return jnp.mean((jnp.asarray(model.apply(params, x))[:, 0] - y) ** 2)


def train(
    base: Base, method: Method, splits: Sequence[Split], batch: int, epochs: int
) -> dict[str, np.ndarray]:
    """Trains the seeds together; all columns are [epochs, seeds].

    Returns:
      The error on "held_out" and "test" data, the "rate", and the information, "mi".
    """
    data: Split = jax.tree.map(lambda *arrays: jnp.stack(arrays), *splits)
    probe = optax_mi.Probe(*getattr(data, method.probe))
    tx = optax.with_extra_args_support(optax.chain(base.optimizer, method.rate))

    def start(key: jax.Array, probe: optax_mi.Probe) -> Any:
        params = model.init(key, probe.inputs[:1])
        state, reference = tx.init(params), method.reference
        if reference == "input":
            reference = optax_mi.reference_mi(probe, "input", k=method.k)
        if reference is not None:
            state = optax_mi.record_mi(state, None, reference=reference)
        return params, state

    keys = jnp.stack([jax.random.key(seed) for seed in range(len(splits))])
    params, state = jax.vmap(start)(keys, probe)
    n = len(splits[0].train[1])
    orders = [np.random.default_rng(seed) for seed in range(len(splits))]
    batches = [
        [rng.permutation(n)[: n // batch * batch].reshape(-1, batch) for rng in orders]
        for _ in range(epochs)
    ]
    epoch = partial(_epoch, tx, method, data, probe)
    run = jax.jit(partial(jax.lax.scan, epoch))
    carry = params, state, 0, jnp.full(len(splits), jnp.nan)
    _, found = run(carry, jnp.asarray(np.array(batches).swapaxes(1, 2)))
    return jax.tree.map(np.asarray, found)


def _epoch(
    tx: optax.GradientTransformationExtraArgs,
    method: Method,
    data: Split,
    probe: optax_mi.Probe,
    carry: Any,
    batches: jax.Array,
) -> Any:
    due = optax_mi.measurement_steps(len(batches), dense_epochs=method.dense_epochs)

    def measure(params: Any) -> jax.Array:
        return jax.vmap(measured)(params, probe)

    def measured(params: Any, probe: optax_mi.Probe) -> jax.Array:
        output = {"": jnp.asarray(model.apply(params, probe.inputs))}
        return optax_mi.estimate_mi(output, probe.outcomes, k=method.k)[""]

    @jax.vmap
    def updated(params: Any, state: Any, mi: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradients = jax.value_and_grad(squared_error)(params, x, y)
        updates, state = tx.update(gradients, state, params, mi=mi, value=value)
        return optax.apply_updates(params, updates), state

    def step(carry: Any, i: jax.Array) -> Any:
        params, state, number, last = carry
        none = jnp.full_like(last, jnp.nan)
        mi = none
        if method.measures:
            mi = jax.lax.cond(due(number), measure, lambda _: none, params)
        x, y = (jax.vmap(lambda a, i: a[i])(a, i) for a in data.train)
        params, state = updated(params, state, mi, x, y)
        return (params, state, number + 1, jnp.where(jnp.isnan(mi), last, mi)), None

    carry, _ = jax.lax.scan(step, carry, batches)
    params, state, _, mi = carry
    rate = optax.tree.get(state, "learning_rate", jnp.full_like(mi, jnp.nan))
    held_out, test = (
        jax.vmap(squared_error)(params, *part) for part in (data.held_out, data.test)
    )
    return carry, {"mi": mi, "rate": rate, "held_out": held_out, "test": test}


def methods(base: Base, within_reach: float) -> dict[str, Method]:
    """All but the tuned ones."""
    wide = optax_mi.mi_dynamic_lr(*base.bounds)
    change = optax_mi.mi_dynamic_lr(*base.narrow, policy=optax_mi.change_policy())
    reference = optax_mi.mi_dynamic_lr(*base.narrow, policy=optax_mi.reference_policy())
    papers: Any = {"probe": "train", "dense_epochs": 0}
    nats = -0.5 * np.log(1 - within_reach)
    return {
        "default": Method(wide),
        "default, k=3": Method(wide, k=3),
        "default, training examples": Method(wide, probe="train"),
        "change_policy": Method(change, **papers),
        'reference_policy, "input"': Method(reference, **papers, reference="input"),
        f"reference_policy, {nats:.2f} nats": Method(
            reference, **papers, reference=nats
        ),
    }


def tuned(base: Base, steps: int) -> dict[str, list[Method]]:
    """Rates that are tried, of which the held-out error chooses one."""
    falling = [optax.cosine_decay_schedule(rate, steps) for rate in base.rates]
    return {
        "tuned fixed rate": [
            Method(optax.scale(rate), measures=False) for rate in base.rates
        ],
        "tuned cosine": [
            Method(optax.scale_by_schedule(s), measures=False) for s in falling
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each method."""
    prog, layout = "python -m examples.regression", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=layout
    )
    parser.add_argument("--data", choices=SIZES, default="friedman1")
    parser.add_argument("--base", choices=BASES, default="sgd")
    parser.add_argument("--seeds", type=int, default=8, help="0 to one less than this")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args(arguments)
    base, sizes = BASES[args.base], SIZES[args.data]
    splits = [load(args.data, seed) for seed in range(args.seeds)]
    run = partial(train, base, splits=splits, batch=sizes.batch, epochs=args.epochs)

    def row(name: str, found: dict[str, np.ndarray], rate: str) -> list[str]:
        errors = found["test"][-LAST:].mean(axis=0)
        return [name, *(f"{e:.3f}" for e in (errors.mean(), errors.max())), rate]

    rows = []
    steps = args.epochs * (sizes.train // sizes.batch)
    for name, tried in tuned(base, steps).items():
        runs = [run(method) for method in tried]
        best = np.nanargmin([found["held_out"][-LAST:].mean() for found in runs])
        rows.append(row(name, runs[best], f"{base.rates[best]:g}"))
    for name, method in methods(base, sizes.within_reach).items():
        found = run(method)
        ends = np.median(found["rate"].max(axis=0)), np.median(found["rate"][-1])
        rows.append(row(name, found, f"{ends[0]:.2g}, {ends[1]:.2g}"))
    header = ["", "test error", "worst seed", "rate: highest, at last (medians)"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
