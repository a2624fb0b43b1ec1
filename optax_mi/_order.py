"""What stands behind a rate in its chain, where the states tell that it is wrong."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import optax  # pyright: ignore[reportMissingTypeStubs]

from optax_mi._state import KeptParametersState, MIDynamicLRState

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
# Those of momentum and other averages, which mix updates that lead back with others.
_AVERAGING = {"EmaState", "TraceState"}


def tell_of_order(opt_state: Any, stacklevel: int = 3) -> None:
    """Warns of a transformation behind a rate that undoes what the rate does."""
    found = _undoing(opt_state)
    if found is None:
        return
    base, told = "adam(1.0)", "normalizes the updates: the rate has no effect"
    if found in _AVERAGING:
        base, told = "sgd(1.0, momentum=0.9)", "averages the updates: those that lead"
        told += " back to good parameters do not arrive"
    warnings.warn(
        f"Behind mi_dynamic_lr, {found} of the chain {told}. Put mi_dynamic_lr last, "
        f"and before it an optimizer with a rate of 1: optax.chain(optax.{base}, "
        "optax_mi.mi_dynamic_lr(lr_min, lr_max)).",
        stacklevel=stacklevel,
    )


def _undoing(node: Any) -> str | None:
    """The name of the first state that undoes a rate, in whichever chain it is."""
    for chain in jax.tree.leaves(node, is_leaf=_is_chain):
        if not _is_chain(chain):
            continue
        undoing: set[str] = set()
        for state in chain:
            found = _named(state, undoing) if undoing else _undoing(state)
            if found is not None:
                return found
            undoing |= _undoing_behind(state)
    return None


def _is_chain(node: Any) -> bool:
    return type(node) is tuple  # states of single transformations are named tuples


def _undoing_behind(state: Any) -> set[str]:
    """The names of what must not stand behind it, if it is the state of a rate.

    A chain that ends in a rate does not count. The tuple around it may hold the states
    of two networks, and then it is no chain.
    """

    def ends(node: Any) -> bool:
        return isinstance(node, MIDynamicLRState) or _is_chain(node)

    nodes = jax.tree.leaves(state, is_leaf=ends)
    if not any(isinstance(node, MIDynamicLRState) for node in nodes):
        return set()
    goes_back = _named(state, {KeptParametersState.__name__}) is not None
    return _NORMALIZING | _AVERAGING if goes_back else _NORMALIZING


def _named(node: Any, names: set[str]) -> str | None:
    """The name of the first such state, unless it is for some parameters alone."""

    def ends(node: Any) -> bool:
        return isinstance(node, optax.MaskedState) or type(node).__name__ in names

    found = [type(each).__name__ for each in jax.tree.leaves(node, is_leaf=ends)]
    return next((name for name in found if name in names), None)
