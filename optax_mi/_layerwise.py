"""A learning rate for each layer, set by the mutual information of that layer."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import ScalarLike

from optax_mi import _checks
from optax_mi._going_back import able_to_go_back
from optax_mi._labels import match, module_paths
from optax_mi._place import carrying
from optax_mi._policies import AnyPolicy, as_policy, keeps_parameters
from optax_mi._rate import (
    News,
    Numbers,
    Rate,
    checked_rate,
    moved,
    news_of,
    rate_alone,
    rate_state,
    scaled,
)
from optax_mi._state import (
    MISSING,
    DefaultLayerState,
    entry,
    require_reference,
    scalar,
    whole_network,
)
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
    """Multiplies each layer's updates by a rate that its own information sets.

    One `mi_dynamic_lr` for each label, over ``optax.partition`` (the paper's Figure 6).
    Labels are paths of modules, as `capture_activations` names layers. A group of
    parameters follows the measured layer whose path is its label, or else the longest
    beginning of it. Where ``block_0`` and ``block_0/conv`` are measured, parameters in
    ``block_0/conv`` follow the second and those in ``block_0/norm`` the first.

    Pass measurements as to `mi_dynamic_lr`, as mappings ``{layer: nats}``, which
    `estimate_mi` returns. A scalar moves all rates alike.

    A policy that goes back to good parameters takes the whole network back: layers
    restored at different times would form a network that never existed. Such a policy
    judges the network by its output, "", so measure that too. Without it the default
    layer stands for the network, or else the layer with the least information.

    Args:
      param_labels: "auto": each parameter's label is the path of the module that holds
        it, in Flax (Linen or NNX), Equinox or Haiku. Or a pytree like the parameters
        (or a prefix of it) with strings as leaves, or a function from parameters to
        one. A module with strings as leaves is such a pytree, even if it can be called.
      lr_min: Lower bound, and the rate at the start. Here and below a mapping gives a
        value for each label, found as measurements are:
        ``{"encoder": 1e-4, "head": 1e-3}``.
      lr_max: Upper bound.
      policy: As in `mi_dynamic_lr`.
      reference: In nats. All layers share one, as all are compared with the same
        outcomes.
      default: The measured layer for parameters without one of their own, such as norms
        and embeddings. By default the model's own output, "", if that was measured. The
        state carries the name, so that `record_mi` follows it too.
      init_lr: The rate at the start, if not lr_min.
      smoothing: As in `mi_dynamic_lr`.

    Returns:
      A ``GradientTransformationExtraArgs`` whose state is that of ``optax.partition``,
      with an `MIDynamicLRState` for each label; `learning_rates` names them. It lies
      within another state if a default layer is named or a policy goes back.

    Raises:
      ValueError: As `mi_dynamic_lr`. If labels are not strings, or a mapping lacks a
        label or has a name that belongs to none. From `update`, with both sets listed:
        if parameters have neither a measured layer nor a default one; or, if labels
        were given, a measured layer has no parameters.

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
    if isinstance(policy, Mapping):
        policy = {name: as_policy(each) for name, each in policy.items()}
    else:
        policy = as_policy(warmup_stable_decay_policy() if policy is None else policy)
    options: dict[str, Any] = {
        "lr_min": lr_min,
        "lr_max": lr_max,
        "policy": policy,
        "reference": reference,
        "init_lr": init_lr,
        "smoothing": smoothing,
    }
    if not any(isinstance(value, Mapping) for value in options.values()):
        checked_rate(**options)  # refuses bad numbers here and not at the first step
    policies = list(policy.values()) if isinstance(policy, Mapping) else [policy]
    rates = _LayerRates(param_labels, options, policies, default)
    transformation = carrying(
        DefaultLayerState,
        default,
        optax.GradientTransformationExtraArgs(rates.init, rates.update),
    )
    goes_back = any(map(keeps_parameters, policies))
    return able_to_go_back(transformation) if goes_back else transformation


class _LayerRates:
    """The rates of all labels."""

    def __init__(
        self,
        param_labels: Any,
        options: Mapping[str, Any],
        policies: Iterable[Any],
        default: str | None,
    ) -> None:
        self.automatic = isinstance(param_labels, str)
        if self.automatic:
            _checks.one_of("param_labels", param_labels, ("auto",))
        self.param_labels, self.options, self.default = param_labels, options, default
        self.known: list[str] = []  # the labels of the parameters
        # One compiled body for all labels of a policy: fifty of them, one by one, take
        # XLA half a minute.
        self.loops = {id(p): jax.jit(partial(_in_a_loop, p)) for p in policies}

    def init(self, params: optax.Params) -> Any:
        """The state of ``optax.partition``."""
        self.known, labels = self._labels(params)
        rates = self._rates(self.known)
        transforms = {name: rate_alone(rate) for name, rate in rates.items()}
        return _partition(transforms, labels).init(params)

    def update(
        self,
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        mi: Measurement | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        """The updates, each times the rate of its label, and the state."""
        names, labels = self._labels(updates)
        news, measured = news_of(extra_args), dict.fromkeys(names, mi)
        if isinstance(mi, Mapping):
            layers = match(
                names,
                mi,
                default=self.default,
                argument="mi",
                every_layer=not self.automatic,
            )
            news = news._replace(network_mi=whole_network(mi, self.default))
            measured = {name: mi[layer] for name, layer in layers.items()}
        given = {name: entry(value, None) for name, value in measured.items()}
        state = self._moved(names, state, given, news)
        scaling = _partition(dict.fromkeys(names, _SCALING), labels)
        return scaling.update(updates, state, params)

    def _labels(self, params: Any) -> tuple[list[str], Any]:
        """The different labels, and that of each parameter."""
        labels = self.param_labels
        if self.automatic:
            labels = module_paths(params)
        elif _is_function(labels):
            labels = labels(params)
        leaves = jax.tree.leaves(labels)
        for leaf in leaves:
            if not isinstance(leaf, str):
                _checks.fail("param_labels", "strings", _checks.described(leaf))
        # `optax.tree.map_params` asks for a state of no parameters, with the structure
        # of that which there is.
        return list(dict.fromkeys(leaves)) or list(self.known), labels

    def _rates(self, names: list[str]) -> dict[str, Rate]:
        return {
            name: checked_rate(**_of_label(name, names, self.options)) for name in names
        }

    def _moved(
        self, names: list[str], state: Any, measured: Mapping[str, Any], news: News
    ) -> Any:
        """The state after each label's policy was asked."""
        rates, inner = self._rates(names), dict(state.inner_states)
        by_policy: dict[int, list[str]] = {}
        for name, rate in rates.items():
            by_policy.setdefault(id(rate.policy), []).append(name)
            if measured[name] is not None:
                require_reference(rate_state(inner[name].inner_state))
        for policy, alike in by_policy.items():
            after = self.loops[policy](
                [jax.tree.map(scalar, rates[name].numbers) for name in alike],
                [inner[name].inner_state for name in alike],
                _given([measured[name] for name in alike]),
                news,
            )
            for name, moved_state in zip(alike, after, strict=True):
                inner[name] = inner[name]._replace(inner_state=moved_state)
        return state._replace(inner_states=inner)


def _given(measured: list[Any]) -> list[Any] | None:
    """Measurements of labels, or None where there are none at all."""
    if all(mi is None for mi in measured):
        return None
    return [scalar(MISSING) if mi is None else mi for mi in measured]


def _partition(transforms: Mapping[str, Any], labels: Any) -> Any:
    # Not the labels themselves: `optax.partition` calls what can be called.
    by_label: Mapping[Hashable, Any] = {**transforms}
    return optax.partition(by_label, lambda _: labels)


def _scale(
    updates: optax.Updates, state: Any, params: optax.Params | None = None
) -> tuple[optax.Updates, Any]:
    """Scales the updates of one label by a rate that has moved already."""
    del params
    return scaled(updates, rate_state(state).learning_rate), state


_SCALING = optax.GradientTransformation(optax.init_empty_state, _scale)


def _in_a_loop(
    policy: Any, numbers: list[Numbers], states: list[Any], measured: Any, news: News
) -> list[Any]:
    """The states of rates that share a policy, after an update."""

    def one(rate: tuple[Numbers, Any, Any]) -> Any:
        own_numbers, state, mi = rate
        return moved(policy, own_numbers, state, news._replace(mi=mi))

    together = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        for each in (numbers, states)
    ]
    after = jax.lax.map(
        one, (*together, None if measured is None else jnp.stack(measured))
    )
    return [jax.tree.map(lambda a, i=i: a[i], after) for i in range(len(states))]


def _is_function(param_labels: Any) -> bool:
    """Whether it is a function to labels. A module of labels can be called as well."""
    if isinstance(param_labels, partial):
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
