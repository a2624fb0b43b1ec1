"""Trains a character-level transformer with a learning rate for each of its blocks.

What each block says about the next character sets the rate of its parameters, by which
Adam's updates are multiplied; fixed rates are trained beside it. The text ships with
Python: the pages of its help. Run with `python -m examples.language_model`.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pydoc_data import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import optax_mi

CONTEXT, WIDTH, HEADS = 32, 64, 4  # characters, features, attention heads
BATCH_SIZE, EVERY = 32, 50  # a measurement every so many steps
LR_MIN, LR_MAX, FIXED = 3e-4, 1e-2, (1e-3, 3e-3, 1e-2)


class Block(nnx.Module):
    """Causal self-attention and a dense layer, each added to what comes in."""

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
    """Characters to the logits of those that follow each of them."""

    def __init__(self, characters: int, blocks: int, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(characters, WIDTH, rngs=rngs)
        self.position = nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.Sequential(*(Block(rngs) for _ in range(blocks)))
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, characters, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [n, CONTEXT] to [n, CONTEXT, characters]."""
        hidden = self.embed(x) + self.position(jnp.arange(CONTEXT))[None]
        return self.logits(self.norm(self.blocks(hidden)))


class Text(NamedTuple):
    """Characters as classes."""

    train: np.ndarray
    held_out: np.ndarray
    characters: int


def load_text() -> Text:
    """The help pages, of which every tenth is held out."""
    pages = [topics.topics[name] for name in sorted(topics.topics)]
    train = "\n".join(page for i, page in enumerate(pages) if i % 10)
    held_out = "\n".join(pages[::10])
    characters = sorted({*train, *held_out})
    classes = {character: i for i, character in enumerate(characters)}
    coded = (np.array([classes[c] for c in part]) for part in (train, held_out))
    return Text(*coded, characters=len(characters))


def windows(text: np.ndarray, starts: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Contexts [n, CONTEXT] that begin there, and what follows each character."""
    whole = jnp.asarray(text[starts[:, None] + np.arange(CONTEXT + 1)])
    return whole[:, :-1], whole[:, 1:]


def cut(text: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """A text in windows, each of which begins with what the one before has to tell."""
    return windows(text, np.arange(0, len(text) - CONTEXT, CONTEXT))


def draw_probe(text: Text, size: int, seed: int) -> optax_mi.Probe:
    """Contexts, and the character that follows the last one of each."""
    x, y = cut(text.train)
    return optax_mi.sample_probe(jax.random.key(seed), x, y[:, -1], size=size)


def layer_of_each(params: Any, layers: tuple[str, ...]) -> Any:
    """The layer that sets each parameter's rate: its block, or the output."""

    def own(path: Any, _: jax.Array) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return next((x for x in layers if name.startswith(x + "/")), layers[-1])

    return jax.tree_util.tree_map_with_path(own, params)


def cross_entropy(model: Transformer, x: jax.Array, y: jax.Array) -> jax.Array:
    """Nats a character."""
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


def train(
    text: Text,
    probe: optax_mi.Probe,
    *,
    steps: int,
    blocks: int = 2,
    fixed: float | None = None,
    seed: int = 0,
) -> Iterator[optax_mi.MIHistory]:
    """Trains with a rate for each block, or with a fixed one.

    Yields:
      The history after each measurement, whose number is its epoch; the loss is that on
      text held out.
    """
    rng = np.random.default_rng(seed)
    model = Transformer(text.characters, blocks, nnx.Rngs(seed))
    layers = (*(f"blocks/layers/{i}" for i in range(blocks)), "logits")
    # Its steps are as large as Adam's rates, and not as those of plain SGD.
    gammas = dict.fromkeys(("gamma_up", "gamma_down", "gamma_over"), LR_MAX)
    rate = optax_mi.layerwise_mi_dynamic_lr(
        partial(layer_of_each, layers=layers),
        LR_MIN,
        LR_MAX,
        policy=optax_mi.reference_policy(**gammas),
        reference=optax_mi.reference_mi(probe),
    )
    if fixed is not None:
        rate = optax.scale(fixed)
    optimizer = nnx.Optimizer(model, optax.chain(optax.adam(1.0), rate), wrt=nnx.Param)
    held_out, history = cut(text.held_out), optax_mi.MIHistory()

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> None:
        optimizer.update(model, nnx.grad(cross_entropy)(model, x, y))

    @nnx.jit
    def measure(model: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        found = optax_mi.capture_activations(model, None, probe.inputs, layers=layers)
        last = {layer: values[:, -1] for layer, values in found.items()}
        mi = optax_mi.estimate_mi(last, probe.outcomes)
        return mi, cross_entropy(model, *held_out)

    for number in range(1, steps + 1):
        starts = rng.integers(0, len(text.train) - CONTEXT, BATCH_SIZE)
        step(model, optimizer, *windows(text.train, starts))
        if number % EVERY:
            continue
        mi, loss = measure(model)
        rates = dict.fromkeys(layers, fixed)
        if fixed is None:
            rates = optax_mi.learning_rates(optimizer.opt_state)
            optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        shared = {"epoch": number // EVERY, "step": number, "loss": loss}
        for layer in layers:
            own: Any = {"learning_rate": rates[layer], "mi": mi[layer]}
            history.add(layer=layer, **own, **shared)
        yield history


def main(arguments: list[str] | None = None) -> None:
    """Trains both ways and tells what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.language_model", description=__doc__
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--probe-size", type=int, default=1000)
    parser.add_argument("--fixed", type=float, nargs="*", default=FIXED)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.steps < EVERY:
        parser.error(f"--steps must be at least {EVERY}, got {args.steps}")
    text = load_text()
    probe = draw_probe(text, args.probe_size, args.seed)
    print(
        f"{text.characters} characters; {optax_mi.usable_points(probe.outcomes)} of "
        f"{args.probe_size} in the probe are not the only ones of their kind"
    )
    options = {"steps": args.steps, "blocks": args.blocks, "seed": args.seed}
    for fixed in (None, *args.fixed):
        title = "by information" if fixed is None else f"fixed at {fixed:g}"
        print(f"\nrates {title}: steps, loss on text held out, nats (rates until then)")
        for history in train(text, probe, fixed=fixed, **options):
            rows = history.rows[-args.blocks - 1 :]
            told = [
                f"{x['layer']} {x['mi']:.2f} ({x['learning_rate']:.4f})" for x in rows
            ]
            step, loss = rows[0]["step"], rows[0]["loss"]
            print(f"{step:6} {loss:.3f}  {'  '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
