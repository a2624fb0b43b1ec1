"""One training run, measured after every epoch."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_mi
from examples.data import Dataset


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to set the learning rate.

    Attributes:
      name: What tables and pictures call it.
      optimizer: The optimizer, its learning rate included.
      learning_rate: Reads the rate in force from the optimizer's state.
      follows_mi: Whether measurements go to the optimizer.
    """

    name: str
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Any], float]
    follows_mi: bool = False


class Epoch(NamedTuple):
    """What one epoch did."""

    epoch: int
    learning_rate: float  # in force at the epoch's last step
    loss: float  # mean over the epoch's batches
    mi: float  # I(H; Y) of the network's output after the epoch, in nats
    accuracy: float  # on the test set, after the epoch


def scheduled(name: str, schedule: optax.Schedule) -> Method:
    """Plain SGD with a learning rate known in advance."""
    optimizer = optax.chain(optax.sgd(1.0), optax.scale_by_schedule(schedule))

    def learning_rate(state: Any) -> float:
        last_step = optax.tree.get(state, "count") - 1
        return float(np.asarray(schedule(last_step)))

    return Method(name, optimizer, learning_rate)


def mi_driven(name: str, lr_min: float, lr_max: float, **options: Any) -> Method:
    """Plain SGD with a learning rate that mutual information sets."""
    optimizer = optax.chain(
        optax.sgd(1.0), optax_mi.mi_dynamic_lr(lr_min, lr_max, **options)
    )

    def learning_rate(state: Any) -> float:
        return optax_mi.learning_rates(state)[""]

    return Method(name, optimizer, learning_rate, follows_mi=True)


def train(
    model: nn.Module,
    data: Dataset,
    method: Method,
    probe: optax_mi.Probe,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    estimator: optax_mi.Estimator | None = None,
    on_step: Callable[[], Any] = lambda: None,
) -> Iterator[Epoch]:
    """Trains a model and yields a record after each epoch.

    The same seed gives the same initial parameters and the same batches to every
    method.
    """
    optimizer = method.optimizer

    def predict(params: Any, x: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply({"params": params}, x))

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = predict(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, x, y)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    @jax.jit
    def measure(params: Any) -> jax.Array:
        activations = optax_mi.capture_activations(
            model, {"params": params}, probe.inputs, layers="logits"
        )
        mi = optax_mi.estimate_mi(activations, probe.outcomes, estimator=estimator)
        return mi["logits"]

    @jax.jit
    def correct(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return predict(params, x).argmax(axis=-1) == y

    params = model.init(jax.random.key(seed), data.train_x[:1])["params"]
    opt_state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        losses = []
        for batch in batches(rng, len(data.train_x), batch_size):
            params, opt_state, value = step(
                params, opt_state, data.train_x[batch], data.train_y[batch]
            )
            losses.append(value)
            on_step()
        learning_rate = method.learning_rate(opt_state)
        mi = measure(params)
        if method.follows_mi:
            opt_state = optax_mi.record_mi(opt_state, mi)
        hits = [
            correct(params, data.test_x[i : i + 1000], data.test_y[i : i + 1000])
            for i in range(0, len(data.test_x), 1000)
        ]
        accuracy = float(np.mean(np.concatenate(hits)))
        mean_loss = float(np.mean(jax.device_get(losses)))
        yield Epoch(epoch, learning_rate, mean_loss, float(mi), accuracy)


def batches(rng: np.random.Generator, n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the indices of an epoch's batches in random order; a rest is left out."""
    order = rng.permutation(n)
    for start in range(0, n - batch_size + 1, batch_size):
        yield order[start : start + batch_size]
