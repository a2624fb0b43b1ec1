"""The benchmark of controllers: its greedy rule, its report, and how it resumes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi
from tests.benchmarks.controllers import greedy, methods, report, run, tasks
from tests.benchmarks.controllers.run import Config


class Twin:
    """The published greedy rule in plain Python."""

    def __init__(self, rule):
        self.rule = rule
        self.begin()

    def begin(self):
        self.rate, self.best, self.losses = self.rule.start, math.inf, []
        self.good = self.bad = self.cooldown = self.warmup = 0
        self.resets_in = self.rule.reset

    def step(self, loss):
        rule = self.rule
        self.losses = [*self.losses, loss][-rule.window :]
        mean = sum(self.losses) / len(self.losses)
        if self.cooldown or self.warmup:
            self.cooldown = max(self.cooldown - 1, 0)
            self.warmup = max(self.warmup - 1, 0)
            self.good = self.bad = 0
            return
        if mean < self.best - rule.threshold:
            self.best, self.good, self.bad = mean, self.good + 1, 0
        else:
            self.good, self.bad = 0, self.bad + 1
        if self.good > rule.patience:
            self.rate = min(self.rate / rule.factor, rule.high)
            self.warmup, self.good, self.resets_in = rule.warmup, 0, rule.reset
        elif self.bad > rule.patience:
            self.rate = max(self.rate * rule.factor, rule.low)
            self.cooldown, self.bad = rule.cooldown, 0
            if self.rate <= rule.low:
                self.resets_in -= 1
                if self.resets_in <= 0:
                    self.begin()


def test_the_greedy_rule_is_the_published_one():
    rule = greedy.Rule(
        *(0.0625, 2.0, 0.5), factor=0.5, patience=2, window=3, reset=3
    )._replace(cooldown=2, warmup=1)
    rng = np.random.default_rng(0)
    falling, rising = -np.arange(40) / 4, np.arange(60) / 4
    losses = np.concatenate([falling, rising, falling]) + rng.normal(size=140) / 8
    twin, step = Twin(rule), jax.jit(lambda s, loss: greedy.judged(rule, s, loss))
    state, rates, expected = greedy.begun(rule), [], []
    for loss in losses:
        state = step(state, loss)
        twin.step(loss)
        rates.append(float(state.learning_rate))
        expected.append(twin.rate)
    assert rates == expected
    assert {0.0625, 2.0} < set(rates)
    after = rates[rates.index(0.0625) :]
    assert after[next(i for i, rate in enumerate(after) if rate > 0.0625)] == 0.5


def made_up(score, rate=0.1):
    history = optax_mi.MIHistory()
    for epoch in range(8):
        shown = 0 if epoch < 3 else score  # the first three do not count
        history.add(
            epoch=epoch,
            learning_rate=rate,
            mi=math.nan,
            validation_score=shown,
            test_score=shown - 1,
        )
    return history


SCORES = {"constant": 90.0, "cosine": 95.0, "wsd": (94.0, 97.0, 60.0)}


def a_file(path, scores):
    """Every method of digits with SGD has a score, 80 where none is given."""
    for name, method in methods.METHODS.items():
        given = scores.get(name, 80.0)
        base = methods.OWN if method.own else "sgd"
        rates = methods.GRIDS["sgd"] if method.tuned else (None,)
        for rate in rates:
            for seed in run.SEEDS:
                score = given[seed] if isinstance(given, tuple) else given
                score -= rate not in (None, 0.3)  # the best of the grid
                config = Config("digits", base, name, rate, seed)
                history = made_up(score, rate or 0.1)
                about = {"config": config._asdict(), "seconds": {"epoch": 1.0}}
                history.append_jsonl(path, config.name, **about)


def test_the_report_of_made_up_results(tmp_path, capsys):
    path = tmp_path / "controllers.jsonl"
    report.write(path)
    assert "no report" in capsys.readouterr().out
    a_file(path, SCORES)
    row = report.compared(run.results(path))["digits", "sgd"]
    assert row.best == "cosine"
    assert row.found["cosine"].rate == 0.3
    np.testing.assert_allclose(row.found["cosine"].scores, 94)
    np.testing.assert_allclose(row.regrets["constant"], 5)
    np.testing.assert_allclose(row.regrets["wsd"], [1, -2, 35])
    report.write(path)
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| digits | sgd | warm-up + cosine | 0.3 | 94.00 | 5.00 (5.00) |" in page
    assert "| 11.33 (35.00) |" in page
    lines = page.splitlines()
    (heads,) = [line for line in lines if line.startswith("| task | optimizer | best")]
    (lost,) = [line for line in lines if "seeds lost**" in line]
    cells = dict(zip(heads.split("|"), lost.split("|"), strict=True))
    assert cells[" default policy "] == " 1 of 3 "
    assert path.with_suffix(".png").stat().st_size > 10_000


def test_a_rate_at_the_edge_of_its_grid_is_followed_to_the_bound():
    asked = []

    def get(config):
        asked.append(config.rate)
        return made_up(50 + 10 * config.rate)

    assert run.tried("digits", "sgd", "cosine", False, get) == 3
    assert asked == [0.03, 0.1, 0.3, 1.0, 3.0]
    asked.clear()
    assert run.tried("digits", "adam", "cosine", True, get) == 1e-6
    assert asked == [*methods.GRIDS["adam"], 1e-4, 3e-5, 1e-5, 3e-6, 1e-6]


def test_runs_that_the_file_has_are_not_done_again(tmp_path, monkeypatch, capsys):
    path = tmp_path / "controllers.jsonl"
    trained = []

    class Program:
        def __init__(self, judge, base, method):
            pass

        def run(self, rate, seed):
            trained.append((rate, seed))
            return made_up(90.0 if rate == 0.1 else 80.0), {"epoch": 1.0}

    monkeypatch.setattr(run, "Program", Program)
    monkeypatch.setattr(run, "BASES", {"sgd": methods.BASES["sgd"]})
    run.Bench(path, ["digits"], None, ["cosine"]).run()
    grid = [(rate, 0) for rate in (0.03, 0.1, 0.3, 1.0)]
    assert trained == [*grid, (0.1, 1), (0.1, 2)]
    assert "6/6 digits-sgd-cosine-0.1-2" in capsys.readouterr().out
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], *lines[2:5]]) + "\n")  # two are lost
    trained.clear()
    run.Bench(path, ["digits"], None, ["cosine"]).run()
    assert trained == [(0.1, 0), (0.1, 2)]


def test_a_score_is_never_worse_than_that_of_knowing_nothing():
    zero, scores = jnp.zeros(()), {"higher": [], "lower": []}
    higher = tasks.Score("%", jnp.add, 0.0)
    lower = tasks.Score("nats", jnp.add, 4.0, lower_is_better=True)
    for value in map(jnp.asarray, (5.0, -5.0, math.nan, math.inf)):
        scores["higher"].append(higher(value, zero))
        scores["lower"].append(lower(value, zero))
    assert scores == {"higher": [5, 0, 0, 0], "lower": [4, -5, 4, 4]}


@pytest.mark.parametrize("steps", [7, 77, 120])
def test_the_parts_of_an_epoch_cover_it(steps):
    assert run.parts(steps, 1) == [(0, steps)]
    steps_of = [i for start, end in run.parts(steps, 10) for i in range(start, end)]
    assert steps_of == list(range(steps))
