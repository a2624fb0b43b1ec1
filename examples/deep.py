"""Measures a deep network block by block, and trains each block at its own rate.

A ResNet-50 on images of 64 x 64, or a transformer of 12 blocks on text: what to measure
of so many modules, a probe that passes in batches, and what it takes in time and
memory. Run with `python -m examples.deep resnet` or `python -m examples.deep
transformer`.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optax_mi
from examples.common import data, text

SIZE = 64  # height and width of images
BLOCKS = 12  # of the transformer
SEQUENCES = 200  # whose positions the transformer is measured at


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels beside a shortcut."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [n, h, w, c] to [n, h / strides, w / strides, 4 features]."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        y = nn.relu(norm()(nn.Conv(self.features, (1, 1), use_bias=False)(x)))
        y = nn.Conv(self.features, (3, 3), self.strides, use_bias=False)(y)
        y = nn.Conv(4 * self.features, (1, 1), use_bias=False)(nn.relu(norm()(y)))
        y = norm(scale_init=nn.initializers.zeros)(y)
        if y.shape != x.shape:
            shortcut = nn.Conv(y.shape[-1], (1, 1), self.strides, use_bias=False)
            x = norm()(shortcut(x))
        return nn.relu(x + y)


class ResNet50(nn.Module):
    """He et al.'s (2016) network of 16 blocks; logits."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, 3] to logits [n, 10]."""
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False, name="stem")(x)
        x = nn.BatchNorm(use_running_average=not train, name="stem_norm")(x)
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), "SAME")
        for i, blocks in enumerate((3, 4, 6, 3)):
            for j in range(blocks):
                strides = 2 if i and not j else 1
                x = Bottleneck(64 * 2**i, strides, name=f"block_{i}_{j}")(x, train)
        return nn.Dense(10, name="head")(x.mean((1, 2)))


class Task(NamedTuple):
    """What the program does with either network."""

    measure: Callable[[Any], dict[str, jax.Array]]  # of a state, each layer
    step: Callable[[Any, Any, Any], Any]  # from a state and a batch to a state
    opt_state: Callable[[Any], Any]
    record: Callable[[Any, Any], Any]
    state: Any
    batches: Iterator[Any]


def optimizer(reference: Any) -> optax.GradientTransformationExtraArgs:
    """Adam's updates at a rate for each module, which its block's information sets."""
    rates = optax_mi.layerwise_mi_dynamic_lr("auto", 1e-5, 1e-2, reference=reference)
    return optax.chain(optax.adam(1.0), rates)


class Trained(NamedTuple):
    """A ResNet in training."""

    variables: Any
    opt_state: Any


