"""A network and images so small that what a loop does is seen in a second."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

import optax_mi
from examples.common import data
from examples.common.training import Task


class Tiny(nn.Module):
    """One dense layer."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        """Maps images to logits."""
        return nn.Dense(10, name="logits")(x.reshape(len(x), -1))


def digits(n: int = 300) -> data.Dataset:
    """The first of them, and a hundred to test on."""
    full = data.load("digits", train_size=n)
    return full._replace(test_x=full.test_x[:100], test_y=full.test_y[:100])


def predicted(logits: Any, labels: Any, k: int = 0, scaling: str = "") -> Any:
    """The information of the predicted class, which compiles at once."""
    del scaling
    return optax_mi.plug_in_mi(logits.argmax(axis=1), labels) + k / 1000


def task(n: int = 300, **options: Any) -> Task:
    """The tiny network on them, measured on some of them."""
    few = digits(n)
    size = min(200, n)
    probe = optax_mi.sample_probe(jax.random.key(0), few.train_x, few.train_y, size)
    return Task(Tiny(), few, probe, **{"estimator": predicted, **options})


def equal(first: Any, second: Any, **tolerance: Any) -> None:
    """Two histories are the same, times apart."""
    assert len(first.rows) == len(second.rows)
    for one, other in zip(first.rows, second.rows, strict=True):
        for name in ("epoch", "layer"):
            assert one[name] == other[name]
        for name in ("learning_rate", "mi", "loss", "accuracy", "reference"):
            np.testing.assert_allclose(one[name], other[name], **tolerance)
