"""Going back: a copy of good parameters, and updates that lead back to it."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import Array, Bool, Float

from optax_mi._state import (
    MISSING,
    KeptParametersState,
    LossState,
    PolicyState,
    all_finite,
    scalar,
)

# An update of so many times the largest norm of usual training means that it diverges.
# At the edge of stability norms of single batches differ by tens.
_EXPLODED = 100.0
# The way back ends when updates are no larger than so many times that norm; after so
# many updates, when one has not exploded, as momentum can be slow to build up.
_CALM, _MOST_CALMING = 4.0, 100
# What was learned is lost if the moving average of the losses is halfway back to the
# first one. A loss has this share of the average: that takes seven losses in a row as
# bad as the first one, or three that are far worse.
_SHARE_OF_ONE_LOSS = 0.1
# Something was learned if the average has fallen by this share of the first loss, and
# by so many times the mean difference from one loss to the next.
_LEARNED, _BEYOND_NOISE = 0.2, 8.0
# Rounding needs up to four updates. The limit is for chains in which something behind
# changes the updates, as weight decay does.
_MOST_UPDATES = 8
# The parameters stay for at most so many updates while the base optimizer's moments
# hold exploded gradients: a momentum of 0.99 forgets a factor of 1e4 in that time.
_MOST_WAITING = 1000


def able_to_go_back(
    inner: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Wraps rates whose policies may keep parameters and go back to them.

    The whole tree goes back together, whichever label's policy asked for it: layers
    restored at different times would form a network that never existed. It also goes
    back, without being asked, in two cases, and the policy is then told that training
    has diverged:

    - an update is not finite, or its norm is a hundred times the largest that came
      before the parameters were kept;
    - losses are given, and what was learned is lost.

    While it goes back, updates are ``kept - params`` (rounding can need more than one)
    and measurements are ignored. It ends when the parameters equal those kept, to the
    last bit, and the incoming updates are of their usual size again: the base
    optimizer's momentum must first forget the gradients of the diverged steps.

    Cost: a copy of the parameters, and a norm of the updates at each update.
    """

    def init_fn(params: optax.Params) -> KeptParametersState:
        return KeptParametersState(
            inner=inner.init(params),
            kept=jax.tree.map(jnp.array, params),
            updates_back=jnp.zeros((), jnp.int32),
            usual_norm=scalar(0.0),
            recent_norm=scalar(0.0),
            losses=LossState(*map(scalar, [MISSING] * 4 + [0.0])),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, KeptParametersState]:
        able = params is not None
        if not able:
            _warn_of_no_params(updates)
            params = state.kept
        norm = _norm(updates)
        usual, calm = (_is_within(norm, times, state) for times in (_EXPLODED, _CALM))
        calm = calm | (usual & (state.updates_back >= _MOST_CALMING))
        back = able & _still_going(state, params, calm)
        finite = usual if value is None else usual & all_finite(value)
        losses, lost = state.losses, jnp.array(False)
        if value is not None:
            losses, lost = _followed(losses, value, back | ~finite)
        diverged = ~back & (~finite | lost)
        scaled, rates = inner.update(
            updates, state.inner, params, diverged=diverged, ignore=back, **extra_args
        )
        keep, go_back = _answers(rates)
        begins = able & (diverged | (go_back & ~back))
        keep = able & keep & ~back & ~begins
        recent = jnp.where(back | begins, state.recent_norm, norm)
        recent = jnp.maximum(state.recent_norm, recent.astype(state.recent_norm.dtype))
        kept = _where(keep, params, state.kept)
        back = back | begins
        count = jnp.where(begins, 0, state.updates_back) + 1
        return _lead_back(back, scaled, params, kept), KeptParametersState(
            inner=rates,
            kept=kept,
            updates_back=jnp.where(back, count, 0),
            usual_norm=jnp.where(keep, recent, state.usual_norm),
            recent_norm=recent,
            losses=losses,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _warn_of_no_params(updates: optax.Updates) -> None:
    if jax.tree.leaves(updates):
        warnings.warn(
            "`update` was given no `params`, so this policy cannot go back to them: "
            "the rate falls, and the parameters stay. Call "
            "tx.update(grads, opt_state, params).",
            stacklevel=3,
        )


def _is_within(
    norm: Float[Array, ""], times: float, state: KeptParametersState
) -> Bool[Array, ""]:
    """Whether a norm is at most so many times the largest of usual training."""
    known = state.usual_norm > 0
    return jnp.isfinite(norm) & (~known | (norm <= times * state.usual_norm))


def _followed(
    losses: LossState, value: Any, ignore: Bool[Array, ""]
) -> tuple[LossState, Bool[Array, ""]]:
    """The losses with one more, and whether they are halfway back to the first."""
    value = jnp.asarray(value, losses.first.dtype)
    # Finite from here on: a loss that is not finite is ignored.
    value = jnp.mean(jnp.where(jnp.isfinite(value), value, 0))
    begun = losses.first > MISSING

    def averaged(before: Float[Array, ""], now: Float[Array, ""]) -> Float[Array, ""]:
        return jnp.where(begun, before + _SHARE_OF_ONE_LOSS * (now - before), now)

    first = jnp.where(begun, losses.first, value)
    # One loss of any size is not enough, and three are.
    learned = jnp.where(begun, losses.first - losses.least, 0)
    value = jnp.minimum(value, first + learned)
    average = averaged(losses.average, value)
    improves = ~begun | (average < losses.least)
    difference = jnp.where(begun, jnp.abs(value - losses.last), 0)
    noise = averaged(losses.noise, difference)
    now = LossState(
        first=first,
        last=value,
        average=average,
        least=jnp.where(improves, average, losses.least),
        noise=jnp.where(improves, noise, losses.noise),
    )
    learned = now.first - now.least
    has_learned = learned > jnp.maximum(
        _LEARNED * jnp.abs(now.first), _BEYOND_NOISE * now.noise
    )
    lost = ~ignore & has_learned & (average > now.first - learned / 2)
    # Later losses are compared with the least average again.
    now = now._replace(average=jnp.where(lost, now.least, average))
    return jax.tree.map(partial(jnp.where, ignore), losses, now), lost


def _true(*_: Any) -> bool:
    # A function of the module: out of `jit`, a new one would compile at each update.
    return True


def _still_going(
    state: KeptParametersState, params: Any, calm: Bool[Array, ""]
) -> Bool[Array, ""]:
    """Whether it still goes back: see `able_to_go_back`."""
    count = state.updates_back
    there = jax.lax.cond(count > 0, _equal, _true, params, state.kept)
    arrived = there | (count >= _MOST_UPDATES)
    return (count > 0) & ~(arrived & (calm | (count >= _MOST_WAITING)))


def _answers(rates: Any) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
    """Whether any label's policy asks to keep, and whether any asks to go back."""

    def is_state(node: Any) -> bool:
        return isinstance(node, PolicyState)

    nodes = jax.tree.leaves(rates, is_leaf=is_state)
    states = [node for node in nodes if is_state(node)]
    keep = [state.keep for state in states]
    go_back = [state.go_back for state in states]
    return jnp.any(jnp.array(keep, bool)), jnp.any(jnp.array(go_back, bool))


def _lead_back(back: Bool[Array, ""], updates: Any, params: Any, kept: Any) -> Any:
    def led(update: Any, param: Any, target: Any) -> Any:
        if update is None:
            return None
        return jnp.where(back, (target - param).astype(update.dtype), update)

    return jax.tree.map(led, updates, params, kept, is_leaf=lambda x: x is None)


def _where(condition: Bool[Array, ""], these: Any, those: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), these, those)


def _equal(params: Any, kept: Any) -> Bool[Array, ""]:
    same = jax.tree.map(lambda a, b: jnp.all(a == b), params, kept)
    return jnp.all(jnp.array(jax.tree.leaves(same)))


def _norm(updates: Any) -> Float[Array, ""]:
    sizes = [jnp.abs(jnp.asarray(leaf)) for leaf in jax.tree.leaves(updates)]
    squares = [
        jnp.sum(jnp.square(size.astype(jnp.result_type(float)))) for size in sizes
    ]
    return jnp.sqrt(sum(squares, start=scalar(0.0)))
