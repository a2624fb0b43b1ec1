"""Trains a character-level transformer with a learning rate for each of its blocks.

The mutual information between a block's activations and the next character sets the
rate by which Adam's updates of the block are multiplied. Networks with fixed rates are
trained for comparison. The text is Python's own help.
Run with `python -m examples.language_model`.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import optax_mi
from examples.common.text import (
    CONTEXT,
    Transformer,
    cross_entropy,
    load_text,
    windows,
)

LAYERS = ("blocks/layers/0", "blocks/layers/1", "logits")  # each has its own rate
BATCH_SIZE, EVERY = 32, 50  # EVERY: steps from one measurement to the next
LR_MIN, LR_MAX, FIXED = 3e-4, 1e-2, (1e-3, 3e-3, 1e-2)


def draw_probe(
    text: np.ndarray, seed: int, contexts: int = 250, size: int = 1000
) -> tuple[jax.Array, optax_mi.Positions]:
    """Contexts, and positions in them with the character that follows each."""
    keys = jax.random.split(jax.random.key(seed))
    probe = optax_mi.sample_probe(keys[0], *windows(text), size=contexts)
    return probe.inputs, optax_mi.sample_positions(keys[1], probe.outcomes, size)


def layer_of_each(params: Any) -> Any:
    """The layer that sets each parameter's rate: its block, or the output."""

    def own(path: Any, _: jax.Array) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return next((x for x in LAYERS if name.startswith(x + "/")), "logits")

    return jax.tree_util.tree_map_with_path(own, params)


def train(
    text: tuple[np.ndarray, np.ndarray, int],
    probe: tuple[jax.Array, optax_mi.Positions],
    steps: int,
    fixed: float | None = None,
    seed: int = 0,
) -> Iterator[optax_mi.MIHistory]:
    """Trains with a rate for each block or a fixed one; yields at each measurement."""
    rng, history = np.random.default_rng(seed), optax_mi.MIHistory()
    model, held_out = Transformer(text[2], nnx.Rngs(seed)), windows(text[1])
    contexts, positions = probe
    reference = optax_mi.label_entropy(positions.outcomes)
    rate = optax_mi.layerwise_mi_dynamic_lr(
        layer_of_each,
        LR_MIN,
        LR_MAX,
        policy=optax_mi.reference_policy(),
        reference=reference,
    )
    if fixed is not None:
        rate = optax.scale(fixed)
    optimizer = nnx.Optimizer(model, optax.chain(optax.adam(1.0), rate), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> None:
        optimizer.update(model, nnx.grad(cross_entropy)(model, x, y))

    @nnx.jit
    def measure(model: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        layers = optax_mi.capture_activations(
            model, None, contexts, layers=LAYERS, positions=positions
        )
        mi = optax_mi.estimate_mi(layers, positions.outcomes)
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
    outcomes = probe[1].outcomes
    print(
        f"{text[2]} characters; {optax_mi.usable_points(outcomes)} of "
        f"{len(outcomes)} in the probe are not the only ones of their kind"
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
