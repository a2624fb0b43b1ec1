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
from examples.paper.experiments import Row
from examples.paper.optimizers import Optimizer

Examples = tuple[jax.Array, jax.Array]  # images and classes

TEST_BATCH = 1000


class State(NamedTuple):
    """What a run carries; a leading axis of seeds where several run together."""

    params: Any
    opt_state: Any
    key: jax.Array  # of dropout


class Program(NamedTuple):
    """The compiled parts of an epoch, each a function of the state."""

    train: Callable[[State, np.ndarray], tuple[State, jax.Array]]
    evaluate: Callable[[State], jax.Array]
    init: Callable[[jax.Array], State]
    measure: Callable[[State], dict[str, jax.Array]]
    record: Callable[[State, dict[str, jax.Array]], State]


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
    # Arguments of what is compiled, not constants in it: those are copied and slow.
    train_set = (jnp.asarray(data.train_x), jnp.asarray(data.train_y))
    test_set = (jnp.asarray(data.test_x), jnp.asarray(data.test_y))

    def predict(params: Any, x: jax.Array, **options: Any) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x, **options))

    def step(
        examples: Examples, state: State, batch: jax.Array
    ) -> tuple[State, jax.Array]:
        key, dropout = jax.random.split(state.key)
        x, y = (array[batch] for array in examples)
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

    def epoch(
        examples: Examples, state: State, batches: jax.Array
    ) -> tuple[State, jax.Array]:
        return jax.lax.scan(partial(step, examples), state, batches)

    def init(key: jax.Array) -> State:
        params = model.init(key, probe.inputs[:1])["params"]
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

    def hits(examples: Examples, state: State) -> jax.Array:
        params = optimizer.eval_params(state.opt_state, state.params)

        def right(x: jax.Array, y: jax.Array) -> jax.Array:
            return predict(params, x).argmax(axis=-1) == y

        if not scan:
            return right(*examples).sum()
        singles = jax.tree.map(lambda array: array[:, None], examples)
        return jax.lax.map(
            lambda one: right(*one), singles, batch_size=TEST_BATCH
        ).sum()

    lift: Callable[..., Any] = partial(_over_seeds, together)
    one_step = jax.jit(step, donate_argnums=1)
    one_epoch = jax.jit(lift(epoch, 1), donate_argnums=1)
    all_hits = jax.jit(lift(hits, 1))

    def train(state: State, batches: np.ndarray) -> tuple[State, jax.Array]:
        """Trains on the indices [..., steps, batch_size]; returns the mean loss."""
        if scan:
            state, losses = one_epoch(train_set, state, jnp.asarray(batches))
            return state, losses.mean(axis=-1)
        losses = []
        for batch in jnp.asarray(batches):
            state, loss = one_step(train_set, state, batch)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    def evaluate(state: State) -> jax.Array:
        """The share of the test set that is told right."""
        n = len(data.test_x)
        starts = [0] if scan else range(0, n, TEST_BATCH)
        length = n if scan else TEST_BATCH
        parts = ([array[i : i + length] for array in test_set] for i in starts)
        return jnp.stack([all_hits(tuple(part), state) for part in parts]).sum(0) / n

    once = (jax.jit(lift(function)) for function in (init, measure, record))
    return Program(train, evaluate, *once)


def _over_seeds(
    together: bool, function: Callable[..., Any], shared: int = 0
) -> Callable[..., Any]:
    """Maps over the seeds of all arguments but the first ones, which all share."""
    if not together:
        return function

    def mapped(*args: Any) -> Any:
        return jax.vmap(partial(function, *args[:shared]))(*args[shared:])

    return mapped


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
