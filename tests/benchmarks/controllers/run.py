"""Trains what is missing in the file of results."""

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_mi
from examples.common.methods import Run
from examples.common.results import environment, recorded
from examples.common.training import shuffled
from tests.benchmarks.controllers.methods import (
    BASES,
    BOUNDS,
    GRIDS,
    METHODS,
    OWN,
    Setting,
)
from tests.benchmarks.controllers.tasks import TASKS, Task, in_pieces, probe_of

SEEDS = (0, 1, 2)
LAST = 5  # epochs, over which a run's score is the mean
EARLY_EPOCHS, EARLY_PARTS = 2, 10  # in so many epochs, so many measurements


class Config(NamedTuple):
    """What makes a run."""

    task: str
    base: str
    method: str
    rate: float | None  # of the grid
    seed: int

    @property
    def name(self) -> str:
        """Its name in the file."""
        rate = "" if self.rate is None else f"-{self.rate:g}"
        return f"{self.task}-{self.base}-{self.method}{rate}-{self.seed}"


class State(NamedTuple):
    """What a run carries."""

    params: Any
    opt_state: Any
    steps: jax.Array


class Judge:
    """The compiled parts that all methods of a task share."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.data = tuple(map(jnp.asarray, task.train))
        self._predict = jax.jit(task.predict)
        self._loss = jax.jit(task.loss)
        self.measure = jax.jit(self._measure)

    def _measure(self, params: Any, probe: optax_mi.Probe) -> jax.Array:
        outputs = self.task.measured(self.task.predict(params, probe.inputs))
        outcomes = self.task.measured(probe.outcomes)
        return optax_mi.estimate_mi({"": outputs}, outcomes)[""]

    def scores(self, params: Any) -> dict[str, float]:
        """The scores of held-out and test data, and the loss on the former."""
        task, found = self.task, {}
        for name, part in (("validation", task.held_out), ("test", task.test)):
            outputs = jnp.concatenate(
                [self._predict(params, x) for x in in_pieces(part)]
            )
            outcomes = jnp.asarray(part[1])
            found[f"{name}_score"] = task.score(outputs, outcomes)
            if name == "validation":
                found["validation_loss"] = float(self._loss(outputs, outcomes))
        return found


class Program:
    """The compiled parts of one method on one task, for all rates and seeds."""

    def __init__(self, judge: Judge, base: str, method: str) -> None:
        self.judge, self.task, self.method = judge, judge.task, METHODS[method]
        self._probe_kind, self._base = self.method.probe, base
        self._setting = self._for(np.nan)
        self._begin = jax.jit(self._init)
        self._one = jax.jit(self._step)
        self._many = jax.jit(self._loop)
        self._observe = jax.jit(self.method.observe)
        self._eval_params = jax.jit(self.method.eval_params)
        self._rate = jax.jit(
            lambda state, rate: self.method.rate(
                state.opt_state, rate, state.steps, self._setting
            )
        )

    def _for(self, reference: float) -> Setting:
        return Setting(self._base, Run(self.task.epochs, self.task.steps, reference))

    def _transformation(self, rate: Any, reference: Any) -> Any:
        made = self.method.make(rate, self._for(reference))
        return optax.with_extra_args_support(made)

    def _init(self, key: jax.Array, rate: jax.Array, reference: jax.Array) -> State:
        params = self.task.init(key)
        opt_state = self._transformation(rate, reference).init(params)
        return State(params, opt_state, jnp.zeros((), jnp.int32))

    def _step(self, data: Any, state: State, batch: jax.Array, rate: Any) -> Any:
        x, y = (array[batch] for array in data)

        def loss(params: Any) -> jax.Array:
            return self.task.loss(self.task.predict(params, x), y)

        value, gradients = jax.value_and_grad(loss)(state.params)
        # The reference is in the state by now.
        tx = self._transformation(rate, 1.0)
        updates, opt_state = tx.update(
            gradients, state.opt_state, state.params, value=value
        )
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.steps + 1), value

    def _loop(
        self, data: Any, state: State, order: Any, ends: Any, rate: jax.Array
    ) -> Any:
        def body(i: jax.Array, carry: Any) -> Any:
            state, value = self._step(data, carry[0], order[i], rate)
            return state, carry[1] + value

        return jax.lax.fori_loop(ends[0], ends[1], body, (state, jnp.float32(0)))

    def _train(self, state: State, order: Any, ends: Any, rate: Any) -> Any:
        """Trains on the batches between the ends; their mean loss."""
        data, total = self.judge.data, jnp.float32(0)
        if self.task.loop:
            state, total = self._many(data, state, order, np.array(ends), rate)
        else:
            for batch in order[slice(*ends)]:
                state, value = self._one(data, state, batch, rate)
                total += value
        return jax.block_until_ready((state, total / (ends[1] - ends[0])))

    def _measured(self, state: State, probe: Any) -> jax.Array:
        if probe is None:
            return jnp.float32(np.nan)
        params = self._eval_params(state.opt_state, state.params)
        return jax.block_until_ready(self.judge.measure(params, probe))

    def run(self, rate: float | None, seed: int) -> tuple[optax_mi.MIHistory, Any]:
        """Trains; a row for each measurement and epoch, and seconds of their parts."""
        task, history = self.task, optax_mi.MIHistory()
        kind, rng = self._probe_kind, np.random.default_rng(seed)
        probe = probe_of(task, kind, seed) if kind else None
        reference = reference_of(task, probe)
        given = jnp.float32(np.nan if rate is None else rate)
        state = self._begin(jax.random.key(seed), given, jnp.float32(reference))
        nothing = jnp.float32(np.nan)
        if self.method.early:
            opt_state = self._observe(
                state.opt_state, self._measured(state, probe), nothing
            )
            state = state._replace(opt_state=opt_state)
        trained, measured = [], []
        for epoch in range(task.epochs):
            order = shuffled(rng, len(task.train[0]), task.batch_size)[: task.steps]
            often = self.method.early and epoch < EARLY_EPOCHS
            for ends in parts(task.steps, EARLY_PARTS if often else 1):
                started = time.perf_counter()
                state, loss = self._train(state, order, ends, given)
                between = time.perf_counter()
                mi = self._measured(state, probe)
                measured.append(time.perf_counter() - between)
                trained.append((between - started) / (ends[1] - ends[0]))
                row: dict[str, Any] = {"loss": float(loss)}
                if ends[1] == task.steps:
                    row |= self.judge.scores(
                        self._eval_params(state.opt_state, state.params)
                    )
                in_force = float(self._rate(state, given))
                held = row.get("validation_loss", np.nan)
                state = state._replace(
                    opt_state=self._observe(state.opt_state, mi, jnp.float32(held))
                )
                history.add(
                    epoch=epoch,
                    step=int(state.steps) if self.method.early else None,
                    learning_rate=in_force,
                    mi=float(mi),
                    reference=reference,
                    **row,
                )
        seconds = {"epoch": statistics.median(trained) * task.steps}
        if probe is not None:
            seconds["measurement"] = statistics.median(measured)
        return history, {k: float(f"{v:.3g}") for k, v in seconds.items()}


def parts(steps: int, number: int) -> list[tuple[int, int]]:
    """An epoch in parts of about equal length, none of them empty."""
    number = min(number, steps)
    ends = [steps * i // number for i in range(number + 1)]
    return list(zip(ends[:-1], ends[1:], strict=True))


def reference_of(task: Task, probe: optax_mi.Probe | None) -> float:
    """What a probe's outcomes can tell, in nats; NaN without a probe."""
    if probe is None:
        return np.nan
    if task.reference is not None:
        return task.reference
    return float(optax_mi.label_entropy(task.measured(probe.outcomes)))


