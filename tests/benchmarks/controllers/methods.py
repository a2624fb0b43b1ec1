"""How a rate is set around a base optimizer, by names: schedules and controllers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

import optax_mi
from examples.common.methods import SCHEDULES, Run
from tests.benchmarks.controllers.greedy import Rule, follow

# Optimizers at a rate of 1, and the bounds of the rate, the same for every method.
BASES: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(1.0),
    "momentum": lambda: optax.sgd(1.0, momentum=0.9),
    "adam": lambda: optax.adam(1.0),
}
BOUNDS = {"sgd": (1e-4, 3.0), "momentum": (1e-5, 1.0), "adam": (1e-6, 0.1)}
# The rates that tuned methods begin with; see `run.extended`.
GRIDS = {
    "sgd": (0.03, 0.1, 0.3, 1.0),
    "momentum": (0.003, 0.01, 0.03, 0.1),
    "adam": (0.0003, 0.001, 0.003, 0.01),
}
OWN = "own"  # the base of methods that bring theirs

# Schedule-free takes the place of momentum, so its authors have it switched off.
WITHOUT_MOMENTUM: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": lambda: optax.sgd(1.0),
    "momentum": lambda: optax.sgd(1.0),
    "adam": lambda: optax.adam(1.0, b1=0.0),
}


class Setting(NamedTuple):
    """What a method needs to know of its runs."""

    base: str
    run: Run  # its reference is that of the probe

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest rate."""
        return BOUNDS[self.base]


def _unchanged(opt_state: Any, mi: Any, loss: Any) -> Any:
    del mi, loss
    return opt_state


class Method(NamedTuple):
    """How the rate is set. Functions are traced, and so is the rate of a grid."""

    make: Callable[[jax.Array, Setting], optax.GradientTransformation]
    # The rate of the last step, of the state after so many steps.
    rate: Callable[[Any, jax.Array, jax.Array, Setting], jax.Array]
    # Takes a measurement and the loss on held-out data to the state.
    observe: Callable[[Any, jax.Array, jax.Array], Any] = _unchanged
    probe: str = ""  # "training" or "held_out", where information is measured
    early: bool = False  # measured before the first step, and often in two epochs
    tuned: bool = False
    own: bool = False  # brings its own base
    eval_params: Callable[[Any, Any], Any] = lambda opt_state, params: params


def scheduled(name: str) -> Method:
    """A schedule of the examples, with the rate as its peak."""

    def make(rate: jax.Array, setting: Setting) -> optax.GradientTransformation:
        shape = optax.scale_by_schedule(SCHEDULES[name](setting.run, 1.0))
        return optax.chain(BASES[setting.base](), shape, optax.scale(rate))

    def last(_: Any, rate: jax.Array, steps: jax.Array, setting: Setting) -> jax.Array:
        return rate * SCHEDULES[name](setting.run, 1.0)(steps - 1)

    return Method(make, last, tuned=True)


def plateau() -> Method:
    """`reduce_on_plateau`, given the held-out loss once an epoch.

    Optax's own takes a value in every step; here the value of an epoch counts once.
    """
    rule = contrib.reduce_on_plateau(factor=0.5, patience=3)

    def make(rate: jax.Array, setting: Setting) -> optax.GradientTransformation:
        def update(updates: Any, state: Any, params: Any = None) -> Any:
            del params
            return jax.tree.map(lambda u: rate * state.scale * u, updates), state

        scaled = optax.GradientTransformation(rule.init, update)
        return optax.chain(BASES[setting.base](), scaled)

    def observe(opt_state: Any, mi: jax.Array, loss: jax.Array) -> Any:
        del mi
        return (*opt_state[:-1], rule.update({}, opt_state[-1], value=loss)[1])

    def last(state: Any, rate: jax.Array, *_: Any) -> jax.Array:
        return rate * state[-1].scale

    return Method(make, last, observe, tuned=True)


