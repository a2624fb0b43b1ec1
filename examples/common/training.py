"""The training loop, in phases and for one seed or several, and the range test."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_mi
from examples.common.data import Dataset
from examples.common.methods import Method, Run, make
from examples.common.saves import Saves

TEST_BATCH = 100  # 10,000 images of MNIST took 0.9 s of a core, and 2.1 s by thousands
# XLA's convolutions are faster on a CPU when a part of a batch stays in its caches. In
# ms an image on one core (jax 0.10.2, an AMD EPYC), whole batches and parts of 20:
# `PaperCNN(classic=True)` on MNIST 0.41 and 0.29 in batches of 100, 0.84 and 0.41 in
# batches of 500; on CIFAR-10 0.91 and 0.50. `SmallCNN` 0.17 and 0.16.
CPU_PART = 20
Histories = list[optax_mi.MIHistory]  # of the seeds


class SettingError(Exception):
    """A run cannot be trained with its settings; the message says why."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, on what, and how it is measured."""

    model: nn.Module  # with a `train` argument, which turns dropout on
    data: Dataset  # put on the device as a whole
    probe: optax_mi.Probe
    layers: str | tuple[str, ...] = ""  # what is measured; "" is the output
    estimator: optax_mi.Estimator | None = None  # by default that of `estimate_mi`
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None  # key, images


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training by one method and batch size."""

    method: str  # of `examples.common.methods`; its state is made anew
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batches: int = 1  # multiplies the run's batch size
    start: int = 0  # epoch
    value_only: int = 0  # the number of its measurements judged by value alone


class State(NamedTuple):
    """What a run carries; a leading axis of seeds where several run together."""

    params: Any
    opt_state: Any
    key: jax.Array  # of dropout


def train(
    task: Task,
    phases: Sequence[Phase],
    *,
    epochs: int,
    batch_size: int,
    seeds: Sequence[int] = (0,),
    saves: Saves | None = None,
) -> Iterator[tuple[Histories, State]]:
    """Trains in phases, several seeds together, and yields after each epoch.

    Initial parameters and batches depend on the seed alone, not on the method. A run
    with a save goes on with the epoch after it, and ends as if it had not been stopped.

    Yields:
      The history of each seed, with a row for each measured layer, and the state.

    Raises:
      SettingError: If a phase has no epoch or no full batch, or a layer is missing.
    """
    n, together = len(task.data.train_x), len(seeds) > 1
    _check(phases, n, epochs, batch_size)
    reference = float(optax_mi.reference_mi(task.probe))
    orders = [np.random.default_rng(seed) for seed in seeds]
    histories = [optax_mi.MIHistory() for _ in seeds]
    each = [jax.random.key(seed) for seed in seeds]
    keys = jnp.stack(each) if together else each[0]
    state, mi, done = None, {}, saves.epochs if saves else 0
    ends = [phase.start for phase in phases[1:]] + [epochs]
    for phase, end in zip(phases, ends, strict=True):
        if end < done:
            continue
        size = batch_size * phase.batches
        run = Run(epochs, n // size, reference)
        method = make(phase.method, run, **phase.options)
        program = Program(task, method, together=together)
        due = optax_mi.measurement_steps(
            run.steps_per_epoch, dense_epochs=method.dense_epochs
        )
        if saves and phase.start < done:  # it was saved in this phase, or at its end
            state, mi = _restored(saves, program, keys, histories, orders)
        else:
            state = _enter(program, keys, state, mi, phase)
        for epoch in range(max(phase.start, done), end):
            batches = np.stack([shuffled(rng, n, size) for rng in orders])
            first = epoch * run.steps_per_epoch  # measured often at the start alone
            within = range(1, run.steps_per_epoch)
            parts = np.split(batches, [i for i in within if due(first + i)], axis=1)
            state, mi, loss, (training, measuring) = _epoch(program, state, parts)
            shared = {
                "epoch": epoch,
                "reference": reference,
                "train_seconds": training / len(seeds),
                "measure_seconds": measuring / len(seeds),
            }
            numbers = {"loss": loss, "accuracy": program.evaluate(state)}
            _add(histories, method, (state.opt_state, mi, numbers), shared)
            if saves and epoch + 1 < epochs:
                _save(saves, epoch + 1, (state, mi), histories, orders)
            yield histories, state


def _save(
    saves: Saves,
    epochs: int,
    arrays: tuple[State, Any],
    histories: Histories,
    orders: Sequence[np.random.Generator],
) -> None:
    """Saves all that the next epoch depends on, and the record so far."""
    notes = {
        "histories": [history.rows for history in histories],
        "orders": [rng.bit_generator.state for rng in orders],
    }
    saves.save(epochs, arrays, notes)


def _restored(
    saves: Saves,
    program: "Program",
    keys: jax.Array,
    histories: Histories,
    orders: Sequence[np.random.Generator],
) -> tuple[State, Any]:
    """The state and the last measurement of a save; the others take up theirs."""
    state: State = program.init(keys)
    arrays, notes = saves.restore((state, program.measure(state)))
    for history, rows in zip(histories, notes["histories"], strict=True):
        history.rows.extend(rows)
    for rng, place in zip(orders, notes["orders"], strict=True):
        rng.bit_generator.state = place
    return arrays


def _epoch(program: "Program", state: State, parts: Sequence[np.ndarray]) -> Any:
    """Trains an epoch in parts and measures after each.

    Returns:
      The state, the last measurement, the mean loss, and the seconds of training and of
      measuring.
    """
    mi, loss, seconds = {}, 0.0, np.zeros(2)
    for part in parts:
        started = time.perf_counter()
        state, mean = program.train(state, part if program.together else part[0])
        jax.block_until_ready(state)
        trained = time.perf_counter()
        mi = program.measure(state)
        state, mi = jax.block_until_ready((program.record(state, mi), mi))
        seconds += (trained - started, time.perf_counter() - trained)
        loss += mean * part.shape[1] / sum(each.shape[1] for each in parts)
    return state, mi, loss, seconds


def _add(histories: Histories, method: Method, arrays: Any, same: Any) -> None:
    """Adds an epoch to the history of each seed, its part of the arrays."""
    for i, history in enumerate(histories):
        opt_state, mi, numbers = arrays
        if len(histories) > 1:
            opt_state, mi, numbers = jax.tree.map(lambda a, i=i: a[i], arrays)
        rates = method.learning_rates(opt_state)
        for layer, value in mi.items():
            rate = rates.get(layer, rates.get("", np.nan))
            history.add(layer=layer, mi=value, learning_rate=rate, **numbers, **same)


def shuffled(rng: np.random.Generator, n: int, batch_size: int) -> np.ndarray:
    """An epoch's batches in random order, [steps, batch_size]; a rest is left out."""
    return rng.permutation(n)[: n // batch_size * batch_size].reshape(-1, batch_size)


def _check(phases: Sequence[Phase], n: int, epochs: int, batch_size: int) -> None:
    for phase in phases:
        size = phase.batches * batch_size
        if phase.start >= epochs:
            told = f"starts at epoch {phase.start} needs more epochs than {epochs}"
            raise SettingError(f"a phase that {told}")
        if size > n:
            told = f"choose a batch size of at most {n // phase.batches}"
            raise SettingError(f"batches of {size} are more than {n} images: {told}")


def _enter(
    program: "Program", keys: jax.Array, before: State | None, mi: Any, phase: Phase
) -> State:
    """The state at a phase's start, with a measurement of its parameters recorded.

    The parameters are the initial ones, or those from before the phase.
    """
    try:
        state: State = program.init(keys)
        jax.eval_shape(program.measure, state)
    except ValueError as error:
        raise SettingError(f"nothing can be measured: {error}") from error
    if before is None:
        return program.record(state, program.measure(state))
    state = program.record(before._replace(opt_state=state.opt_state), mi)
    if phase.value_only:  # and one more: the measurement from before the phase
        opt_state = optax_mi.track_value_only(state.opt_state, phase.value_only + 1)
        state = state._replace(opt_state=opt_state)
    return state


class Program:
    """The compiled parts of an epoch; data and state stay on the device.

    Args:
      task: What is trained and measured.
      method: How its rate is set.
      together: Whether states, keys and batches have a leading axis of seeds, which
        are mapped over. Worth it on an accelerator.
      scan: Whether an epoch is one compiled loop, by default on an accelerator. XLA's
        CPU backend is slow at convolutions within a loop (an epoch of `SmallCNN` took
        ten times as long on two cores, jax 0.10.2), so there each step is dispatched.
    """

    def __init__(
        self,
        task: Task,
        method: Method,
        *,
        together: bool = False,
        scan: bool | None = None,
    ) -> None:
        def over_seeds(function: Callable[..., Any], axes: Any = 0) -> Any:
            return jax.vmap(function, in_axes=axes) if together else function

        self._task, self._method, self.together = task, method, together
        on_accelerator = jax.default_backend() != "cpu"
        self._part = None if on_accelerator else CPU_PART
        self._scan = (together or on_accelerator) if scan is None else scan
        # Arguments of the compiled functions: as constants in them they are slow.
        train_x, train_y, test_x, test_y = map(jnp.asarray, task.data[1:5])
        self._train_set, self._test_set = (train_x, train_y), (test_x, test_y)
        self.init = jax.jit(over_seeds(self._init))
        self.measure = jax.jit(over_seeds(self._measure))
        self.record = jax.jit(over_seeds(self._record))
        epoch = over_seeds(self._epoch, (None, 0, 0))
        self._one_epoch = jax.jit(epoch, donate_argnums=1)
        self._one_step = jax.jit(self._step, donate_argnums=1)
        self._hits = jax.jit(over_seeds(self._right, (None, 0)))

    def train(self, state: State, batches: np.ndarray) -> tuple[State, jax.Array]:
        """Trains on the indices [..., steps, batch_size]; returns the mean loss."""
        order, losses = jnp.asarray(batches), []
        if self._scan:
            state, loss = self._one_epoch(self._train_set, state, order)
            return state, loss.mean(axis=-1)
        for batch in order:
            state, loss = self._one_step(self._train_set, state, batch)
            losses.append(loss)
        return state, jnp.stack(losses).mean()

    def evaluate(self, state: State) -> jax.Array:
        """The share of the test set that is classified correctly."""
        n, (x, y) = len(self._test_set[0]), self._test_set
        parts = [slice(i, i + TEST_BATCH) for i in range(0, n, TEST_BATCH)]
        hits = [self._hits((x[part], y[part]), state) for part in parts]
        return jnp.stack(hits).sum(0) / n

    def _predict(self, params: Any, x: jax.Array, **options: Any) -> jax.Array:
        return jnp.asarray(self._task.model.apply({"params": params}, x, **options))

    def _step(self, examples: Any, state: State, batch: jax.Array) -> Any:
        key, dropout = jax.random.split(state.key)
        x, y = (array[batch] for array in examples)
        if self._task.augment:
            x = self._task.augment(jax.random.fold_in(dropout, 1), x)

        def loss(params: Any) -> jax.Array:
            def predict(x: jax.Array, key: jax.Array) -> jax.Array:
                return self._predict(params, x, train=True, rngs={"dropout": key})

            logits = in_parts(predict, x, dropout, self._part or len(x))
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt_state = self._method.transformation.update(
            gradients, state.opt_state, state.params, value=value
        )
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, key), value

    def _epoch(self, examples: Any, state: State, batches: jax.Array) -> Any:
        return jax.lax.scan(partial(self._step, examples), state, batches)

    def _init(self, key: jax.Array) -> State:
        params = self._task.model.init(key, self._task.probe.inputs[:1])["params"]
        opt_state = self._method.transformation.init(params)
        return State(params, opt_state, jax.random.fold_in(key, 1))

    def _measure(self, state: State) -> dict[str, jax.Array]:
        task, (x, y) = self._task, self._task.probe
        params = self._method.eval_params(state.opt_state, state.params)
        found = optax_mi.capture_activations(
            task.model, {"params": params}, x, layers=task.layers, max_features=1024
        )
        return optax_mi.estimate_mi(found, y, estimator=task.estimator)

    def _record(self, state: State, mi: dict[str, jax.Array]) -> State:
        if not self._method.takes_mi:
            return state
        return state._replace(opt_state=optax_mi.record_mi(state.opt_state, mi))

    def _right(self, examples: Any, state: State) -> jax.Array:
        x, y = examples
        params = self._method.eval_params(state.opt_state, state.params)
        return (self._predict(params, x).argmax(axis=-1) == y).sum()