def final(history: optax_mi.MIHistory, part: str) -> float:
    """The mean score of the last epochs, on "validation" or "test" data."""
    scores = history.column(f"{part}_score")
    return float(scores[~np.isnan(scores)][-LAST:].mean())


def pairs(methods: Collection[str]) -> Iterator[tuple[str, str]]:
    """The optimizers and methods of a task, in the order of their runs."""
    for base in BASES:
        for name, method in METHODS.items():
            if name in methods and not method.own:
                yield base, name
    for name, method in METHODS.items():
        if name in methods and method.own:
            yield OWN, name


def planned(methods: Collection[str]) -> int:
    """The number of runs of a task, where no best rate lies on its grid's edge."""
    return sum(
        len(GRIDS[base]) + len(SEEDS) - 1 if METHODS[name].tuned else len(SEEDS)
        for base, name in pairs(methods)
    )


def extended(base: str, scores: dict[float, float]) -> float | None:
    """The rate to try next where the best one lies on the grid's edge: three times.

    Scores are higher where better.
    """
    best, (low, high) = max(scores, key=lambda rate: scores[rate]), BOUNDS[base]
    rates = sorted(scores)
    if best == rates[-1] and best < high:
        return min(_threefold(best, up=True), high)
    if best == rates[0] and best > low:
        return max(_threefold(best, up=False), low)
    return None