def resnet(name: str, data_dir: str | None, examples: int, batch_size: int) -> Task:
    """Measures the output of each block, 100 images at a time."""

    def resized(images: np.ndarray) -> np.ndarray:
        factor = -(-SIZE // images.shape[1])
        large = images.repeat(factor, axis=1).repeat(factor, axis=2)[:, :SIZE, :SIZE]
        return np.broadcast_to(large, (*large.shape[:3], 3))

    dataset = data.hold_out(data.load(name, data_dir))
    x, y = dataset.held_out
    probe = optax_mi.sample_probe(jax.random.key(1), x, y, size=min(1000, len(x)))
    images, model = resized(np.asarray(probe.inputs)), ResNet50()
    tx = optimizer(optax_mi.reference_mi(probe))

    @jax.jit
    def begin(key: jax.Array) -> Trained:
        variables = model.init(key, jnp.zeros((1, SIZE, SIZE, 3)))
        return Trained(variables, tx.init(variables["params"]))

    def measure(state: Trained) -> dict[str, jax.Array]:
        # NumPy images stay on the host but for a batch. The batches share what is
        # compiled, and so do layers of one shape.
        layers = optax_mi.capture_activations(
            model, state.variables, images, layers=(Bottleneck, ""), batch_size=100
        )
        return optax_mi.estimate_mi(layers, probe.outcomes)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Trained, x: jax.Array, y: jax.Array) -> Trained:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            given = {**state.variables, "params": params}
            logits, changed = model.apply(given, x, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), changed

        params = state.variables["params"]
        gradient, changed = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, state.opt_state, params)
        params = optax.apply_updates(params, updates)
        return Trained({"params": params, **changed}, opt_state)

    def batches() -> Iterator[Any]:
        order = np.random.default_rng(0).permutation(len(dataset.train_x))[:examples]
        for i in order[: len(order) // batch_size * batch_size].reshape(-1, batch_size):
            yield resized(dataset.train_x[i]), dataset.train_y[i]

    def record(state: Trained, mi: Any) -> Trained:
        return state._replace(opt_state=optax_mi.record_mi(state.opt_state, mi))

    begun = begin(jax.random.key(0))
    return Task(measure, step, lambda s: s.opt_state, record, begun, batches())


def transformer(examples: int, batch_size: int) -> Task:
    """Measures the output of each block, at 1000 characters of 200 pages' parts."""
    train, held_out, characters = text.load_text()
    x, y = text.windows(held_out)
    probe = optax_mi.sample_probe(jax.random.key(1), x, y, size=SEQUENCES)
    positions = optax_mi.sample_positions(jax.random.key(2), probe.outcomes, size=1000)
    model = text.Transformer(characters, nnx.Rngs(0), blocks=BLOCKS)
    reference = optax_mi.label_entropy(positions.outcomes)
    optimized = nnx.Optimizer(model, optimizer(reference), wrt=nnx.Param)

    @nnx.jit
    def measure(state: Any) -> dict[str, jax.Array]:
        layers = optax_mi.capture_activations(
            state[0],
            None,
            probe.inputs,
            layers=("blocks/layers/*", ""),
            positions=positions,
            batch_size=50,
        )
        return optax_mi.estimate_mi(layers, positions.outcomes)

    @nnx.jit
    def update(state: Any, x: jax.Array, y: jax.Array) -> None:
        model, optimized = state
        gradient = nnx.grad(text.cross_entropy)(model, x, y)
        optimized.update(model, gradient)

    def step(state: Any, x: Any, y: Any) -> Any:
        update(state, x, y)
        return state

    def record(state: Any, mi: Any) -> Any:
        state[1].opt_state = optax_mi.record_mi(state[1].opt_state, mi)
        return state

    def batches() -> Iterator[Any]:
        rng = np.random.default_rng(0)
        for _ in range(examples // batch_size):
            starts = rng.integers(0, len(train) - text.CONTEXT, batch_size)
            yield text.windows(train, starts)

    begun = (model, optimized)
    return Task(measure, step, lambda s: s[1].opt_state, record, begun, batches())


def gigabytes() -> float:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(task: Task, due: Callable[[int], bool]) -> None:
    """Measures twice, trains an epoch, and measures again; prints what that took."""
    state = task.state

    def timed(name: str, call: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        result = jax.block_until_ready(call(*args))
        took = time.perf_counter() - start
        print(f"{name}: {took:.1f} s, {gigabytes():.1f} GB at most", flush=True)
        return result

    before = timed("first measurement", task.measure, state)
    timed("second measurement", task.measure, state)

    def epoch(state: Any) -> Any:
        for number, batch in enumerate(task.batches):
            if due(number):
                state = task.record(state, task.measure(state))
            state = task.step(state, *batch)
        return state

    state = timed("an epoch", epoch, state)
    after = timed("measurement after it", task.measure, state)
    rates = optax_mi.learning_rates(task.opt_state(state))
    print("\nlayer: nats before and after")
    for layer in before:
        print(f"{layer or 'output'}: {before[layer]:.2f} {after[layer]:.2f}")
    print(f"\n{len(rates)} rates, from {min(rates.values()):.2g} ", end="")
    print(f"to {max(rates.values()):.2g}")


def main(arguments: list[str] | None = None) -> None:
    """Runs either network."""
    prog = "python -m examples.deep"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("network", choices=("resnet", "transformer"))
    parser.add_argument("--dataset", choices=data.NAMES, default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--examples", type=int, default=640, help="of the epoch")
    parser.add_argument("--measurements", type=int, default=5, help="in the epoch")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args(arguments)
    steps = args.examples // args.batch_size
    if not 1 <= args.measurements <= steps:
        parser.error(f"--measurements must be from 1 to the {steps} steps")
    if args.network == "resnet":
        task = resnet(args.dataset, args.data_dir, args.examples, args.batch_size)
    else:
        task = transformer(args.examples, args.batch_size)
    run(task, optax_mi.measurement_steps(steps, per_epoch=args.measurements))


if __name__ == "__main__":
    main()
