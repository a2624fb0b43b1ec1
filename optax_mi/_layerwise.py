"""A learning rate for each layer, from what that layer says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import ScalarLike

from optax_mi import _checks
from optax_mi._going_back import able_to_go_back
from optax_mi._layers import match, module_paths
from optax_mi._policies import AnyPolicy, keeps_parameters
from optax_mi._rate import rate_alone
from optax_mi._state import whole_network
from optax_mi._types import Measurement
from optax_mi._warmup_stable_decay import warmup_stable_decay_policy


def layerwise_mi_dynamic_lr(
    param_labels: Any,
    lr_min: ScalarLike | Mapping[str, ScalarLike],
    lr_max: ScalarLike | Mapping[str, ScalarLike],
    *,
    policy: AnyPolicy | Mapping[str, AnyPolicy] | None = None,
    reference: ScalarLike | Mapping[str, ScalarLike] | None = None,
    default: str | None = None,
    init_lr: ScalarLike | Mapping[str, ScalarLike] | None = None,
    smoothing: ScalarLike | Mapping[str, ScalarLike] = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Scales the updates of each layer by a rate that its own information sets.

    One `mi_dynamic_lr` for each label, over ``optax.partition`` (the paper's Figure 6).
    Labels are paths of modules, as `capture_activations` names layers, and a group of
    parameters follows the measured layer whose path is its label or the longest
    beginning of it: of the measured ``block_0`` and ``block_0/conv``, parameters in
    ``block_0/conv`` follow the second and those in ``block_0/norm`` the first.

    Give measurements as to `mi_dynamic_lr`, as mappings: ``{layer: nats}``, what
    `estimate_mi` returns. A scalar moves all rates alike.

    A policy that goes back to good parameters takes the whole network there: layers
    restored at different times would be a network that never was. Such a policy judges
    the network by its output, "", so measure that too. Without it the default layer
    stands for it, or else the least of the layers' information.

    Args:
      param_labels: "auto": each parameter's label is the path of the module that holds
        it, in Flax (Linen or NNX), Equinox or Haiku. Or a pytree like the parameters
        (or a prefix of it) with strings as leaves, or a function from parameters to
        one. A module with strings as leaves is such a pytree, also if it can be called.
      lr_min: Lower bound, and the rate at the start. Here and below a mapping gives one
        for each label, found as measurements are: ``{"encoder": 1e-4, "head": 1e-3}``.
      lr_max: Upper bound.
      policy: As in `mi_dynamic_lr`.
      reference: In nats. Layers share one: all are held against the same outcomes.
      default: The measured layer that parameters without one of their own follow, such
        as norms and embeddings. By default the model's own output, "", where that was
        measured. `record_mi` cannot know it: give it the same one.
      init_lr: The rate at the start, if not lr_min.
      smoothing: As in `mi_dynamic_lr`.

    Returns:
      A ``GradientTransformationExtraArgs`` whose state is that of ``optax.partition``,
      with an `MIDynamicLRState` for each label; `learning_rates` names them. Where a
      policy goes back, it lies within a state that holds the parameters kept.

    Raises:
      ValueError: As `mi_dynamic_lr`. If labels are not strings, or a mapping lacks one
        or has a name that is nobody's. From `update`, with both sets listed: if
        parameters have no measured layer, nor a default one; or, where labels were
        given, if a measured layer has no parameters.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> params = {"conv": {"kernel": jnp.ones(3)}, "dense": {"kernel": jnp.ones(2)}}
      >>> tx = optax.chain(
      ...     optax.sgd(1.0), optax_mi.layerwise_mi_dynamic_lr(
      ...         "auto", 0.001, 0.05, policy=optax_mi.reference_policy(),
      ...         reference=2.0))
      >>> state = tx.init(params)
      >>> for mi in ({"conv": 0.5, "dense": 1.8}, {"conv": 1.6, "dense": 1.8}):
      ...     updates, state = tx.update(params, state, params, mi=mi)
      >>> print({k: round(v, 3) for k, v in optax_mi.learning_rates(state).items()})
      {'conv': 0.011, 'dense': 0.001}

    References:
      Vasudevan, `Dynamic learning rate using Mutual Information
      <https://arxiv.org/abs/1805.07249>`_, 2018.
    """
    options: dict[str, Any] = {
        "lr_min": lr_min,
        "lr_max": lr_max,
        "policy": warmup_stable_decay_policy() if policy is None else policy,
        "reference": reference,
        "init_lr": init_lr,
        "smoothing": smoothing,
    }
    if not any(isinstance(value, Mapping) for value in options.values()):
        rate_alone(
            layer=None, **options
        )  # refuses bad numbers here and not at the first step
    automatic = isinstance(param_labels, str)
    if automatic:
        _checks.one_of("param_labels", param_labels, ("auto",))
    labelled: Callable[[Any], Any] = (
        module_paths
        if automatic
        else param_labels
        if _is_function(param_labels)
        else lambda _: param_labels
    )

    known: list[str] = []

    def partition(params: Any) -> tuple[list[str], Any]:
        labels = labelled(params)
        leaves = jax.tree.leaves(labels)
        for leaf in leaves:
            if not isinstance(leaf, str):
                _checks.fail("param_labels", "strings", _checks.described(leaf))
        # `optax.tree.map_params` asks for a state of no parameters, with the structure
        # of that which there is.
        names = list(dict.fromkeys(leaves)) or list(known)
        own = {name: _of_label(name, names, options) for name in names}
        transforms = {name: rate_alone(layer=name, **own[name]) for name in names}
        # Not the labels themselves: `optax.partition` calls what can be called.
        return names, optax.partition(transforms, lambda _: labels)

    def init_fn(params: optax.Params) -> Any:
        known[:], inner = partition(params)
        return inner.init(params)

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        mi: Measurement | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        names, inner = partition(updates)
        if isinstance(mi, Mapping):
            layers = match(
                names, mi, default=default, argument="mi", every_layer=not automatic
            )
            extra_args["network_mi"] = whole_network(mi, default)
            mi = {name: mi[layer] for name, layer in layers.items()}
        return inner.update(updates, state, params, mi=mi, **extra_args)

    rates = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    policies = options["policy"]
    each = policies.values() if isinstance(policies, Mapping) else [policies]
    return able_to_go_back(rates) if any(map(keeps_parameters, each)) else rates


def _is_function(param_labels: Any) -> bool:
    """Whether it is a function to labels. A module of labels can be called as well."""
    if isinstance(param_labels, functools.partial):
        return True  # one of JAX's is a pytree of its arguments
    return callable(param_labels) and all(map(callable, jax.tree.leaves(param_labels)))


def _of_label(
    label: str, labels: list[str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of one label, of which some are mappings."""
    own = {}
    for argument, value in options.items():
        if isinstance(value, Mapping):
            layers = match(labels, value, argument=argument, every_layer=True)
            value = value[layers[label]]
        own[argument] = value
    return own
