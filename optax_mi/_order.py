"""What stands behind a rate in its chain, where the states tell that it is wrong."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import optax  # pyright: ignore[reportMissingTypeStubs]

from optax_mi._state import MIDynamicLRState

# States of Optax's transformations that divide updates by their size or keep their sign
# alone. By name, as two of them have no public one. Others may stand behind a rate, or
# have a state that tells nothing (clipping, weight decay, `optax.scale_by_sign`).
_NORMALIZING = {
    "FactoredState",
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByAdanState",
    "ScaleByAmsgradState",
    "ScaleByBeliefState",
    "ScaleByLionState",
    "ScaleByNovogradState",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRpropState",
    "ScaleByRssState",
    "ScaleBySM3State",
}


def tell_of_order(opt_state: Any, stacklevel: int = 3) -> None:
    """Warns of a transformation behind a rate that undoes it: the rate says nothing."""
    found = _normalizing_behind_a_rate(opt_state)
    if found is not None:
        warnings.warn(
            "The learning rate has no effect on the size of the updates: behind "
            f"mi_dynamic_lr the chain normalizes them ({found}). Put mi_dynamic_lr "
            "last, behind an optimizer whose own rate is 1: "
            "optax.chain(optax.adam(1.0), optax_mi.mi_dynamic_lr(lr_min, lr_max)).",
            stacklevel=stacklevel,
        )


def _normalizing_behind_a_rate(node: Any) -> str | None:
    """The name of such a state, in any chain within an optimizer's state."""
    for chain in jax.tree.leaves(node, is_leaf=_is_chain):
        if not _is_chain(chain):
            continue
        behind = False
        for state in chain:
            found = _normalizing(state) if behind else _normalizing_behind_a_rate(state)
            if found is not None:
                return found
            behind = behind or _is_rate(state)
    return None


def _is_chain(node: Any) -> bool:
    return type(node) is tuple  # states of single transformations are named tuples


def _is_rate(state: Any) -> bool:
    """Whether a state is that of a rate, or of what wraps nothing but rates.

    A chain with a rate in it does not count: the tuple around it may be of two
    networks' states, and not a chain.
    """

    def ends(node: Any) -> bool:
        return isinstance(node, MIDynamicLRState) or _is_chain(node)

    nodes = jax.tree.leaves(state, is_leaf=ends)
    return any(isinstance(node, MIDynamicLRState) for node in nodes)


def _normalizing(state: Any) -> str | None:
    """The name of a state that normalizes all parameters' updates, not some alone."""

    def is_known(node: Any) -> bool:
        return type(node).__name__ in _NORMALIZING

    def ends(node: Any) -> bool:
        return is_known(node) or isinstance(node, optax.MaskedState)

    nodes = jax.tree.leaves(state, is_leaf=ends)
    return next((type(node).__name__ for node in nodes if is_known(node)), None)
