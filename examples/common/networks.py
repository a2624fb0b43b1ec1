"""The networks of the programs, by name.

The paper shows its network in a picture (its Figure 2) that its text does not describe;
"several convolution and several dense layers" is all that is known. `PaperCNN` is the
classic network of that time for MNIST, and a guess.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallCNN(nn.Module):
    """Two convolution and two dense layers, small enough for a CPU; logits."""

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


class PaperCNN(nn.Module):
    """Two convolutions, a pool, two dense layers, dropout between; logits."""

    classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        x = nn.relu(nn.Conv(32, (3, 3), padding="VALID")(x))
        x = nn.relu(nn.Conv(64, (3, 3), padding="VALID")(x))
        x = max_pool(x)
        x = nn.Dropout(0.25, deterministic=not train)(x)
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(128)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.classes, name="logits")(x)


class AllCNN(nn.Module):
    """All-CNN-C of Springenberg et al. (2015), which the paper announces; logits.

    Three things differ. The original's whitened images are pixels about a mean of zero
    here. The weights' initial scale, which it does not give, is He's: with Flax's own,
    nine layers of ReLU shrink the logits to nothing and it does not train. And its last
    ReLU is left out: at a rate of 0.1 all logits were zero within 200 steps.
    """

    classes: int = 10
    width: int = 96

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        conv = partial(nn.Conv, kernel_init=nn.initializers.he_normal())
        x = (x - 0.5) / 0.25  # pixels of [0, 1], by CIFAR-10's mean and spread
        x = nn.Dropout(0.2, deterministic=not train)(x)
        for width in (self.width, 2 * self.width):
            x = nn.relu(conv(width, (3, 3))(x))
            x = nn.relu(conv(width, (3, 3))(x))
            x = nn.relu(conv(width, (3, 3), strides=(2, 2))(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(conv(2 * self.width, (3, 3))(x))
        x = nn.relu(conv(2 * self.width, (1, 1))(x))
        x = conv(self.classes, (1, 1))(x)
        return x.mean(axis=(1, 2))


def max_pool(x: jax.Array) -> jax.Array:
    """The values of `flax.linen.max_pool(x, (2, 2), strides=(2, 2))`, faster on a CPU.

    XLA's CPU backend takes so long for the gradient of a window's maximum that a step
    of `SmallCNN` takes 2.7 times as long with it (two cores, jax 0.10.2). Here equal
    maxima share the gradient; there the first of them has all.
    """
    rows = jnp.maximum(x[:, :-1:2], x[:, 1::2])
    return jnp.maximum(rows[:, :, :-1:2], rows[:, :, 1::2])


NETWORKS = {
    "small": SmallCNN(),
    "paper": PaperCNN(),
    "allcnn": AllCNN(),
    "allcnn-quarter": AllCNN(width=24),  # a sixteenth of the work, for a CPU
}

# The kinds of `SmallCNN`'s layers, and these.
KINDS = {
    "Conv_0": "convolution layers",
    "Conv_1": "convolution layers",
    "Dense_0": "dense layers",
    "logits": "dense layers",
}
LAYERS = tuple(KINDS)
