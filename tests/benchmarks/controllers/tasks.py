"""What the controllers are tried on: data in three parts, a network, a score."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optax_mi
from examples.common import text as texts
from examples.common.data import Dataset, load

Part = tuple[np.ndarray, np.ndarray]  # inputs and outcomes


class Score(NamedTuple):
    """How outputs are judged. No run counts as worse than knowing nothing."""

    unit: str
    of: Callable[[jax.Array, jax.Array], jax.Array]
    worst: float
    lower_is_better: bool = False

    def __call__(self, outputs: jax.Array, outcomes: jax.Array) -> float:
        """The score, that of knowing nothing where it is worse or not finite."""
        value = float(self.of(outputs, outcomes))
        if not np.isfinite(value):
            return self.worst
        return (min if self.lower_is_better else max)(value, self.worst)


class Task(NamedTuple):
    """What is trained, on what, and how it is judged."""

    train: Part
    held_out: Part  # for tuning; the held-out probe is drawn from it
    test: Part  # for the report alone
    init: Callable[[jax.Array], Any]  # parameters of a key
    predict: Callable[[Any, jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]  # the mean over examples
    score: Score
    batch_size: int
    epochs: int
    most_steps: int | None = None  # of an epoch, where it is not the whole data
    # Whether an epoch is one compiled loop: XLA's CPU backend is slow at convolutions
    # within one.
    loop: bool = True
    reference: float | None = None  # nats; by default the entropy of the classes
    # What of outputs and outcomes is measured.
    measured: Callable[[Any], Any] = lambda values: values

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return min(len(self.train[0]) // self.batch_size, self.most_steps or 2**31)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of right answers in %, 0 where logits are not finite."""
    right = (logits.argmax(axis=-1) == labels) & jnp.isfinite(logits).all(axis=-1)
    return 100 * right.mean()


def explained(outputs: jax.Array, outcomes: jax.Array) -> jax.Array:
    """R2 in %."""
    return 100 * (1 - jnp.mean((outputs[:, 0] - outcomes) ** 2) / outcomes.var())


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Nats an outcome."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def squared_error(outputs: jax.Array, outcomes: jax.Array) -> jax.Array:
    """Of standardized outcomes."""
    return jnp.mean((outputs[:, 0] - outcomes) ** 2)


class Perceptron(nn.Module):
    """Dense layers with ReLUs between; flattens its inputs."""

    widths: tuple[int, ...]
    outputs: int = 10

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, ...] to [n, outputs]."""
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(x))
        return nn.Dense(self.outputs)(x)


class StridedCNN(nn.Module):
    """Two convolutions with strides of two, and two dense layers.

    A quarter of the time of the examples' small network with its pools: runs may be as
    long as those of the perceptrons.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to [n, 10]."""
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (3, 3), strides=2)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def of_module(module: nn.Module, example: np.ndarray) -> dict[str, Any]:
    """Flax's functions as a task has them."""

    def init(key: jax.Array) -> Any:
        return module.init(key, jnp.asarray(example))["params"]

    def predict(params: Any, x: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply({"params": params}, x))

    return {"init": init, "predict": predict}


def of_images(
    data: Dataset, module: nn.Module, held_out: int, test: int, **options: Any
) -> Task:
    """The last training images are held out; of the test images, the first."""
    x, y = data.train_x, data.train_y
    n = len(x) - held_out
    return Task(
        train=(x[:n], y[:n]),
        held_out=(x[n:], y[n:]),
        test=(data.test_x[:test], data.test_y[:test]),
        loss=cross_entropy,
        score=Score("%", accuracy, 0.0),
        **of_module(module, x[:1]),
        **options,
    )


images = cache(load)  # a set is read once


def digits(data_dir: str | None) -> Task:
    """scikit-learn's."""
    del data_dir
    options: Any = {"held_out": 200, "test": 360, "batch_size": 16, "epochs": 40}
    return of_images(images("digits"), Perceptron((64,)), **options)


def mnist(data_dir: str | None) -> Task:
    """A fifth of MNIST."""
    data = images("mnist", data_dir, 13_000)
    options: Any = {"held_out": 1000, "test": 5000, "batch_size": 100, "epochs": 30}
    return of_images(data, Perceptron((128, 64)), **options)


def mnist_wrong(data_dir: str | None, share: float) -> Task:
    """The same, with classes drawn at random for a share of what it learns from."""
    task, rng = mnist(data_dir), np.random.default_rng(9)

    def spoilt(part: Part) -> Part:
        x, y = part
        wrong = rng.random(len(y)) < share
        return x, np.where(wrong, rng.integers(0, 10, len(y)), y).astype(np.int32)

    return task._replace(train=spoilt(task.train), held_out=spoilt(task.held_out))


