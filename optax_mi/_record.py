"""Functions on an optimizer state: give it measurements, and read its rates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from optax_mi import _checks
from optax_mi._labels import match
from optax_mi._order import tell_of_order
from optax_mi._place import Place, partition_labels, place
from optax_mi._state import (
    MISSING,
    UNBOUNDED,
    KeptParametersState,
    MIDynamicLRState,
    PolicyState,
    entry,
    is_known,
    require_reference,
    tell_of_no_reference,
    whole_network,
)
from optax_mi._types import Measurement

# Updates. A momentum of 0.9 forgets a factor of 1e4 in that time.
_LONG = 100


def record_mi(
    opt_state: Any,
    mi: Measurement | None,
    reference: Measurement | None = None,
) -> Any:
    """Passes a measurement to the optimizer state, outside the training step.

    The measurement waits in the state until the next update that runs applies it: the
    state holds arrays alone, and the policy is not known here. Steps skipped by
    ``optax.MultiSteps`` or ``optax.apply_if_finite`` do not lose it. A second
    measurement before that update replaces the first, as the parameters were the same.

    Args:
      opt_state: The state of any optimizer with a `mi_dynamic_lr` in it, however
        nested; ``train_state.opt_state`` for Flax.
      mi: The measurement in nats; None or NaN is ignored. A scalar goes to every
        `mi_dynamic_lr` found. Of a mapping, each takes the entry

        - of the `layer` that it was made with, which the state carries;
        - of its label, or else of the `default`, in `layerwise_mi_dynamic_lr`;
        - of its label in an ``optax.partition`` of your own (`update` cannot know that
          label: give such a `mi_dynamic_lr` its `layer`);
        - otherwise the only entry, or that of the model's own output, "".
      reference: The reference in nats, to set or change it; found in the same way.

    Returns:
      The optimizer state, of the same structure, shapes and dtypes.

    Raises:
      ValueError: If there is no `mi_dynamic_lr` state, a mapping lacks the entry, no
        label has one, a value is not a scalar, a reference is negative, or the policy
        needs a reference and none was ever given.

    Warns:
      UserWarning: If the chain has an optimizer such as Adam behind a `mi_dynamic_lr`,
        which undoes the rate.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> policy = optax_mi.reference_policy()
      >>> rate = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy)
      >>> tx = optax.chain(optax.sgd(1.0), rate)
      >>> params = jnp.ones(3)
      >>> opt_state = tx.init(params)
      >>> for mi in (0.5, 1.0):                             # two epochs' ends
      ...     opt_state = optax_mi.record_mi(opt_state, mi, reference=2.3)
      ...     updates, opt_state = tx.update(params, opt_state)
      >>> round(optax_mi.learning_rates(opt_state)[""], 3)
      0.058
    """
    tell_of_order(opt_state)
    return _recorded(opt_state, mi, reference)


def _recorded(
    opt_state: Any, mi: Measurement | None, reference: Measurement | None = None
) -> Any:
    places = [place(path) for path, _ in _states(opt_state)]

    def own(values: Any, at: Place, argument: str) -> Float[Array, ""] | None:
        if not isinstance(values, Mapping) or at.layer is not None or not at.labels:
            return entry(values, at.layer, argument)
        labels = {
            each.labels[-1] if each.layer is None else each.layer
            for each in places
            if each.partition == at.partition
        }
        if len(values) == len(labels) == 1 and at.default is None:
            return entry(values, None, argument)
        # A mapping of references may lack some, also that of the default.
        default = at.default if argument == "mi" or at.default in values else None
        followed = match(
            labels, values, default=default, argument=argument, every_layer=False
        )
        return entry(values, followed[at.labels[-1]], argument)

    def record(at: Place, state: MIDynamicLRState) -> MIDynamicLRState:
        new_reference = own(reference, at, "reference")
        if new_reference is not None:
            if not _checks.is_traced(new_reference) and new_reference < 0:
                _checks.fail("reference", ">= 0", new_reference)
            new_reference = jnp.minimum(new_reference, UNBOUNDED)
            known = jnp.where(is_known(new_reference), new_reference, state.reference)
            state = state._replace(reference=known)
        new_mi = own(mi, at, "mi")
        if new_mi is None:
            return state
        require_reference(state)
        pending = jnp.where(is_known(new_mi), new_mi, state.pending)
        return state._replace(pending=pending)

    def record_network(at: Place, pending: Any) -> Any:
        of_layers = at.labels and at.layer is None
        network = whole_network(mi, at.default) if of_layers else own(mi, at, "mi")
        if network is None:
            return pending
        return jnp.where(is_known(network), network, pending)

    return _map_states(record, opt_state, record_network)


def track_value_only(opt_state: Any, measurements: int = 5) -> Any:
    """Has the next measurements judged by their value alone, not by their change.

    For use after a change of batch size, for example (the paper's Figure 5). With
    `reference_policy` the rate then rises while the information is below the reference,
    whether or not it has just grown. `warmup_stable_decay_policy` warms up again from
    the current rate. `change_policy` is not affected.

    Args:
      opt_state: The state of any optimizer with a `mi_dynamic_lr` in it.
      measurements: For how many finite measurements, not steps. 0 ends it.

    Returns:
      The optimizer state, of the same structure and dtypes.

    Raises:
      ValueError: If there is no `mi_dynamic_lr` state, or measurements is negative.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> policy = optax_mi.reference_policy()
      >>> tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy, reference=2.3)
      >>> state = optax_mi.track_value_only(tx.init(jnp.ones(3)), measurements=5)
      >>> int(state.value_only)
      5
    """
    _checks.nonnegative("measurements", measurements)
    if not _checks.is_traced(measurements):
        if float(measurements) % 1:
            _checks.fail("measurements", "a whole number", measurements)
        measurements = min(int(measurements), np.iinfo(np.int32).max)

    def track(_: Place, state: MIDynamicLRState) -> MIDynamicLRState:
        value_only = jnp.full_like(state.value_only, measurements)
        return state._replace(value_only=value_only)

    return _map_states(track, opt_state)


def learning_rates(opt_state: Any) -> dict[str, float]:
    """The current learning rates, as Python floats, for logging.

    Args:
      opt_state: The state of any optimizer with a `mi_dynamic_lr` in it.

    Returns:
      ``{label: rate}``: the label within ``optax.partition``, "" elsewhere. If several
      would share a label, the key is the place in the state. In compiled code use
      ``optax.tree.get_all_with_path(opt_state, "learning_rate")``.

    Raises:
      ValueError: If there is no `mi_dynamic_lr` state.

    Warns:
      RuntimeWarning: If a policy went back to kept parameters and they have not moved
        for a hundred updates.
      UserWarning: If the policy needs a reference, and measurements have come but no
        reference: compiled code left the rate where it was. Or if the chain has an
        optimizer such as Adam behind a `mi_dynamic_lr`, which undoes the rate.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> tx = optax.chain(optax.sgd(1.0), optax_mi.mi_dynamic_lr(0.25, 0.5))
      >>> optax_mi.learning_rates(tx.init(jnp.ones(3)))
      {'': 0.25}
    """
    states = labelled_states(opt_state)
    _warn_of_waiting(opt_state)
    tell_of_no_reference(states)
    tell_of_order(opt_state)
    return {label: float(state.learning_rate) for label, state in states.items()}


def labelled_states(opt_state: Any) -> dict[str, MIDynamicLRState]:
    """The `mi_dynamic_lr` states by label, or by place where labels are shared."""
    found = _states(opt_state)
    for _, state in found:
        if jnp.ndim(state.learning_rate):
            _checks.fail(
                "opt_state",
                "of one run (of several: jax.tree.map(lambda a: a[i], opt_state))",
                f"rates of shape {jnp.shape(state.learning_rate)}",
            )
    labels = ["/".join(partition_labels(path)) for path, _ in found]
    return {
        label if labels.count(label) == 1 else jax.tree_util.keystr(path): state
        for label, (path, state) in zip(labels, found, strict=True)
    }


def _warn_of_waiting(opt_state: Any) -> None:
    """Warns that training stands still, as a base optimizer does not recover."""

    def is_kept(node: Any) -> bool:
        return isinstance(node, KeptParametersState)

    for node in jax.tree.leaves(opt_state, is_leaf=is_kept):
        if not is_kept(node):
            continue
        (waited,) = jax.tree.leaves(node.updates_back)
        if waited > _LONG:
            warnings.warn(
                f"The parameters have stood still for {waited} updates: those that "
                "come in are not finite, or a hundred times larger than before. The "
                "moments of the optimizer before mi_dynamic_lr may hold NaN: put "
                "optax.apply_if_finite around it.",
                RuntimeWarning,
                stacklevel=3,
            )


def pending_only(opt_state: Any, mi: Measurement) -> Any:
    """The state with this measurement pending; nothing is pending if it is missing."""

    def forget(_: Any, state: MIDynamicLRState) -> MIDynamicLRState:
        return state._replace(pending=jnp.full_like(state.pending, MISSING))

    def forget_network(_: Any, pending: Any) -> Any:
        return jnp.full_like(pending, MISSING)

    return _recorded(_map_states(forget, opt_state, forget_network), mi)


def _is_state(node: Any) -> bool:
    return isinstance(node, MIDynamicLRState | PolicyState)


def _states(opt_state: Any) -> list[tuple[Any, MIDynamicLRState]]:
    leaves = jax.tree_util.tree_leaves_with_path(opt_state, is_leaf=_is_state)
    found = [(path, _arrays(leaf)) for path, leaf in leaves if _is_state(leaf)]
    if not found:
        _checks.fail(
            "opt_state",
            "the state of an optimizer with `mi_dynamic_lr` in it",
            jax.tree.structure(opt_state),
        )
    return found


def _map_states(
    fn: Callable[[Place, MIDynamicLRState], MIDynamicLRState],
    opt_state: Any,
    of_network: Callable[[Place, Any], Any] | None = None,
) -> Any:
    """Maps each rate's state, and the network's pending value if it has a memory."""
    _states(opt_state)

    def visit(path: Any, node: Any) -> Any:
        at = place(path)
        if isinstance(node, MIDynamicLRState):
            return _like(node, fn(at, _arrays(node)))
        if not isinstance(node, PolicyState):
            return node
        changed = node._replace(rate=_like(node.rate, fn(at, _arrays(node))))
        if of_network is None:
            return changed
        (pending,) = jax.tree.leaves(node.network_pending)
        pending = _like(node.network_pending, of_network(at, pending))
        return changed._replace(network_pending=pending)

    return jax.tree_util.tree_map_with_path(visit, opt_state, is_leaf=_is_state)


def _like(node: Any, values: Any) -> Any:
    """Values in the place of a node's: `nnx.Optimizer` keeps each in a variable."""
    return jax.tree.structure(node).unflatten(jax.tree.leaves(values))


def _arrays(state: MIDynamicLRState | PolicyState) -> MIDynamicLRState:
    rate = state.rate if isinstance(state, PolicyState) else state
    return MIDynamicLRState(*jax.tree.leaves(rate))
