"""A training run whose data, steps, measurements and rates stay on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_mi
from examples.data import Dataset
from examples.paper.experiments import Optimizer, Row


class State(NamedTuple):
    """What a run carries; a leading axis of seeds where several run together."""

    params: Any
    opt_state: Any
    key: jax.Array  # of dropout


class Program(NamedTuple):
    """The compiled parts of an epoch, each a function of the state."""

    init: Callable[[jax.Array], State]
    train: Callable[[State, np.ndarray], tuple[State, jax.Array]]
    measure: Callable[[State], dict[str, jax.Array]]
    record: Callable[[State, dict[str, jax.Array]], State]
    evaluate: Callable[[State], jax.Array]


def compile_program(
    model: nn.Module,
    optimizer: Optimizer,
    data: Dataset,
    probe: optax_mi.Probe,
    row: Row,
    *,
    together: bool = False,
    scan: bool | None = None,
) -> Program:
    """Compiles training, measuring and testing for one optimizer.

    Args:
      model: A network with a `train` argument, which turns dropout on.
      optimizer: What is compared.
      data: Put on the device as a whole.
      probe: What is measured on.
      row: Says which layers are measured and how, and whether images are augmented.
      together: Whether states, keys and batches have a leading axis of seeds, which
        are mapped over. Worth it where there is an accelerator; it needs `scan`.
      scan: Whether an epoch is one compiled loop. By default where there is an
        accelerator. XLA's CPU backend is slow at convolutions within a loop (an epoch
        of `SmallCNN` took ten times as long on two cores, jax 0.10.2), so there steps
        are dispatched one after the other; nothing returns to the host between them
        either way.
    """
    if scan is None:
        scan = together or jax.default_backend() != "cpu"
    transformation = optimizer.transformation
    train_x, train_y = jnp.asarray(data.train_x), jnp.asarray(data.train_y)
    test_x, test_y = jnp.asarray(data.test_x), jnp.asarray(data.test_y)

    def predict(params: Any, x: jax.Array, **options: Any) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x, **options))

    def step(state: State, batch: jax.Array) -> tuple[State, jax.Array]:
        key, dropout = jax.random.split(state.key)
        x, y = train_x[batch], train_y[batch]
        if row.augment:
            x = flip_and_shift(jax.random.fold_in(dropout, 1), x)

        def loss(params: Any) -> jax.Array:
            logits = predict(params, x, train=True, rngs={"dropout": dropout})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt_state = transformation.update(
            gradients, state.opt_state, state.params, value=value
        )
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, key), value

    def init(key: jax.Array) -> State:
        params = model.init(key, train_x[:1])["params"]
        return State(params, transformation.init(params), jax.random.fold_in(key, 1))

    def measure(state: State) -> dict[str, jax.Array]:
        found = optax_mi.capture_activations(
            model,
            {"params": optimizer.eval_params(state.opt_state, state.params)},
            probe.inputs,
            layers=row.layers,
            max_features=1024,
        )
        estimator = partial(optax_mi.ksg_discrete, k=row.measuring.k)
        return optax_mi.estimate_mi(found, probe.outcomes, estimator=estimator)

    def record(state: State, mi: dict[str, jax.Array]) -> State:
        if not optimizer.follows_mi:
            return state
        return state._replace(opt_state=optax_mi.record_mi(state.opt_state, mi))

    def evaluate(state: State) -> jax.Array:
        params = optimizer.eval_params(state.opt_state, state.params)
        n = len(test_x)
        size = next(s for s in (1000, 500, 100, 60, 1) if n % s == 0)

        def hits(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            x, y = batch
            return (predict(params, x).argmax(axis=-1) == y).sum()

        parts = [a.reshape(n // size, size, *a.shape[1:]) for a in (test_x, test_y)]
        if scan:
            return jax.lax.map(hits, tuple(parts)).sum() / n
        return jnp.stack([hits(part) for part in zip(*parts, strict=True)]).sum() / n

    lift: Callable[..., Any] = jax.vmap if together else _as_it_is
    one_step = jax.jit(step, donate_argnums=0)
    one_epoch = jax.jit(lift(partial(jax.lax.scan, step)), donate_argnums=0)

    def train(state: State, batches: np.ndarray) -> tuple[State, jax.Array]:
        """Trains on the indices [..., steps, batch_size]; returns the mean loss."""
        if scan:
            state, losses = one_epoch(state, jnp.asarray(batches))
            return state, losses.mean(axis=-1)
        losses = []
        for batch in jnp.asarray(batches):
            state, loss = one_step(state, batch)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    return Program(
        jax.jit(lift(init)),
        train,
        jax.jit(lift(measure)),
        jax.jit(lift(record)),
        jax.jit(lift(evaluate)),
    )


def flip_and_shift(key: jax.Array, images: jax.Array, most: int = 5) -> jax.Array:
    """Flips half of the images, and shifts all by up to `most` pixels either way."""
    keys = jax.random.split(key)
    flipped = jax.random.bernoulli(keys[0], shape=(len(images), 1, 1, 1))
    images = jnp.where(flipped, images[:, :, ::-1], images)
    edges = ((0, 0), (most, most), (most, most), (0, 0))
    corners = jax.random.randint(keys[1], (len(images), 2), 0, 2 * most + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        start = (corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(image, start, images.shape[1:])

    return jax.vmap(crop)(jnp.pad(images, edges), corners)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
