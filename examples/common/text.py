"""A text as classes of characters, and a transformer that predicts the next one."""

from pydoc_data import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

CONTEXT, WIDTH, HEADS = 32, 64, 4  # characters, features, attention heads


class Block(nnx.Module):
    """Causal self-attention and a two-layer perceptron, with residual connections."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.dense_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.wide = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, CONTEXT, WIDTH] to the same shape."""
        causal = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.attention_norm(x), mask=causal)
        return x + self.narrow(nnx.gelu(self.wide(self.dense_norm(x))))


class Transformer(nnx.Module):
    """Predicts the next character after each character of a context; logits."""

    def __init__(self, characters: int, rngs: nnx.Rngs, blocks: int = 2) -> None:
        self.embed = nnx.Embed(characters, WIDTH, rngs=rngs)
        self.position = nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.Sequential(*(Block(rngs) for _ in range(blocks)))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, characters, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, CONTEXT] to [n, CONTEXT, characters]."""
        hidden = self.embed(x) + self.position(jnp.arange(CONTEXT))[None]
        return self.logits(self.norm(self.blocks(hidden)))


def load_text() -> tuple[np.ndarray, np.ndarray, int]:
    """The training text and every tenth page, held out, as classes; their number."""
    pages = [topics.topics[name] for name in sorted(topics.topics)]
    train = "\n".join(page for i, page in enumerate(pages) if i % 10)
    held_out = "\n".join(pages[::10])
    characters = {c: i for i, c in enumerate(sorted({*train, *held_out}))}
    coded = [np.array([characters[c] for c in part]) for part in (train, held_out)]
    return coded[0], coded[1], len(characters)


def windows(text: np.ndarray, starts: Any = None) -> tuple[jax.Array, jax.Array]:
    """Contexts [n, CONTEXT], by default all, and what follows each character."""
    if starts is None:
        starts = np.arange(0, len(text) - CONTEXT, CONTEXT)
    whole = jnp.asarray(text[starts[:, None] + np.arange(CONTEXT + 1)])
    return whole[:, :-1], whole[:, 1:]


def cross_entropy(model: Transformer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Nats a character."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
