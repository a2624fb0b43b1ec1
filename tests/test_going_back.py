"""Going back to parameters: exact, together, and only for policies that ask for it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import optax_mi
from optax_mi import PolicyAnswer, PolicyWithMemory


def told(keep=0.0, back=-1.0):
    """A policy that keeps where the measurement says so and goes back likewise."""

    def update(step, memory):
        answer = PolicyAnswer(step.learning_rate, step.mi == keep, step.mi == back)
        return answer, memory

    return PolicyWithMemory(lambda: (), update)


KEEP, BACK = 0.0, -1.0


def chained(base=None, **options):
    base = optax.sgd(1.0) if base is None else base
    rate = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=told(), init_lr=0.1, **options)
    return optax.chain(base, rate)


def drive(tx, params, gradients, measurements):
    """Trains, with a measurement of the parameters before each step, or none."""
    state, visited = tx.init(params), [params]

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for grads, mi in zip(gradients, measurements, strict=True):
        state = optax_mi.record_mi(state, mi)
        params, state = step(params, state, grads)
        visited.append(params)
    return visited, state


def random_tree(seed, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(scale * rng.normal(size=shape), dtype)  # noqa: E731
    return {"kernel": draw(40, 7), "bias": draw(7), "empty": draw(0)}


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_way_back_ends_at_the_very_bits(scale, dtype):
    params = random_tree(0, dtype=dtype)
    gradients = [random_tree(i, scale, dtype) for i in range(1, 12)]
    measurements = [KEEP, None, None, BACK, *[None] * 7]
    visited, state = drive(chained(), params, gradients, measurements)
    assert not same(visited[3], params)
    back = [same(at, params) for at in visited[4:]]
    # One update or two; then training goes on from there.
    assert any(back[:3])
    assert not back[-1]
    assert optax.tree.get(state, "updates_back") == 0


def test_training_goes_on_from_there_with_the_next_gradient():
    params, gradients = random_tree(0), [random_tree(i) for i in range(1, 9)]
    measurements = [KEEP, None, BACK, None, None, None, None, None]
    visited, _ = drive(chained(), params, gradients, measurements)
    last = max(i for i, at in enumerate(visited) if same(at, params))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients[last])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6),
        visited[last + 1],
        expected,
    )


def test_it_goes_back_to_what_was_kept_last():
    gradients = [random_tree(i) for i in range(1, 9)]
    measurements = [KEEP, None, KEEP, None, BACK, None, None, None]
    visited, _ = drive(chained(), random_tree(0), gradients, measurements)
    assert any(same(at, visited[2]) for at in visited[5:8])


def test_without_any_kept_it_goes_back_to_the_start():
    gradients = [random_tree(i) for i in range(1, 6)]
    visited, _ = drive(
        chained(), random_tree(0), gradients, [None, None, BACK] + [None] * 2
    )
    assert any(same(at, random_tree(0)) for at in visited[3:])


def test_measurements_on_the_way_are_ignored():
    seen = []

    def update(step, memory):
        answer = PolicyAnswer(step.learning_rate, False, step.mi == BACK)
        return answer, memory + 1

    policy = PolicyWithMemory(lambda: jnp.zeros(()), update)
    tx = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=policy)
    params = jnp.array([1e-9, 1.0])
    state = tx.init(params)
    params = params + 1  # where training went
    for mi in (BACK, 0.3, 0.4, 0.5, 0.6):
        updates, state = tx.update(jnp.zeros(2), state, params, mi=mi)
        params = optax.apply_updates(params, updates)
        seen.append((int(state.inner.memory), int(state.updates_back)))
    counts, ways = zip(*seen, strict=True)
    assert ways[0] == 1
    assert ways[-1] == 0
    assert counts[-1] == sum(way == 0 for way in ways) + 1
    np.testing.assert_array_equal(params, np.array([1e-9, 1.0], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_an_update_that_is_not_finite_or_explodes_is_never_applied(bad):
    params, gradients = random_tree(0), [random_tree(i) for i in range(1, 8)]
    gradients[3] = jax.tree.map(lambda g: g * bad, gradients[3])
    visited, _ = drive(chained(), params, gradients, [None, KEEP, *[None] * 5])
    assert any(same(at, visited[1]) for at in visited[4:])
    largest = max(float(jnp.abs(at["kernel"]).max()) for at in visited)
    assert largest < 10


def test_it_waits_until_momentum_has_forgotten_an_exploded_gradient():
    tx = chained(optax.sgd(1.0, momentum=0.9))
    gradients = [jnp.ones(3)] * 200
    gradients[5] = jnp.full(3, 1e6)
    visited, state = drive(
        tx, jnp.zeros(3), gradients, [KEEP, None, KEEP] + [None] * 197
    )
    moved = [i for i, at in enumerate(visited[7:]) if not same(at, visited[2])]
    # A trace of 1e6 * 0.9^t is near four times the usual norm of 3 by then.
    assert moved[0] == pytest.approx(100, abs=3)
    step = np.abs(visited[7 + moved[0]] - visited[6 + moved[0]]).max()
    assert step < 5  # 0.1 of the trace, where 1 is usual later on
    assert np.abs(visited[-1]).max() < 1e3


def test_momentum_that_is_slow_to_build_up_does_not_keep_it_waiting():
    tx = chained(optax.sgd(1.0, momentum=0.99))
    gradients = [jnp.ones(3)] * 400
    # The norm known is that of the first steps, and later ones grow to thirty times.
    measurements = [None, None, KEEP, *[None] * 197, BACK, *[None] * 199]
    visited, _ = drive(tx, jnp.zeros(3), gradients, measurements)
    moved = [i for i, at in enumerate(visited[203:]) if not same(at, visited[2])]
    assert moved[0] == pytest.approx(98, abs=2)


def test_a_loss_that_is_not_finite_leads_back():
    tx = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=told())
    state = tx.init(jnp.ones(2))
    updates, state = tx.update(jnp.ones(2), state, jnp.full(2, 3.0), value=jnp.nan)
    np.testing.assert_array_equal(updates, [-2.0, -2.0])


def test_weight_decay_behind_it_cannot_keep_it_from_training():
    # The wrong order: it never arrives, and gives up after some updates.
    tx = optax.chain(chained(), optax.add_decayed_weights(-0.01))
    gradients = [random_tree(i) for i in range(1, 16)]
    _, state = drive(tx, random_tree(0), gradients, [KEEP, None, BACK] + [None] * 12)
    assert optax.tree.get(state, "updates_back") == 0


def test_clipping_before_it_does_not_touch_the_way_back():
    tx = optax.chain(optax.clip(1e-3), chained())
    gradients = [random_tree(i, 1e3) for i in range(1, 9)]
    visited, _ = drive(
        tx, random_tree(0), gradients, [KEEP, *[None] * 3, BACK, *[None] * 3]
    )
    assert any(same(at, random_tree(0)) for at in visited[5:])


def test_without_parameters_the_rate_falls_and_they_stay_which_is_told():
    tx = optax_mi.mi_dynamic_lr(1e-3, 1.0)
    state, updates = tx.init(jnp.ones(2)), None
    for mi in (0.1, 0.5, 1.0, 1.5, 0.1):
        with pytest.warns(UserWarning, match="`update` was given no `params`") as told:
            updates, state = tx.update(jnp.ones(2), state, mi=mi)
        assert told[0].filename == __file__
    rate = optax_mi.learning_rates(state)[""]
    np.testing.assert_allclose(np.asarray(updates), rate)
    assert rate == pytest.approx(0.5 * 8e-3)  # half of the rate before
    assert optax.tree.get(state, "updates_back") == 0
    np.testing.assert_array_equal(optax.tree.get(state, "kept"), jnp.ones(2))


def test_parameters_are_needed_by_such_a_policy_alone():
    remembers = (lambda: jnp.zeros(()), lambda step, memory: (step.lr_max, memory))
    tx = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=remembers)
    state = tx.init(jnp.ones(2))
    assert not optax.tree.get_all_with_path(state, "kept")
    tx.update(jnp.ones(2), state)


def test_the_copy_is_no_view_of_the_parameters():
    tx, params = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=told()), jnp.ones(2)
    step = jax.jit(tx.update, donate_argnums=(1, 2))
    _, state = step(jnp.ones(2), tx.init(params), params)
    np.testing.assert_array_equal(state.kept, [1.0, 1.0])


def test_layers_go_back_together_and_so_many_updates():
    tx = optax_mi.layerwise_mi_dynamic_lr("auto", 1e-3, 1.0, policy=told())
    start = {"a": {"w": jnp.array([1e-9])}, "b": {"w": jnp.array([2.0])}}
    state, params = tx.init(start), jax.tree.map(lambda p: p + 1, start)
    zeros, ways = jax.tree.map(jnp.zeros_like, params), []
    for mi in ({"a": 0.5, "b": BACK}, None, None, None):
        updates, state = tx.update(zeros, state, params, mi=mi)
        params = optax.apply_updates(params, updates)
        ways.append(int(state.updates_back))
    assert same(params, start)
    assert ways[0] == 1
    assert ways[-1] == 0


def test_it_survives_several_runs_at_once():
    tx = chained()
    params = jnp.arange(6.0).reshape(3, 2)

    def run(params, bad):
        state = tx.init(params)
        for mi in (KEEP, jnp.where(bad, BACK, 0.5), None, None):
            updates, state = tx.update(jnp.ones(2), state, params, mi=mi)
            params = optax.apply_updates(params, updates)
        return params

    bad = jnp.array([True, False, True])
    together = jax.vmap(run)(params, bad)
    for i in range(3):
        np.testing.assert_array_equal(together[i], run(params[i], bad[i]))


def test_sharded_parameters_are_kept_and_led_back_to_where_they_lie(compiled_afresh):
    mesh = jax.make_mesh((8,), ("x",))
    spread = NamedSharding(mesh, PartitionSpec("x"))
    start = jax.device_put(jnp.arange(16.0) * 1e-3, spread)
    tx = optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=told())
    state = tx.init(start)
    assert state.kept.sharding == spread
    params: Any = jax.device_put(start + 1, spread)
    step = jax.jit(tx.update)
    for mi in (BACK, np.nan, np.nan):
        updates, state = step(jnp.zeros_like(params), state, params, mi=mi)
        # Virtual devices share threads: one program at a time.
        params = jax.block_until_ready(optax.apply_updates(params, updates))
    np.testing.assert_array_equal(params, start)
    assert state.kept.sharding.is_equivalent_to(spread, 1)


def test_moments_that_hold_nan_are_said_and_the_cure_works():
    def train(base):
        tx = optax.chain(base, optax_mi.mi_dynamic_lr(1e-3, 1.0, policy=told()))
        step, state = jax.jit(tx.update), tx.init(jnp.ones(2))
        params: Any = jnp.ones(2)
        for number in range(120):
            grads = jnp.full(2, jnp.nan) if number == 5 else jnp.ones(2)
            updates, state = step(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    params, state = train(optax.adam(1.0))
    with pytest.warns(RuntimeWarning, match="have stood still for 1.. updates"):
        optax_mi.learning_rates(state)
    assert jnp.isfinite(params).all()
    params, state = train(optax.apply_if_finite(optax.adam(1.0), 3))
    optax_mi.learning_rates(state)  # warnings are errors here
    assert params[0] < 0.95


def test_beside_one_that_goes_back_a_policy_without_a_memory_hears_of_divergence():
    policies = {"a": optax_mi.change_policy(), "b": told()}
    tx = optax_mi.layerwise_mi_dynamic_lr(
        "auto", 1e-3, 1.0, policy=policies, init_lr=0.5
    )
    params = {"a": {"w": jnp.ones(1)}, "b": {"w": jnp.ones(1)}}
    state = tx.init(params)
    _, state = tx.update(params, state, params, value=jnp.nan)
    rates = optax_mi.learning_rates(state)
    assert rates == {"a": pytest.approx(1e-3), "b": pytest.approx(0.5)}