def _threefold(rate: float, up: bool) -> float:
    """The neighbour in ..., 0.1, 0.3, 1, 3, ..."""
    leading = f"{rate:e}"[0]
    factor = (
        (3 if leading == "1" else 10 / 3) if up else (0.3 if leading == "1" else 1 / 3)
    )
    return float(f"{rate * factor:.1g}")


Done = dict[Config, optax_mi.MIHistory]


def results(path: Path) -> Done:
    """All runs of the file by their configurations."""
    return {Config(**result.config): result.history for result in recorded(path)}


def tried(
    task: str, base: str, method: str, lower: bool, get: Callable[[Config], Any]
) -> float | None:
    """Tries the grid of a tuned method on one seed; the best rate on held-out data.

    Args:
      task: Its name.
      base: Its optimizer.
      method: Its name.
      lower: Whether a lower score is better.
      get: From a configuration to its history, or None to end.
    """
    scores: dict[float, float] = {}
    rates = list(GRIDS[base])
    while rates:
        rate = rates.pop(0)
        history = get(Config(task, base, method, rate, SEEDS[0]))
        if history is None:
            return None
        scores[rate] = final(history, "validation") * (-1 if lower else 1)
        if not rates and (further := extended(base, scores)) is not None:
            rates.append(further)
    return max(scores, key=lambda rate: scores[rate])


class Bench:
    """Runs what the file lacks, and tells how far it is."""

    def __init__(
        self,
        path: Path,
        tasks: Sequence[str],
        data_dir: str | None,
        methods: Collection[str] = tuple(METHODS),
    ) -> None:
        self.path, self.tasks, self.data_dir = path, tasks, data_dir
        self.methods, self.done, self.passed = methods, results(path), 0
        self.environment, self.total = environment(), len(tasks) * planned(methods)
        self.started = time.perf_counter()

    def run(self) -> None:
        """Does all tasks in turn."""
        for name in self.tasks:
            judge = Judge(TASKS[name](self.data_dir))
            for base, method in pairs(self.methods):
                self._pair(judge, name, base, method)
            jax.clear_caches()

    def _pair(self, judge: Judge, task: str, base: str, method: str) -> None:
        program: list[Program] = []

        def get(config: Config) -> optax_mi.MIHistory:
            self.passed += 1
            if config not in self.done:
                if not program:  # compiled where it is needed
                    program.append(Program(judge, base, method))
                self._add(config, program[0])
            return self.done[config]

        lower = judge.task.score.lower_is_better
        rate, seeds = None, SEEDS
        if METHODS[method].tuned:
            before, expected = self.passed, len(GRIDS[base])
            rate = tried(task, base, method, lower, get)
            self.total += self.passed - before - expected
            seeds = SEEDS[1:]
        for seed in seeds:
            get(Config(task, base, method, rate, seed))

    def _add(self, config: Config, program: Program) -> None:
        started = time.perf_counter()
        history, seconds = program.run(config.rate, config.seed)
        about = {"config": config._asdict(), "seconds": seconds}
        history.append_jsonl(
            self.path, config.name, **about, environment=self.environment
        )
        self.done[config] = history
        now = time.perf_counter()
        print(
            f"{self.passed}/{self.total} {config.name}: validation "
            f"{final(history, 'validation'):.4g}, test {final(history, 'test'):.4g}, "
            f"{now - started:.1f} s ({(now - self.started) / 60:.1f} min in all)",
            flush=True,
        )
