"""The convolution network of the examples."""

import flax.linen as nn
import jax


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
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(self.classes, name="logits")(x)
