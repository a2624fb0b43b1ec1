"""However a measurement is given, and whatever lies around, the rates are the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiers
from flax import nnx
from flax.training.train_state import TrainState
from measurements import (
    GRADS,
    LAYERWISE,
    MEASUREMENTS,
    PARAMS,
    PLAIN,
    RATES,
    forms,
    single,
    transform,
)
from optax import contrib

import optax_mi
from optax_mi._state import KeptParametersState

BROKEN = jax.tree.map(lambda g: g * jnp.nan, GRADS)


def assert_rates(found, expected):
    for have, want in zip(found, expected, strict=True):
        assert have == pytest.approx(want, rel=1e-5)


def given(tx, measurements):
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in measurements:
        _, state = update(GRADS, state, PARAMS, mi=mi)
        yield optax_mi.learning_rates(state)


def recorded(tx, measurements):
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in measurements:
        state = optax_mi.record_mi(state, mi)
        _, state = update(GRADS, state, PARAMS)
        yield optax_mi.learning_rates(state)


WITHOUT_BIAS = {"dense": {"kernel": "train", "bias": "frozen"}, "head": "train"}

WRAPPED = {
    "nested chain": lambda make: optax.chain(
        optax.clip(1.0),
        optax.chain(optax.identity(), transform(make)),
        optax.identity(),
    ),
    "partition": lambda make: optax.partition(
        {"train": transform(make), "frozen": optax.set_to_zero()}, WITHOUT_BIAS
    ),
    "masked": lambda make: optax.masked(
        transform(make), jax.tree.map(lambda label: label == "train", WITHOUT_BIAS)
    ),
    "apply_if_finite": lambda make: optax.apply_if_finite(transform(make), 3),
    "inject_hyperparams": lambda make: transform(
        optax.inject_hyperparams(make, static_args="policy")
    ),
    "schedule_free": lambda make: contrib.schedule_free(transform(make), 1.0),
    "adam": lambda make: transform(make, optax.adam(1.0)),
    "momentum": lambda make: transform(make, optax.sgd(1.0, momentum=0.9)),
    "lion": lambda make: transform(make, optax.lion(1.0)),
}


@forms
@pytest.mark.parametrize("give", [given, recorded])
@pytest.mark.parametrize(
    "name", tiers.quick(WRAPPED, "nested chain", "partition", "inject_hyperparams")
)
def test_the_rates_are_the_same_in_every_optimizer(name, give, form):
    for have, want in zip(
        give(WRAPPED[name](form.make), form.measurements), form.rates, strict=True
    ):
        own = {label.removeprefix("train").lstrip("/"): have[label] for label in have}
        assert own == pytest.approx(want, rel=1e-5)


def train_state(make):
    return TrainState.create(apply_fn=lambda: None, params=PARAMS, tx=transform(make))


def train_state_updated(make, measurements):
    train = train_state(make)
    for mi in measurements:
        tx = optax.with_extra_args_support(train.tx)
        updates, opt_state = tx.update(GRADS, train.opt_state, train.params, mi=mi)
        params = optax.apply_updates(train.params, updates)
        train = train.replace(params=params, opt_state=opt_state)
        yield optax_mi.learning_rates(train.opt_state)


def train_state_applying_gradients(make, measurements):
    train = train_state(make)
    for mi in measurements:
        train = train.replace(opt_state=optax_mi.record_mi(train.opt_state, mi))
        train = train.apply_gradients(grads=GRADS)
        yield optax_mi.learning_rates(train.opt_state)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)
        self.head = nnx.Linear(3, 1, rngs=rngs)


def nnx_optimizer(make):
    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, transform(make), wrt=nnx.Param)
    return model, optimizer, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))


def nnx_updated(make, measurements):
    model, optimizer, gradients = nnx_optimizer(make)
    for mi in measurements:
        optimizer.update(model, gradients, mi=mi)
        yield optax_mi.learning_rates(optimizer.opt_state)


def nnx_recorded(make, measurements):
    model, optimizer, gradients = nnx_optimizer(make)
    for mi in measurements:
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        optimizer.update(model, gradients)
        yield optax_mi.learning_rates(optimizer.opt_state)


def scanned(make, measurements):
    tx = transform(make)

    def step(state, mi):
        state = jax.lax.cond(
            jnp.all(jnp.array(jax.tree.leaves(mi)) > 0),
            lambda: tx.update(GRADS, state, PARAMS, mi=mi)[1],
            lambda: tx.update(GRADS, state, PARAMS)[1],
        )
        return state, state

    stacked = jax.tree.map(lambda *values: jnp.array(values), *measurements)
    _, states = jax.jit(lambda s, mi: jax.lax.scan(step, s, mi))(
        tx.init(PARAMS), stacked
    )
    for i in range(len(measurements)):
        yield optax_mi.learning_rates(jax.tree.map(lambda leaf, i=i: leaf[i], states))


def scanned_by_the_epoch(make, measurements):
    tx = transform(make)

    @jax.jit
    def epoch(state):
        step = lambda state, _: (tx.update(GRADS, state, PARAMS)[1], None)  # noqa: E731
        return jax.lax.scan(step, state, length=3)[0]

    state = tx.init(PARAMS)
    for mi in measurements:
        state = epoch(optax_mi.record_mi(state, mi))
        yield optax_mi.learning_rates(state)


def multi_steps_recorded_before_a_skipped_one(make, measurements):
    tx = optax.MultiSteps(transform(make), every_k_schedule=3)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in measurements:
        _, state = update(GRADS, state, PARAMS)
        state = optax_mi.record_mi(state, mi)
        for _ in range(2):
            _, state = update(GRADS, state, PARAMS)
        yield optax_mi.learning_rates(state)


def multi_steps_given_in_the_step_that_emits(make, measurements):
    tx = optax.MultiSteps(transform(make), every_k_schedule=2)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in measurements:
        _, state = update(GRADS, state, PARAMS)
        assert not tx.has_updated(state)
        _, state = update(GRADS, state, PARAMS, mi=mi)
        yield optax_mi.learning_rates(state)


def apply_if_finite_recorded_before_a_skipped_one(make, measurements):
    tx = optax.apply_if_finite(transform(make), max_consecutive_errors=3)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in measurements:
        state = optax_mi.record_mi(state, mi)
        _, state = update(BROKEN, state, PARAMS)
        _, state = update(GRADS, state, PARAMS)
        yield optax_mi.learning_rates(state)


def accumulated_by_hand(make, measurements):
    tx = transform(make)
    state = tx.init(PARAMS)
    for mi in measurements:
        total = jax.tree.map(lambda *grads: sum(grads) / 3, GRADS, GRADS, GRADS)
        _, state = tx.update(total, state, PARAMS, mi=mi)
        yield optax_mi.learning_rates(state)


def sharpness_aware(make, **options):
    ascent = optax.chain(contrib.normalize(), optax.sgd(0.1))
    return contrib.sam(transform(make), ascent, sync_period=2, **options)


def sharpness_aware_at_once(make, measurements):
    tx = sharpness_aware(make, opaque_mode=True)
    state = tx.init(PARAMS)
    for mi in measurements:
        state = optax_mi.record_mi(state, mi)
        _, state = tx.update(GRADS, state, PARAMS, grad_fn=lambda params, _: GRADS)
        yield optax_mi.learning_rates(state)


def sharpness_aware_step_by_step(make, measurements):
    tx = sharpness_aware(make)
    state = tx.init(PARAMS)
    for mi in measurements:
        state = optax_mi.record_mi(state, mi)
        for _ in range(2):
            _, state = tx.update(GRADS, state, PARAMS)
        yield optax_mi.learning_rates(state)


@forms
@pytest.mark.parametrize(
    "train",
    [
        train_state_updated,
        train_state_applying_gradients,
        nnx_updated,
        nnx_recorded,
        scanned,
        scanned_by_the_epoch,
        multi_steps_recorded_before_a_skipped_one,
        multi_steps_given_in_the_step_that_emits,
        apply_if_finite_recorded_before_a_skipped_one,
        accumulated_by_hand,
        sharpness_aware_at_once,
        sharpness_aware_step_by_step,
    ],
)
def test_the_rates_are_the_same_in_every_loop(train, form):
    assert_rates(train(form.make, form.measurements), form.rates)


@pytest.mark.parametrize(
    "base",
    [
        optax.adam(1.0),
        optax.sgd(1.0, momentum=0.9),
        optax.lion(1.0),
        optax.sgd(optax.linear_schedule(1.0, 0.1, 3)),
    ],
    ids=["adam", "momentum", "lion", "schedule"],
)
@pytest.mark.parametrize("form", [PLAIN, LAYERWISE], ids=["plain", "layer-wise"])
def test_updates_are_those_of_the_base_times_the_rate(base, form):
    tx = transform(form.make, base)
    state, base_state = tx.init(PARAMS), base.init(PARAMS)
    for i, mi in enumerate(form.measurements):
        grads = jax.tree.map(lambda g, i=i: g * jnp.cos(1.0 + i), GRADS)
        updates, state = tx.update(grads, state, PARAMS, mi=mi)
        wanted, base_state = base.update(grads, base_state, PARAMS)
        for layer in PARAMS:
            rate = form.rates[i].get(layer, form.rates[i].get(""))
            jax.tree.map(
                lambda u, w, rate=rate: np.testing.assert_allclose(u, rate * w, 1e-5),
                updates[layer],
                wanted[layer],
            )


def test_what_is_given_in_a_skipped_mini_step_is_dropped_by_multi_steps():
    tx = optax.MultiSteps(transform(), every_k_schedule=2)
    state = tx.init(PARAMS)
    for mi in (0.5, None, 1.0, None):
        _, state = tx.update(GRADS, state, PARAMS, mi=mi)
    assert optax.tree.get(state, "mi") == tx.init(PARAMS).inner_opt_state[1].mi
    assert optax.tree.get(state, "count") == 2
    # Given in all mini-steps of a step it counts once.
    for mi in (0.5, 0.5, 1.0, 1.0):
        _, state = tx.update(GRADS, state, PARAMS, mi=mi)
    assert optax_mi.learning_rates(state)[""] == pytest.approx(RATES[1])


def test_ways_that_cannot_pass_a_measurement_on_refuse_it():
    with pytest.raises(TypeError, match="unexpected keyword argument 'mi'"):
        train_state(PLAIN.make).apply_gradients(grads=GRADS, mi=1.0)
    tx = sharpness_aware(PLAIN.make)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mi'"):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, mi=1.0)


def test_schedule_free_takes_steps_of_the_rate_and_their_plain_mean():
    tx = contrib.schedule_free(transform(), learning_rate=1.0)
    params, state, iterates = jnp.zeros(3), tx.init(jnp.zeros(3)), []
    for mi in MEASUREMENTS:
        updates, state = tx.update(jnp.ones(3), state, params, mi=mi)
        params = optax.apply_updates(params, updates)
        iterates.append(state.z)
    np.testing.assert_allclose(np.array(iterates)[:, 0], -np.cumsum(RATES), rtol=1e-5)
    mean = contrib.schedule_free_eval_params(state, params)
    np.testing.assert_allclose(mean, np.mean(iterates, axis=0), rtol=1e-5)


@forms
def test_bounds_may_be_injected_traced_and_changed(form):
    make = optax.inject_hyperparams(form.make, static_args="policy")
    tx = make(lr_min=1e-3, lr_max=0.1, reference=2.0)
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for mi in form.measurements[:2]:
        _, state = update(GRADS, state, PARAMS, mi=mi)
    assert_rates([optax_mi.learning_rates(state)], form.rates[1:2])
    for low, high, nearest in ((0.2, 0.3, 0.2), (0.0, 0.01, 0.01)):
        bounds = {"lr_min": jnp.float32(low), "lr_max": jnp.float32(high)}
        state.hyperparams.update(bounds)
        _, state = update(GRADS, state, PARAMS)
        assert set(optax_mi.learning_rates(state).values()) == {np.float32(nearest)}
    assert update._cache_size() == 2  # with a measurement and without


def test_gammas_may_be_injected_traced_and_changed():
    def make(lr_min, lr_max, gamma_up, gamma_down):
        policy = optax_mi.reference_policy(gamma_up, gamma_down)
        return optax_mi.mi_dynamic_lr(lr_min, lr_max, policy=policy, reference=2.0)

    tx = optax.inject_hyperparams(make)(1e-3, 0.1, gamma_up=0.1, gamma_down=0.1)
    state, update, seen = tx.init(PARAMS), jax.jit(tx.update), []
    for mi, gammas in [
        (0.5, {}),
        (1.0, {}),  # + 0.1 * 0.5
        (1.5, {"gamma_up": 0.04}),  # + 0.04 * 0.25
        (1.5, {"gamma_down": 0.2}),  # - 0.2 * 0.25
    ]:
        state.hyperparams.update({k: jnp.float32(v) for k, v in gammas.items()})
        _, state = update(GRADS, state, PARAMS, mi=mi)
        seen.append(optax_mi.learning_rates(state)[""])
    np.testing.assert_allclose(seen, [0.001, 0.051, 0.061, 0.011], rtol=1e-5)
    assert update._cache_size() == 1


def test_layers_within_another_partition_keep_their_own_labels():
    tx = optax.partition(
        {"head": transform(LAYERWISE.make), "frozen": optax.set_to_zero()},
        {"dense": "head", "head": "head", "norm": "frozen"},
    )
    params = PARAMS | {"norm": {"scale": jnp.ones(3)}}
    state = tx.init(params)
    for mi in LAYERWISE.measurements:
        state = optax_mi.record_mi(state, mi | {"": 2.2})
        _, state = tx.update(params, state, params)
    expected = {f"head/{name}": rate for name, rate in LAYERWISE.rates[-1].items()}
    assert optax_mi.learning_rates(state) == pytest.approx(expected)


def test_rates_of_partitions_follow_the_layers_that_they_are_told_to():
    def layer(name):
        return single(1e-3, 0.1, reference=2.0, layer=name)

    rates = optax.partition(
        {"dense": layer("dense"), "head": layer("head")},
        {"dense": "dense", "head": "head"},
    )
    tx = optax.chain(optax.sgd(1.0), rates)
    for give in (given, recorded):
        assert_rates(give(tx, LAYERWISE.measurements), LAYERWISE.rates)


def test_one_entry_serves_the_only_rate_of_a_partition():
    tx = optax.partition(
        {
            "train": single(1e-3, 0.1, reference=2.0),
            "frozen": optax.set_to_zero(),
        },
        {"dense": "train", "head": "frozen"},
    )
    state = optax_mi.record_mi(tx.init(PARAMS), {"": 1.0})
    assert optax.tree.get(state, "pending") == 1.0


@forms
def test_map_params_leaves_the_rates_alone(form):
    tx = transform(form.make, optax.adam(1.0))
    state = optax_mi.record_mi(tx.init(PARAMS), form.measurements[0])
    mapped = optax.tree.map_params(tx, lambda p: p + 1, state)
    assert jax.tree.all(jax.tree.map(lambda m: jnp.all(m == 1), mapped[0][0].mu))
    if isinstance(state[1], KeptParametersState):  # it holds parameters as well
        kept = jax.tree.map(lambda kept: kept + 1, state[1].kept)
        state = (state[0], state[1]._replace(kept=kept))
    jax.tree.map(np.testing.assert_array_equal, mapped[1], state[1])
