"""The table and the picture of the runs that a file holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import optax_mi
from examples.common.report import markdown, save
from examples.common.results import recorded
from tests.benchmarks.controllers import one_task
from tests.benchmarks.controllers.methods import BASES, BOUNDS, GRIDS, METHODS, OWN
from tests.benchmarks.controllers.run import (
    LAST,
    SEEDS,
    Config,
    Done,
    final,
    results,
    tried,
)
from tests.benchmarks.controllers.tasks import TASKS

LOST = 20  # points below the best tuned method
LOWER = ("transformer",)  # tasks whose score is a loss
NAMES = {
    "constant": "constant",
    "cosine": "warm-up + cosine",
    "one_cycle": "one-cycle",
    "plateau": "on plateau",
    "schedule_free": "schedule-free",
    "prodigy": "Prodigy",
    "dog": "DoG",
    "greedy": "GreedyLR, from below",
    "greedy_middle": "GreedyLR, from the middle",
    "policy_b": "policy B",
    "wsd": "default policy",
    "wsd_cooldown": "default policy, cooled over the last fifth",
    "wsd_training": "default policy, training probe",
}
# Pairs to draw, the first three that have both runs.
DRAWN = (
    ("mnist", "sgd"),
    ("cifar_cnn", "adam"),
    ("mnist_wrong", "momentum"),
    ("digits", "adam"),
    ("digits", "momentum"),
)


class Found(NamedTuple):
    """A method on a task and optimizer: its rate of the grid and its test scores."""

    rate: float | None
    scores: np.ndarray  # of the seeds


class Row(NamedTuple):
    """A task and optimizer: the best tuned method and how far others are from it."""

    best: str
    found: Mapping[str, Found]
    regrets: Mapping[str, np.ndarray]  # of the seeds, in points


def found(done: Done, task: str, base: str, name: str) -> Found | None:
    """The scores of a method's seeds, if all are there."""
    rate, lower = None, task in LOWER
    if METHODS[name].tuned:
        rate = tried(task, base, name, lower, done.get)
        if rate is None:
            return None
    own = OWN if METHODS[name].own else base
    runs = [done.get(Config(task, own, name, rate, seed)) for seed in SEEDS]
    if any(run is None for run in runs):
        return None
    return Found(
        rate, np.array([final(run, "test") for run in runs if run is not None])
    )


def compared(done: Done) -> dict[tuple[str, str], Row]:
    """A row for each task and optimizer that has all tuned methods."""
    rows: dict[tuple[str, str], Row] = {}
    for task in TASKS:
        for base in BASES:
            all_of = {name: found(done, task, base, name) for name in METHODS}
            there = {name: one for name, one in all_of.items() if one is not None}
            tuned = {n: one for n, one in there.items() if METHODS[n].tuned}
            if len(tuned) < sum(method.tuned for method in METHODS.values()):
                continue
            sign = -1 if task in LOWER else 1
            best = max(tuned, key=lambda n: sign * tuned[n].scores.mean())
            level = tuned[best].scores.mean()
            # A loss in % of the best one.
            scale = 100 / level if task in LOWER else 1.0
            regrets = {
                name: sign * scale * (level - one.scores) for name, one in there.items()
            }
            rows[task, base] = Row(best, there, regrets)
    return rows


def points(value: float) -> str:
    """To two places; nothing is -0.00."""
    return f"{round(value, 2) + 0.0:.2f}"


def summary(rows: Mapping[tuple[str, str], Row], names: list[str]) -> list[list[str]]:
    """What the rows come to, for each method."""
    heads = ["mean, in points alone", "mean", "largest", "seeds lost"]
    lines = [[f"**{head}**", *[""] * 4] for head in heads]
    for name in names:
        in_points = [
            row.regrets[name].mean()
            for (task, _), row in rows.items()
            if task not in LOWER and name in row.regrets
        ]
        lines[0].append(points(float(np.mean(in_points))) if in_points else "")
        regrets = [row.regrets[name] for row in rows.values() if name in row.regrets]
        means, seeds = [each.mean() for each in regrets], np.concatenate(regrets)
        fewer = "" if len(regrets) == len(rows) else f" (of {len(regrets)} rows)"
        lines[1].append(points(float(np.mean(means))) + fewer)
        lines[2].append(points(max(means)))
        lines[3].append(f"{(seeds > LOST).sum()} of {len(seeds)}")
    return lines


def table(rows: Mapping[tuple[str, str], Row]) -> str:
    """The regrets of all methods."""
    there = [n for n in METHODS if any(n in row.regrets for row in rows.values())]
    head = [
        "task",
        "optimizer",
        "best tuned",
        "rate",
        "test",
        *(NAMES[n] for n in there),
    ]
    lines: list[list[str]] = []
    for (task, base), row in rows.items():
        best = row.found[row.best]
        digits = 3 if task in LOWER else 2
        test = f"{best.scores.mean():.{digits}f}"
        line = [task, base, NAMES[row.best], f"{best.rate:g}", test]
        for name in there:
            seeds = row.regrets.get(name)
            line.append(
                ""
                if seeds is None
                else f"{points(seeds.mean())} ({points(seeds.max())})"
            )
        lines.append(line)
    return markdown(head, [*lines, *summary(rows, there)])