def mnist_rare(data_dir: str | None) -> Task:
    """The same, with a twentieth of the eights and nines; all of them in the test."""
    task, rng = mnist(data_dir), np.random.default_rng(9)

    def thinned(part: Part) -> Part:
        x, y = part
        kept = (y < 8) | (rng.random(len(y)) < 0.05)
        return x[kept], y[kept]

    return task._replace(train=thinned(task.train), held_out=thinned(task.held_out))


def convolutional(data_dir: str | None, name: str) -> Task:
    """Half as many images, for a network that takes longer."""
    data = images(name, data_dir, 7000)
    options: Any = {"held_out": 1000, "test": 3000, "batch_size": 100, "epochs": 30}
    return of_images(data, StridedCNN(), loop=False, **options)


def transformer(data_dir: str | None) -> Task:
    """The examples' language model; half of its held-out text is the test."""
    del data_dir
    text, held_out, characters = texts.load_text()
    middle, context = len(held_out) // 2, texts.CONTEXT

    def part(text: np.ndarray, stride: int) -> Part:
        starts = np.arange(0, len(text) - context, stride)
        whole = text[starts[:, None] + np.arange(context + 1)].astype(np.int32)
        return whole[:, :-1], whole[:, 1:]

    def init(key: jax.Array) -> Any:
        model = texts.Transformer(characters, nnx.Rngs(key))
        return nnx.state(model, nnx.Param)

    structure = nnx.graphdef(texts.Transformer(characters, nnx.Rngs(0)))
    return Task(
        train=part(text, 8),
        held_out=part(held_out[:middle], context // 2),
        test=part(held_out[middle:], context),
        init=init,
        predict=lambda params, x: nnx.merge(structure, params)(x),
        loss=cross_entropy,
        score=Score("nats", cross_entropy, float(np.log(characters)), True),
        batch_size=32,
        epochs=15,
        most_steps=80,
        loop=False,
        measured=lambda values: values[:, -1],  # the character after the whole context
    )


def friedman(rng: np.random.Generator, n: int) -> Part:
    """Friedman's first function of five of ten features, without noise."""
    x = rng.random((n, 10)).astype(np.float32)
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2
    return x, y + 10 * x[:, 3] + 5 * x[:, 4]


def regression(data_dir: str | None, deviation: float = 2.0) -> Task:
    """Friedman's function with noise; its information is that of the noiseless one."""
    del data_dir
    rng = np.random.default_rng(0)
    (x, y), (_, others) = friedman(rng, 10_000), friedman(rng, 20_000)
    noisy = y + deviation * rng.normal(size=len(y))
    # I(X; Y) = h(Y) - h(noise), where Y's density is a mean of Gaussians.
    distances = (noisy[:2000, None] - others) / deviation
    density = np.exp(-(distances**2) / 2).mean(axis=1)
    information = -np.log(density).mean() - 0.5
    train, held_out = slice(4000), slice(4000, 5000)
    scaled = (noisy - noisy[train].mean()) / noisy[train].std()
    scaled = scaled.astype(np.float32)
    return Task(
        train=(x[train], scaled[train]),
        held_out=(x[held_out], scaled[held_out]),
        test=(x[5000:], scaled[5000:]),
        loss=squared_error,
        score=Score("% of variance", explained, 0.0),
        batch_size=50,
        epochs=30,
        reference=float(information),
        **of_module(Perceptron((64, 64), outputs=1), x[:1]),
    )


# The cheap ones first.
TASKS: dict[str, Callable[[str | None], Task]] = {
    "digits": digits,
    "mnist": mnist,
    "mnist_wrong": partial(mnist_wrong, share=0.2),
    "mnist_wrong40": partial(mnist_wrong, share=0.4),
    "mnist_rare": mnist_rare,
    "regression": regression,
    "mnist_cnn": partial(convolutional, name="mnist"),
    "cifar_cnn": partial(convolutional, name="cifar10"),
    "transformer": transformer,
}


def probe_of(task: Task, kind: str, seed: int) -> optax_mi.Probe:
    """Up to 1000 examples, those held out or as many of the training examples."""
    if kind == "held_out":
        return optax_mi.Probe(*(jnp.asarray(array[:1000]) for array in task.held_out))
    size = min(1000, len(task.train[0]))
    x, y = task.train
    index = np.random.default_rng(seed).choice(len(x), size, replace=False)
    return optax_mi.Probe(jnp.asarray(x[index]), jnp.asarray(y[index]))


def in_pieces(part: Part, size: int = 1000) -> Iterator[jax.Array]:
    """The inputs of a part, so many at a time."""
    for start in range(0, len(part[0]), size):
        yield jnp.asarray(part[0][start : start + size])
