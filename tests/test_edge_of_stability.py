"""A warm-up that meets the largest stable rate kills a network, unless it goes back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import datasets

import optax_mi
from optax_mi import PolicyWithMemory

SEEDS, EPOCHS, BATCH, PARTS = 10, 12, 20, 5
SIZES = (64, 32, 32, 10)


def initial(key):
    keys = jax.random.split(key, len(SIZES) - 1)
    return [
        (jax.random.normal(k, (a, b)) * np.sqrt(2 / a), jnp.zeros(b))
        for k, a, b in zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    ]


def logits(params, x):
    *hidden, (w, b) = params
    for weight, bias in hidden:
        x = jax.nn.relu(x @ weight + bias[None])
    return x @ w + b[None]


def without_going_back():
    policy = optax_mi.warmup_stable_decay_policy()

    def update(step, memory):
        answer, memory = policy.update(step, memory)
        return answer.learning_rate, memory

    return PolicyWithMemory(policy.init, update)


def accuracies(policy):
    """Accuracy on held-out digits at the end, for each seed."""
    x, y = datasets.load_digits(return_X_y=True)
    x, y = jnp.asarray(x / 16, jnp.float32), jnp.asarray(y)
    held_x, held_y, x, y = x[-300:], y[-300:], x[:-300], y[:-300]
    reference = optax_mi.label_entropy(held_y)
    rate = optax_mi.mi_dynamic_lr(1e-4, 3.0, policy=policy, reference=reference)
    tx = optax.chain(optax.sgd(1.0), rate)

    def loss(params, x, y):
        losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
        return losses.mean()

    def step(carry, batch):
        params, state = carry
        updates, state = tx.update(
            jax.grad(loss)(params, x[batch], y[batch]), state, params
        )
        return (optax.apply_updates(params, updates), state), None

    def part(carry, batches):
        params, state = carry
        mi = optax_mi.ksg_discrete(logits(params, held_x), held_y)
        return jax.lax.scan(step, (params, optax_mi.record_mi(state, mi)), batches)

    @jax.jit
    @jax.vmap
    def train(key):
        steps = len(x) // BATCH // PARTS * PARTS
        orders = jax.vmap(lambda k: jax.random.permutation(k, len(x)))(
            jax.random.split(key, EPOCHS)
        )
        batches = orders[:, : steps * BATCH].reshape(EPOCHS * PARTS, -1, BATCH)
        params = initial(key)
        (params, _), _ = jax.lax.scan(part, (params, tx.init(params)), batches)
        return (logits(params, held_x).argmax(-1) == held_y).mean()

    return np.asarray(train(jax.random.split(jax.random.key(0), SEEDS)))


@pytest.mark.slow
def test_every_seed_survives_the_edge_of_stability():
    assert accuracies(optax_mi.warmup_stable_decay_policy()).min() > 0.85


@pytest.mark.slow
def test_without_going_back_the_same_policy_loses_networks():
    assert accuracies(without_going_back()).min() < 0.5