def rates_table(rows: Mapping[tuple[str, str], Row]) -> str:
    """What tuning chose."""
    tuned = [name for name, method in METHODS.items() if method.tuned]
    lines = [
        [task, base, *(f"{row.found[name].rate:g}" for name in tuned)]
        for (task, base), row in rows.items()
    ]
    return markdown(["task", "optimizer", *(NAMES[name] for name in tuned)], lines)


def costs(path: Path) -> str:
    """What measuring took beside training, medians over runs."""
    times: dict[tuple[str, str], list[tuple[float, float, int, int]]] = {}
    for about, history in recorded(path):
        config, seconds = about["config"], about["seconds"]
        if "measurement" in seconds:
            epochs = history.rows[-1]["epoch"] + 1
            measured = len(history.rows) + METHODS[config["method"]].early
            times.setdefault((config["task"], config["method"]), []).append(
                (seconds["epoch"], seconds["measurement"], epochs, measured)
            )
    lines: list[list[str]] = []
    for (task, method), each in times.items():
        epoch, measurement, epochs, measured = np.median(each, axis=0)
        share = measured * measurement / (epochs * epoch)
        lines.append(
            [task, NAMES[method], f"{epoch:.3g}", f"{1000 * measurement:.3g}"]
            + [f"{measured:.0f} in {epochs:.0f} epochs", f"{share:.1%}"]
        )
    head = ["task", "method", "an epoch, s", "a measurement, ms", "measurements"]
    return markdown([*head, "measuring / training"], lines)


def grids() -> str:
    """Bounds and grids."""
    lines = [
        [base, f"{low:g} to {high:g}", ", ".join(f"{rate:g}" for rate in GRIDS[base])]
        for base, (low, high) in BOUNDS.items()
    ]
    return markdown(["optimizer", "bounds", "grid"], lines)


TEXT = """\
# Controllers beside tuned schedules

Written by `python -m tests.benchmarks.controllers --report` from `{file}` beside it,
which `make controllers` fills: every number here is one of its runs. {runs} runs, on
{machines}.

A run's score is the mean of the test scores of its last {last} epochs: accuracy in %,
for `regression` R² in %, for `transformer` the loss in nats a character. A score that
is not finite or worse than that of knowing nothing counts as the latter. **Regret** is
how far a method's score is below that of the best tuned method on the same task and
optimizer, in points, and for `transformer` how far its loss is above the best one's, in
% of that: the mean over seeds 0, 1 and 2, and in brackets the worst seed. Which tuned
method is the best, the test scores say, which favours the tuned ones.

{table}

At the end: the mean over rows; the largest one of a row; the seeds that are lost, with
a regret of more than {lost}. Prodigy and DoG bring their own optimizer and were run
once a task: the same runs stand in the rows of all three optimizers, each beside that
row's best.

![Regret of each method, and rates against epochs]({picture})

## What was tuned on what

Tuned: {tuned}. Each tries the rates of the grid on seed 0 and keeps the one with the
best score on held-out data; where that lies on the grid's edge, the next rate of 0.1,
0.3, 1, 3, ... is tried as well, within the bounds. So a tuned method has seen {tries}
runs or more before the first that counts. Everything else ran once a seed, with its
defaults, within the same bounds.

{grids}

The rates that this chose:

{rates}

Untuned: Prodigy (`optax.contrib`, at its usual rate of 1); DoG (`optax.contrib`),
evaluated at the average of its parameters, as its authors do; GreedyLR, a two-way rule
of the training loss, with the defaults of Hugging Face's Transformers and a running
mean over 50 batches, from the lower bound as the policies here and from the bounds'
geometric middle; policy B, measured on 1000 training examples once an epoch; and the
default policy, measured on up to 1000 held-out examples before the first step, every
tenth of the first two epochs, then once an epoch, or likewise on 1000 training
examples. Policy B is `reference_policy`, the paper's rule outside the paper's setting:
with the bounds above, an epsilon of 0.3 % and gammas equal to the upper bound, where
the paper has 0.001 and 0.1, 1 %, and 0.1. On plateau halves the rate after three epochs
without a lower held-out loss. Schedule-free wraps the base without its momentum, which
it stands for, so that with `sgd` and `momentum` it is one method with two grids. The
reference is the entropy of the probe's classes, and for `regression` the information
between inputs and outcomes, which is known there.{absent}

## What measuring costs

Median seconds of runs of which several may have shared the machine, the compilation
left out. An epoch is its training steps alone.

{costs}
"""