def schedule_free() -> Method:
    """`schedule_free` around the base without its momentum, warmed up as the cosine."""

    def warmed(setting: Setting) -> optax.Schedule:
        return optax.linear_schedule(0.1, 1.0, setting.run.steps // 10)

    def make(rate: jax.Array, setting: Setting) -> optax.GradientTransformation:
        def schedule(count: Any) -> Any:
            return rate * warmed(setting)(count)

        base = WITHOUT_MOMENTUM[setting.base]()
        scaled = optax.chain(base, optax.scale_by_schedule(schedule))
        return contrib.schedule_free(scaled, schedule)

    def last(_: Any, rate: jax.Array, steps: jax.Array, setting: Setting) -> jax.Array:
        return rate * warmed(setting)(steps - 1)

    return Method(make, last, tuned=True, eval_params=contrib.schedule_free_eval_params)


class Averaged(NamedTuple):
    """A state beside the average of the parameters so far."""

    inner: Any
    mean: Any
    steps: jax.Array


def averaged(
    inner: optax.GradientTransformation, power: float = 8.0
) -> optax.GradientTransformation:
    """Keeps the polynomial-decay average that DoG's authors evaluate."""

    def init(params: Any) -> Averaged:
        return Averaged(inner.init(params), params, jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        updates, inside = inner.update(updates, state.inner, params)
        weight = (power + 1) / (state.steps + 1 + power)
        mean = jax.tree.map(
            lambda m, p, u: m + weight * (p + u - m), state.mean, params, updates
        )
        return updates, Averaged(inside, mean, state.steps + 1)

    return optax.GradientTransformation(init, update)


def dog() -> Method:
    """DoG with its defaults, evaluated at its average."""

    def last(state: Any, *_: Any) -> jax.Array:
        found = state.inner[1]
        return found.max_dist / jnp.sqrt(found.sum_sq_norm_grads + 1e-8)

    return Method(
        lambda *_: averaged(contrib.dog()),
        last,
        own=True,
        eval_params=lambda opt_state, params: opt_state.mean,
    )


def prodigy() -> Method:
    """Prodigy with its defaults; the rate is its estimate."""
    return Method(
        lambda *_: contrib.prodigy(), lambda state, *_: state.estim_lr, own=True
    )


def greedy(middle: bool) -> Method:
    """GreedyLR from the lower bound, or from the bounds' geometric middle."""

    def make(_: jax.Array, setting: Setting) -> optax.GradientTransformation:
        low, high = setting.bounds
        start = (low * high) ** 0.5 if middle else low
        return optax.chain(BASES[setting.base](), follow(Rule(low, high, start)))

    # That of the next step, which is a twentieth from it at most, or reset.
    return Method(make, lambda state, *_: state[-1].learning_rate)


def informed(policy: str, probe: str, early: bool, cooldown: float = 0.0) -> Method:
    """A policy of this package, by the name of its maker there, with its defaults.

    With a cooldown the base optimizer's own rate, 1 till then, falls to 0 in that share
    of the training at its end, which is then known.
    """

    def make(_: jax.Array, setting: Setting) -> optax.GradientTransformation:
        run = setting.run
        options: Any = {"policy": getattr(optax_mi, policy)()}
        rate = optax_mi.mi_dynamic_lr(
            *setting.bounds, reference=run.reference, **options
        )
        if not cooldown:
            return optax.chain(BASES[setting.base](), rate)
        length = round(cooldown * run.steps)
        falling = optax.linear_schedule(1.0, 0.0, length, run.steps - length)
        own = optax.scale_by_schedule(falling)
        return optax.chain(BASES[setting.base](), own, rate)

    def observe(opt_state: Any, mi: jax.Array, loss: jax.Array) -> Any:
        del loss
        return optax_mi.record_mi(opt_state, mi)

    def last(state: Any, *_: Any) -> jax.Array:
        return optax.tree.get(state, "learning_rate")

    return Method(make, last, observe, probe=probe, early=early)


NEW = "warmup_stable_decay_policy"
METHODS: Mapping[str, Method] = {
    "constant": scheduled("constant"),
    "cosine": scheduled("cosine"),
    "one_cycle": scheduled("one_cycle"),
    "plateau": plateau(),
    "schedule_free": schedule_free(),
    "prodigy": prodigy(),
    "dog": dog(),
    "greedy": greedy(middle=False),
    "greedy_middle": greedy(middle=True),
    "policy_b": informed("reference_policy", "training", early=False),
    "wsd": informed(NEW, "held_out", early=True),
    "wsd_cooldown": informed(NEW, "held_out", early=True, cooldown=0.2),
    "wsd_training": informed(NEW, "training", early=True),
}
