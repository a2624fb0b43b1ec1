"""A range test of a network: what bounds suit an optimizer's rate."""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import optax

import optax_mi
from examples.common.methods import Method
from examples.common.training import Program, State, Task, shuffled


def sweep(
    task: Task,
    *,
    batch_size: int,
    seed: int,
    base: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax_mi.LRRangeTest:
    """Sweeps the rate of an optimizer, by default plain SGD, whose own is 1."""
    rate = optax.inject_hyperparams(optax.scale)(1.0)
    tx = optax.chain(optax.sgd(1.0) if base is None else base, rate)
    task = dataclasses.replace(task, layers="")  # the output, by which it is judged
    program = Program(task, Method(optax.with_extra_args_support(tx), lambda _: {}))

    def step(state: State, batch: Any, learning_rate: Any) -> tuple[State, jax.Array]:
        opt_state = optax.tree.set(state.opt_state, step_size=learning_rate)
        return program.train(state._replace(opt_state=opt_state), batch[None])

    rng = np.random.default_rng(seed)
    n = len(task.data.train_x)
    epochs = (shuffled(rng, n, batch_size) for _ in itertools.count())
    batches = itertools.chain.from_iterable(epochs)
    state = program.init(jax.random.key(seed))
    return optax_mi.lr_range_test(step, state, batches, program.measure, **options)
