"""The networks of the programs, by name.

The paper shows its network in a picture (its Figure 2) and gives "several convolution
and several dense layers" in its text. `PaperCNN` is a guess: the usual one for MNIST.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp


class SmallCNN(nn.Module):
    """Two convolution and two dense layers, small enough for a CPU; logits."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, 10]."""
        del train  # there is no dropout
        for features in (16, 32):
            x = max_pool(nn.relu(nn.Conv(features, (3, 3))(x)))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10, name="logits")(x)


class PaperCNN(nn.Module):
    """Two convolutions, a pool, two dense layers, dropout between; logits.

    The classic form has a pool after each convolution: a quarter of the work.
    """

    classic: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, 10]."""
        for features, pooled in ((32, self.classic), (64, True)):
            x = nn.Conv(features, (3, 3), padding="VALID")(x)
            # The same as a pool after the ReLU, which then has a fourth of the values.
            x = nn.relu(max_pool(x) if pooled else x)
        x = nn.Dropout(0.25, deterministic=not train)(x)
        x = nn.relu(nn.Dense(128)(x.reshape(len(x), -1)))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10, name="logits")(x)


class AllCNN(nn.Module):
    """All-CNN-C of Springenberg et al. (2015), which the paper announces; logits.

    Three things differ. Pixels are standardized, where the original whitens images. The
    weights' initial scale, which it does not give, is He's: with Flax's own, the logits
    vanish and it does not train. And its last ReLU is left out: at a rate of 0.1 all
    logits were zero within 200 steps.
    """

    width: int = 96

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, 10]."""
        conv = partial(nn.Conv, kernel_init=nn.initializers.he_normal())
        x = (x - 0.5) / 0.25  # pixels of [0, 1], by CIFAR-10's mean and spread
        x = nn.Dropout(0.2, deterministic=not train)(x)
        for width in (self.width, 2 * self.width):
            for strides in (1, 1, 2):
                x = nn.relu(conv(width, (3, 3), strides=strides)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        x = nn.relu(conv(2 * self.width, (3, 3))(x))
        x = nn.relu(conv(2 * self.width, (1, 1))(x))
        x = conv(10, (1, 1))(x)
        return x.mean(axis=(1, 2))


def max_pool(x: jax.Array) -> jax.Array:
    """The values of `flax.linen.max_pool(x, (2, 2), strides=(2, 2))`, faster on a CPU.

    XLA's CPU backend is slow at the gradient of that one: a step of `SmallCNN` takes
    2.7 times as long (two cores, jax 0.10.2). Here equal maxima share the gradient;
    there the first of them has all.
    """
    if min(x.shape[1:3]) < 2:
        raise ValueError("the images are too small for the network's pools")
    rows = jnp.maximum(x[:, :-1:2], x[:, 1::2])
    return jnp.maximum(rows[:, :, :-1:2], rows[:, :, 1::2])


NETWORKS = {
    "small": SmallCNN(),
    "paper": PaperCNN(),
    "classic": PaperCNN(classic=True),
    "allcnn": AllCNN(),
    "allcnn-half": AllCNN(width=48),  # a quarter of the work
    "allcnn-quarter": AllCNN(width=24),  # a sixteenth of it, for a CPU
}

# The layers of `SmallCNN` and `PaperCNN` by kind.
KINDS: dict[str, str] = {
    **dict.fromkeys(("Conv_0", "Conv_1"), "convolution layers"),
    **dict.fromkeys(("Dense_0", "logits"), "dense layers"),
}
LAYERS = tuple(KINDS)