def in_parts(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    key: jax.Array,
    size: int,
) -> jax.Array:
    """`predict(x, key)`, for `size` examples at a time; each part has its own key."""
    starts = range(0, len(x), size)
    keys = [jax.random.fold_in(key, start) if start else key for start in starts]
    parts = [x[start : start + size] for start in starts]
    return jnp.concatenate(list(map(predict, parts, keys)))


def flip_and_shift(key: jax.Array, images: jax.Array, most: int = 5) -> jax.Array:
    """Flips half of the images, and shifts all by up to `most` pixels either way."""
    keys = jax.random.split(key)
    flipped = jax.random.bernoulli(keys[0], shape=(len(images), 1, 1, 1))
    images = jnp.where(flipped, images[:, :, ::-1], images)
    corners = jax.random.randint(keys[1], (len(images), 2), 0, 2 * most + 1)
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def sweep(
    task: Task,
    *,
    batch_size: int,
    seed: int,
    base: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax_mi.LRRangeTest:
    """A range test of an optimizer's rate; the optimizer is built with a rate of 1."""
    rate = optax.inject_hyperparams(optax.scale)(1.0)
    tx = optax.chain(optax.sgd(1.0) if base is None else base, rate)
    task = dataclasses.replace(task, layers="")  # the output, by which it is judged
    program = Program(task, Method(optax.with_extra_args_support(tx), lambda _: {}))

    def step(state: State, batch: Any, learning_rate: Any) -> tuple[State, jax.Array]:
        opt_state = optax.tree.set(state.opt_state, step_size=learning_rate)
        return program.train(state._replace(opt_state=opt_state), batch[None])

    rng, n = np.random.default_rng(seed), len(task.data.train_x)
    batches = (x for _ in itertools.count() for x in shuffled(rng, n, batch_size))
    state = program.init(jax.random.key(seed))
    return optax_mi.lr_range_test(step, state, batches, program.measure, **options)
