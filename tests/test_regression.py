"""Real outcomes: what their guide says, and the example that measures it."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_mi
from examples import regression
from examples.regression import BASES, Method, methods

SGD = BASES["sgd"]


def test_the_error_of_a_missing_entropy_names_what_works():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 10)), rng.normal(size=300)
    probe = optax_mi.sample_probe(jax.random.key(0), x, y, size=200)
    message = (
        r"real outcomes: leave `reference` out, .* change_policy need none; for "
        r"reference_policy -log\(1 - r2\) / 2 .*'input' is too low"
    )
    with pytest.raises(ValueError, match=message):
        optax_mi.reference_mi(probe)
    # What it names takes a measurement of such outcomes without a reference.
    for policy in (None, optax_mi.change_policy()):
        tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy)
        state = tx.init(jnp.ones(3))
        for mi in (0.5, 1.0):
            state = optax_mi.record_mi(state, mi)
            _, state = tx.update(jnp.ones(3), state, jnp.ones(3))
        assert optax_mi.learning_rates(state)[""] > 1e-3


def test_parts_share_no_example_and_are_in_units_of_those_trained_on():
    split = regression.load("diabetes", seed=1)
    sizes = regression.SIZES["diabetes"]
    assert [len(y) for _, y in split] == [sizes.train, sizes.held_out, sizes.test]
    for values in split.train:
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(axis=0), 1, rtol=1e-4)
    rows = np.concatenate([x for x, _ in split])
    assert len(np.unique(rows, axis=0)) == len(rows) == 442


@pytest.mark.e2e
def test_a_fixed_rate_trains_each_seed_as_a_loop_by_hand_does():
    splits = [regression.load("diabetes", seed) for seed in range(2)]
    method = Method(optax.scale(0.01), measures=False)
    found = regression.train(SGD, method, splits, batch=40, epochs=2)
    assert np.isnan(found["rate"]).all()
    for seed, (train, _, test) in enumerate(splits):
        params = regression.model.init(jax.random.key(seed), train[0][:1])
        rng = np.random.default_rng(seed)
        for epoch in range(2):
            for i in rng.permutation(240).reshape(-1, 40):
                gradients = jax.grad(regression.squared_error)(
                    params, train[0][i], train[1][i]
                )
                params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients)
            error = regression.squared_error(params, *test)
            assert found["test"][epoch, seed] == pytest.approx(float(error), rel=1e-3)


@pytest.mark.e2e
def test_the_input_reference_is_soon_passed_and_keeps_the_rate_down():
    splits = [regression.load("friedman1", seed) for seed in range(2)]
    ways = methods(SGD, within_reach=0.95)
    runs: dict[str, Any] = {
        name: regression.train(SGD, ways[name], splits, batch=20, epochs=12)
        for name in ("default", 'reference_policy, "input"')
    }
    by_input, default = runs['reference_policy, "input"'], runs["default"]
    low = np.float32(1e-3)
    assert (by_input["rate"].max(axis=0) > 10 * low).all()
    assert (by_input["rate"][-4:] == low).all()
    assert (default["rate"].max(axis=0) > 10 * low).all()
    # Over 8 seeds and 40 epochs 0.22 and 0.10; here 0.25 and 0.17.
    assert default["test"][-1].mean() < 0.75 * by_input["test"][-1].mean()


@pytest.mark.e2e
def test_the_table_has_a_row_for_each_method(monkeypatch, capsys):
    few = SGD._replace(rates=(0.003, 1e3))  # the second diverges
    monkeypatch.setitem(regression.BASES, "sgd", few)
    ways = methods(SGD, within_reach=0.5)
    names = ["default", "change_policy"]
    chosen = {name: ways[name] for name in names}
    monkeypatch.setattr(regression, "methods", lambda *_: chosen)
    regression.main(["--data", "diabetes", "--seeds", "2", "--epochs", "5"])
    rows = re.findall(
        r"^\| (.*?) \| (\S+) \| (\S+) \| (.*) \|$", capsys.readouterr().out, re.M
    )
    assert [row[0] for row in rows[1:]] == ["tuned fixed rate", "tuned cosine", *names]
    assert [row[3] for row in rows[1:3]] == ["0.003", "0.003"]
    for _, mean, worst, _ in rows[1:]:
        assert 0.2 < float(mean) <= float(worst) < 1.5
