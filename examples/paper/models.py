"""The networks of the experiments.

The paper shows its network in a picture (its Figure 2) that its text does not describe;
"several convolution and several dense layers" is all that is known. `PaperCNN` is the
classic network of that time for MNIST, and a guess.
"""

from functools import partial

import flax.linen as nn
import jax

from examples.cnn import SmallCNN, max_pool


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


MODELS = {
    "small": SmallCNN(),
    "paper": PaperCNN(),
    "allcnn": AllCNN(),
    "allcnn-quarter": AllCNN(width=24),  # a sixteenth of the work, for a CPU
}
