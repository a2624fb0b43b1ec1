"""What the README shows is run as it stands there."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import twins

import optax_mi

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def loop():
    """The names that the README's training loop leaves behind, and each epoch's MI."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    printed = []
    namespace = {"print": lambda *values: printed.append(values)}
    exec(code, namespace)
    return namespace, printed


@pytest.mark.e2e
def test_the_training_loop_learns_with_a_rate_that_rises_and_falls(loop):
    _, printed = loop
    rates = [learning_rates[""] for _, learning_rates, *_ in printed]
    accuracy = printed[-1][-1]
    assert len(printed) == 20
    assert accuracy > 0.94
    assert rates[0] > 0.01  # from 1e-4 in ten measurements
    assert max(rates) < 3.0
    assert rates[-1] < 0.5 * max(rates)


@pytest.mark.e2e
def test_its_logits_show_the_scale_trap(loop):
    # A trained network's logits: one-hot labels in a joint space read nearly nothing,
    # as on its untrained logits they read nearly all.
    namespace, _ = loop
    model, probe = namespace["model"], namespace["probe"]
    untrained = model.init(jax.random.key(0), probe.inputs[:1])
    labels = np.asarray(probe.outcomes)[:500]
    ours, joint = [], []
    for params in (untrained, namespace["params"]):
        logits = np.asarray(jnp.asarray(model.apply(params, probe.inputs[:500])))
        ours.append(float(optax_mi.ksg_discrete(logits, labels)))
        joint.append(twins.ksg(logits, np.eye(10)[labels], scaling="none"))
    assert ours[1] > ours[0] + 0.2
    assert joint[1] < 0.2 < 1 < joint[0]


def test_links_lead_to_files_that_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
