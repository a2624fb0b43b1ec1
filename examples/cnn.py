"""The convolution network of the examples."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallCNN(nn.Module):
    """Two convolution and two dense layers; the output is logits.

    The paper's network is shown in a picture only (its Figure 2, several convolution
    and several dense layers); this one is ours, small enough for a CPU.
    """

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        del train  # there is no dropout
        for features in (16, 32):
            x = nn.relu(nn.Conv(features, (3, 3))(x))
            x = max_pool(x)
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(self.classes, name="logits")(x)


def max_pool(x: jax.Array) -> jax.Array:
    """The values of `flax.linen.max_pool(x, (2, 2), strides=(2, 2))`, faster on a CPU.

    XLA's CPU backend takes so long for the gradient of a window's maximum that a step
    of `SmallCNN` takes 2.7 times as long with it (two cores, jax 0.10.2). Here equal
    maxima share the gradient; there the first of them has all.
    """
    rows = jnp.maximum(x[:, :-1:2], x[:, 1::2])
    return jnp.maximum(rows[:, :, :-1:2], rows[:, :, 1::2])