def text(path: Path, done: Done, rows: Mapping[tuple[str, str], Row]) -> str:
    """The page."""
    about = [result.about.get("environment", {}) for result in recorded(path)]
    machines = dict.fromkeys(
        f"{x['processors']} processors of {x['machine']} (jax {x['jax']})"
        for x in about
        if x
    )
    tuned = [NAMES[name] for name, method in METHODS.items() if method.tuned]
    lacking = [
        NAMES[name]
        for name in METHODS
        if not any(config.method == name for config in done)
    ]
    absent = f"\n\nNot run yet: {', '.join(lacking)}." if lacking else ""
    return TEXT.format(
        file=path.name,
        runs=len(done),
        machines="; ".join(machines) or "a machine that was not noted",
        last=LAST,
        table=table(rows),
        lost=LOST,
        picture=path.with_suffix(".png").name,
        tuned=", ".join(tuned),
        tries=min(map(len, GRIDS.values())),
        grids=grids(),
        rates=rates_table(rows),
        absent=absent,
        costs=costs(path),
    )


def picture(done: Done, rows: Mapping[tuple[str, str], Row]) -> Any:
    """Regrets of methods over pairs, and rates against epochs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    _regrets(axes[0], rows)
    _rates(axes[1], done, rows)
    return figure


def _regrets(axis: Any, rows: Mapping[tuple[str, str], Row]) -> None:
    there = [n for n in METHODS if any(n in row.regrets for row in rows.values())]
    for (_, base), row in rows.items():
        shift = (list(BASES).index(base) - 1) * 0.22
        for height, name in enumerate(there):
            if name in row.regrets:
                axis.plot(
                    row.regrets[name].mean(),
                    height + shift,
                    "o^s"[list(BASES).index(base)],
                    color=f"C{list(BASES).index(base)}",
                    ms=4,
                    alpha=0.7,
                )
    for index, base in enumerate(BASES):
        axis.plot([], [], "o^s"[index], color=f"C{index}", ms=4, label=base)
    axis.set_xscale("symlog", linthresh=1, linscale=0.7)
    axis.set_xticks(
        [-1, 0, 1, 3, 10, 30, 100], ["-1", "0", "1", "3", "10", "30", "100"]
    )
    axis.axvline(0, color="0.5", lw=0.8, ls=":")
    axis.axvline(LOST, color="C3", lw=0.8, ls=":")
    axis.set_yticks(range(len(there)), [NAMES[name] for name in there])
    axis.invert_yaxis()
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.set_xlabel("regret in points; a mark is a task, its mean over seeds")
    axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def curve(history: optax_mi.MIHistory) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and the rates in force up to them."""
    epochs, rates = history.column("epoch"), history.column("learning_rate")
    numbers, first, counts = np.unique(epochs, return_index=True, return_counts=True)
    parts = np.arange(len(epochs)) - np.repeat(first, counts) + 1
    return epochs + parts / np.repeat(counts, counts), rates


def _rates(axis: Any, done: Done, rows: Mapping[tuple[str, str], Row]) -> None:
    pairs = [pair for pair in DRAWN if pair in rows and "wsd" in rows[pair].found]
    pairs = pairs or [pair for pair in DRAWN if pair in rows]
    styles = {
        "wsd": ("-", "default policy"),
        "cosine": ("--", "tuned warm-up + cosine"),
    }
    for number, (task, base) in enumerate(pairs[:3]):
        row, color = rows[task, base], f"C{number}"
        axis.plot([], [], color=color, label=f"{task}, {base}")
        for name, (style, _) in styles.items():
            if name in row.found:
                config = Config(task, base, name, row.found[name].rate, SEEDS[0])
                axis.plot(*curve(done[config]), style, color=color)
    for style, label in styles.values():
        axis.plot([], [], style, color="0.4", label=label)
    axis.set_yscale("log")
    lowest = min(low for low, _ in BOUNDS.values())  # the cosine ends below
    axis.set_ylim(lowest / 2, 2 * max(high for _, high in BOUNDS.values()))
    axis.set_xlabel("epoch")
    axis.set_ylabel("learning rate, seed 0")
    axis.grid(color="0.9")
    axis.set_axisbelow(True)
    axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def write(path: Path) -> None:
    """Writes the page and the picture beside the file."""
    done = results(path)
    rows = compared(done)
    if not rows:
        print("No task has all tuned methods yet: no report.")
        return
    path.with_suffix(".md").write_text(text(path, done, rows), encoding="utf-8")
    save(picture(done, rows), path.with_suffix(".png"))
    if one_task.is_in(done):
        save(one_task.picture(done), path.with_name(path.stem + "_one_task.png"))
    print(f"{len(rows)} rows: {path.with_suffix('.md')}, {path.with_suffix('.png')}")
