"""The training loop of a row: its phases, and a record after each epoch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import optax_mi
from examples.data import Dataset
from examples.paper.compiled import Program, State, compile_program
from examples.paper.experiments import Measuring, Row
from examples.paper.models import MODELS
from examples.paper.optimizers import Optimizer, Setting
from examples.training import batches

Examples = tuple[np.ndarray, np.ndarray]  # images and classes


class SettingError(Exception):
    """A row cannot be trained like that; the message says why in one sentence."""


def draw_probe(
    measuring: Measuring, dataset: Dataset, held_out: Examples | None = None
) -> optax_mi.Probe:
    """Draws a row's probe from what it trains on, or from what was held out."""
    if measuring.held_out and held_out is None:
        raise ValueError("the row measures on held-out examples; none were held out")
    trained = (dataset.train_x, dataset.train_y)
    x, y = held_out if measuring.held_out and held_out else trained
    size = min(measuring.size, len(x))
    return optax_mi.sample_probe(jax.random.key(measuring.seed), x, y, size=size)


def train_row(
    row: Row,
    dataset: Dataset,
    *,
    model: str,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 100,
    held_out: Examples | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Trains one row, its seeds together where there are several.

    Yields:
      After each epoch, its record for each seed.

    Raises:
      SettingError: If a phase has no epoch or no full batch, or the network lacks a
        layer that is to be measured.
    """
    together = len(seeds) > 1
    n = len(dataset.train_x)
    _check(row, n, epochs, batch_size)
    # One probe for all seeds, as one reference: what differs is the network.
    probe = draw_probe(row.measuring, dataset, held_out)
    reference = float(optax_mi.reference_mi(probe))
    orders = [np.random.default_rng(seed) for seed in seeds]
    state, mi = None, {}
    ends = [phase.start for phase in row.phases[1:]] + [epochs]
    for phase, end in zip(row.phases, ends, strict=True):
        size = batch_size * phase.batches
        setting = Setting(epochs, n // size, reference)
        optimizer = phase.make(setting)
        program = compile_program(
            MODELS[model],
            optimizer,
            dataset,
            probe,
            row,
            together=together,
        )
        state = _enter(program, state, seeds, mi, phase.value_only)
        try:
            jax.eval_shape(program.measure, state)
        except ValueError as error:
            raise SettingError(f"{row.name} cannot be measured: {error}") from error
        for epoch in range(phase.start, end):
            order = [np.stack(list(batches(rng, n, size))) for rng in orders]
            started = time.perf_counter()
            state, loss = program.train(
                state, np.stack(order) if together else order[0]
            )
            jax.block_until_ready(state)
            trained = time.perf_counter()
            mi = program.measure(state)
            state, mi = jax.block_until_ready((program.record(state, mi), mi))
            measured = time.perf_counter()
            rates = _rates(optimizer, state, len(seeds))
            accuracy = np.atleast_1d(program.evaluate(state))
            losses = np.atleast_1d(loss)
            yield [
                {
                    "epoch": epoch,
                    "learning_rate": rates[i],
                    "loss": float(losses[i]),
                    "mi": {k: float(np.atleast_1d(v)[i]) for k, v in mi.items()},
                    "reference": reference,
                    "accuracy": float(accuracy[i]),
                    "train_seconds": round((trained - started) / len(seeds), 4),
                    "measure_seconds": round((measured - trained) / len(seeds), 4),
                }
                for i in range(len(seeds))
            ]


def _check(row: Row, n: int, epochs: int, batch_size: int) -> None:
    for phase in row.phases:
        if phase.start >= epochs:
            raise SettingError(
                f"{row.name} has a phase that starts at epoch {phase.start}: train for "
                f"more epochs than {epochs}."
            )
        if phase.batches * batch_size > n:
            raise SettingError(
                f"{row.name} has a phase with batches of {phase.batches * batch_size}, "
                f"and there are {n} images: choose a batch size of at most "
                f"{n // phase.batches}."
            )


def _enter(
    program: Program,
    state: State | None,
    seeds: Sequence[int],
    mi: Mapping[str, Any],
    value_only: int,
) -> State:
    """The state at a phase's start: of new networks, or of those from before it."""
    keys = [jax.random.key(seed) for seed in seeds]
    key = keys[0] if len(seeds) == 1 else jax.numpy.stack(keys)
    fresh = program.init(key)
    if state is None:
        return fresh
    state = state._replace(opt_state=fresh.opt_state)
    if mi:
        state = program.record(state, dict(mi))
    if value_only:
        # The measurement from before the phase is the first of those that are judged.
        opt_state = optax_mi.track_value_only(state.opt_state, value_only + 1)
        state = state._replace(opt_state=opt_state)
    return state


def _rates(optimizer: Optimizer, state: State, seeds: int) -> list[dict[str, float]]:
    if seeds == 1:
        return [dict(optimizer.learning_rates(state.opt_state))]
    states = [jax.tree.map(lambda a, i=i: a[i], state.opt_state) for i in range(seeds)]
    return [dict(optimizer.learning_rates(each)) for each in states]
