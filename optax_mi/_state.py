"""The state of a rate, and the measurements that may be given to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from optax_mi import _checks
from optax_mi._types import Measurement

# What is not known yet. Finite, since ``jax_debug_nans`` refuses a state of NaN or
# infinities, and wrappers that choose between states by factors of 0 and 1
# (``optax.contrib.sam``) would spread them.
MISSING = float(np.finfo(np.float32).min)
UNBOUNDED = float(np.finfo(np.float32).max)

_GIVE_REFERENCE = (
    "mi_dynamic_lr(..., reference=optax_mi.reference_mi(probe)) or "
    "record_mi(opt_state, mi, reference=optax_mi.reference_mi(probe))."
)


class MIDynamicLRState(NamedTuple):
    """State of `mi_dynamic_lr`: finite scalar arrays of fixed dtypes.

    What is not known yet is -3.4e38, the lowest float32.
    """

    #: updates so far
    count: Int32[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]
    learning_rate: Float[Array, ""]  #: in force at the next update
    mi: Float[Array, ""]  #: the last finite measurement in nats
    previous_mi: Float[Array, ""]  #: the one before it
    #: in nats; if none was given, 3.4e38 if the policy needs none, else missing
    reference: Float[Array, ""]
    value_only: Int32[Array, ""]  #: remaining measurements judged by value alone
    pending: Float[Array, ""]  #: recorded but not yet applied


class PolicyState(NamedTuple):
    """State of a rate whose policy has a memory: arrays of fixed dtypes."""

    rate: MIDynamicLRState  #: as without a memory
    memory: Any  #: the policy's own, a pytree of arrays
    network_mi: Float[Array, ""]  #: the whole network's last measurement, in nats
    network_pending: Float[Array, ""]  #: recorded but not yet applied
    keep: Bool[Array, ""]  #: the policy's last answer: keep these parameters
    go_back: Bool[Array, ""]  #: the policy's last answer: go back to the kept ones


class LayerState(NamedTuple):
    """State of a rate that follows a named layer."""

    of_layer: dict[str, Any]  #: from the layer's name to the rate's state


class DefaultLayerState(NamedTuple):
    """State of a rate for each layer, some of which follow a default layer."""

    by_default: dict[str, Any]  #: from its name to the state of ``optax.partition``


class LossState(NamedTuple):
    """The losses passed as `value`; -3.4e38 before the first."""

    first: Float[Array, ""]
    last: Float[Array, ""]
    average: Float[Array, ""]  #: the moving average
    least: Float[Array, ""]  #: the least average so far
    #: the mean difference from one loss to the next, when the average was the least
    noise: Float[Array, ""]


class KeptParametersState(NamedTuple):
    """State of a rate, or of one for each layer, that can go back to parameters."""

    inner: Any  #: `PolicyState`, or ``optax.partition``'s with one for each label
    kept: Any  #: a copy of the parameters
    updates_back: Int32[Array, ""]  #: updates since it began to go back; 0: it does not
    usual_norm: Float[Array, ""]  #: largest norm of incoming updates before `kept`
    recent_norm: Float[Array, ""]  #: largest norm of incoming updates since then
    losses: LossState  #: of the updates that were given one


def scalar(value: Any) -> Float[Array, ""]:
    """A number as the state holds it."""
    # A copy: a state that shares a buffer with its hyperparameters cannot be donated.
    return jnp.array(value, jnp.result_type(float))


def all_finite(value: Any) -> Bool[Array, ""]:
    """Whether a loss, or each of several, is finite."""
    return jnp.all(jnp.isfinite(jnp.asarray(value)))


def is_known(value: Float[Array, "*runs"] | float) -> Bool[Array, "*runs"]:
    """Whether a number was given: finite, and not the mark of a missing one."""
    return jnp.isfinite(value) & (value > MISSING)


def entry(
    values: Measurement | None, layer: str | None, argument: str = "mi"
) -> Float[Array, ""] | None:
    """The value of one layer from a scalar or a mapping, or None for nothing new."""
    value: Any = values
    if isinstance(values, Mapping):
        if layer is None:
            layer = next(iter(values)) if len(values) == 1 else ""
        if layer not in values:
            wanted = repr(layer) if layer else "the whole network, '',"
            expected = f"a mapping with {wanted} in it, or one of its values alone"
            expected += " (`layer` of mi_dynamic_lr names the entry to follow)"
            _checks.fail(argument, expected, list(values))
        value = values[layer]
    if value is None:
        return None
    if not _checks.is_scalar(value):
        _checks.fail(
            argument, "a scalar or a mapping of scalars", _checks.described(value)
        )
    return jax.lax.stop_gradient(scalar(value))


def whole_network(
    values: Measurement | None, default: str | None = None
) -> Float[Array, ""] | None:
    """The network's value: the output's, else the default layer's, else the least.

    No layer has less information than the output that is computed from it (the data
    processing inequality), so the least of the layers is the nearest to the output.
    """
    if not isinstance(values, Mapping):
        return entry(values, None)
    for name in ("", default):
        if name is not None and name in values:
            return entry(values, name)
    each = [entry(values, name) for name in values]
    known = jnp.stack([scalar(MISSING if value is None else value) for value in each])
    least = jnp.min(jnp.where(is_known(known), known, UNBOUNDED))
    return jnp.where(least < UNBOUNDED, least, MISSING)


def require_reference(state: MIDynamicLRState) -> None:
    """Raises if a needed reference is missing, unless the values are traced."""
    known = is_known(state.reference)
    if not _checks.is_traced(known) and not known.all():
        raise ValueError(
            "`reference` must be given: the policy compares mutual information with "
            f"it. Pass {_GIVE_REFERENCE}"
        )


def tell_of_no_reference(
    states: Mapping[str, MIDynamicLRState], stacklevel: int = 3
) -> None:
    """Warns of rates that have measurements but lack a reference that they need.

    A compiled step cannot raise: it leaves their rate where it is.
    """

    def is_told(value: Any) -> bool:
        return bool(is_known(float(value)))  # on the host, in any one process

    lacking = [
        label
        for label, state in states.items()
        if (is_told(state.mi) or is_told(state.pending))
        and not is_told(state.reference)
    ]
    if lacking:
        of = "" if len(lacking) == len(states) else f" (of {lacking})"
        warnings.warn(
            "The learning rate does not move: the policy compares mutual information "
            f"with a reference, and none was given{of}. Pass {_GIVE_REFERENCE}",
            stacklevel=stacklevel,
        )
