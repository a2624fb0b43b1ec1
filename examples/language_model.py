"""Trains a character-level transformer with a learning rate for each of its blocks.

The mutual information between a block's activations and the next character sets the
rate by which Adam's updates of the block are multiplied. Networks with fixed rates are
trained for comparison. The text is Python's own help.
Run with `python -m examples.language_model`.
"""

import argparse
from collections.abc import Iterator
from pydoc_data import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optax_mi

CONTEXT, WIDTH, HEADS = 32, 64, 4  # characters, features, attention heads
LAYERS = ("blocks/layers/0", "blocks/layers/1", "logits")  # each has its own rate
BATCH_SIZE, EVERY = 32, 50  # EVERY: steps from one measurement to the next
LR_MIN, LR_MAX, FIXED = 3e-4, 1e-2, (1e-3, 3e-3, 1e-2)


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


def draw_probe(text: np.ndarray, seed: int, size: int = 1000) -> optax_mi.Probe:
    """Contexts, and the character that follows the last one of each."""
    x, y = windows(text)
    return optax_mi.sample_probe(jax.random.key(seed), x, y[:, -1], size=size)


def layer_of_each(params: Any) -> Any:
    """The layer that sets each parameter's rate: its block, or the output."""

    def own(path: Any, _: jax.Array) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return next((x for x in LAYERS if name.startswith(x + "/")), "logits")

    return jax.tree_util.tree_map_with_path(own, params)


def cross_entropy(model: Transformer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Nats a character."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


def train(
    text: tuple[np.ndarray, np.ndarray, int],
    probe: optax_mi.Probe,
    steps: int,
    fixed: float | None = None,
    seed: int = 0,
) -> Iterator[optax_mi.MIHistory]:
    """Trains with a rate for each block or a fixed one; yields at each measurement."""
    rng, history = np.random.default_rng(seed), optax_mi.MIHistory()
    model, held_out = Transformer(text[2], nnx.Rngs(seed)), windows(text[1])
    policy, reference = optax_mi.reference_policy(), optax_mi.reference_mi(probe)
    rate = optax_mi.layerwise_mi_dynamic_lr(
        layer_of_each, LR_MIN, LR_MAX, policy=policy, reference=reference
    )
    if fixed is not None:
        rate = optax.scale(fixed)
    optimizer = nnx.Optimizer(model, optax.chain(optax.adam(1.0), rate), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> None:
        optimizer.update(model, nnx.grad(cross_entropy)(model, x, y))

    @nnx.jit
    def measure(model: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        found = optax_mi.capture_activations(model, None, probe.inputs, layers=LAYERS)
        last = {layer: values[:, -1] for layer, values in found.items()}
        mi = optax_mi.estimate_mi(last, probe.outcomes)
        return mi, cross_entropy(model, *held_out)

    if fixed is None:  # before the first step
        mi, _ = measure(model)
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
    for number in range(1, steps + 1):
        starts = rng.integers(0, len(text[0]) - CONTEXT, BATCH_SIZE)
        step(model, optimizer, *windows(text[0], starts))
        if number % EVERY:
            continue
        mi, loss = measure(model)
        rates: Any = dict.fromkeys(LAYERS, fixed)
        if fixed is None:
            rates = optax_mi.learning_rates(optimizer.opt_state)
            optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        shared: Any = {"epoch": number // EVERY, "step": number, "loss": loss}
        for layer in LAYERS:
            history.add(layer=layer, learning_rate=rates[layer], mi=mi[layer], **shared)
        yield history


def main(arguments: list[str] | None = None) -> None:
    """Trains both ways and prints the measurements."""
    prog = "python -m examples.language_model"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--fixed", type=float, nargs="*", default=FIXED)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.steps < EVERY:
        parser.error(f"--steps must be at least {EVERY}, got {args.steps}")
    text = load_text()
    probe = draw_probe(text[0], args.seed)
    print(
        f"{text[2]} characters; {optax_mi.usable_points(probe.outcomes)} of "
        f"{len(probe.outcomes)} in the probe are not the only ones of their kind"
    )
    for fixed in (None, *args.fixed):
        title = "by information" if fixed is None else f"fixed at {fixed:g}"
        print(f"\nrates {title}: steps, loss on text held out, nats (rates until then)")
        for history in train(text, probe, args.steps, fixed, args.seed):
            rows = history.rows[-len(LAYERS) :]
            told = "  ".join(
                f"{x['layer']} {x['mi']:.2f} ({x['learning_rate']:.4f})" for x in rows
            )
            print(f"{rows[0]['step']:6} {rows[0]['loss']:.3f}  {told}", flush=True)


if __name__ == "__main__":
    main()
