"""Mutual information of captured layers with the outcomes, and its reference."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from optax_mi import _checks
from optax_mi._alike import map_layers
from optax_mi._estimators import _joint, ksg, ksg_discrete, label_entropy
from optax_mi._estimators._neighbours.sharding import over_points
from optax_mi._probe import Probe
from optax_mi._types import AxisName, Estimator, Metric, Numeric, ReferenceKind, Scaling

REFERENCE_KINDS = ("label_entropy", "input", "tiled")


def estimate_mi(
    activations: Mapping[str, Numeric[ArrayLike, "n ..."]],
    outcomes: Numeric[ArrayLike, "n ..."],
    *,
    estimator: Estimator | None = None,
    k: int | Sequence[int] | None = None,
    metric: Metric | None = None,
    scaling: Scaling | None = None,
    local: bool = False,
    block_size: int | None = None,
    axis_name: AxisName = None,
) -> dict[str, Float[Array, "*n"]]:
    """Estimates I(H_i; Y), in nats, for every layer in one compiled call.

    The outcomes choose the estimator: integers are classes and go to `ksg_discrete`,
    floats are continuous and go to `ksg`. Any other can be given as `estimator`: one of
    this package with its options bound, or your own, such as
    ``lambda h, y: optax_mi.pairwise_distance_bounds(h, y, noise=0.1).lower``. Keep the
    function and pass the same one each time: outside of ``jax.jit`` a new function
    object is compiled again.

    Args:
      activations: ``{layer: array [n, ...]}``, as `capture_activations` returns them.
      outcomes: True outcomes, shape [n] classes or [n, ...] real numbers.
      estimator: A function from a layer [n, d] and the outcomes to a scalar in nats,
        see `Estimator`. It may take integers of shape [n, m], such as several labels
        for each example. The options below belong to the default; bind those of yours,
        as in ``partial(ksg_discrete, k=5, scaling="variable")``.
      k: Number of neighbours, by default 3. With several k, the mean of their
        estimates; distances are computed once.
      metric: "euclidean" (the default), "manhattan" or "chebyshev", the norm within a
        layer (and within continuous outcomes). Only `ksg` itself has the maximum norm
        of its paper as default; that is biased more in high dimension.
      scaling: "variable" (the default), "feature" or "none", as for `ksg`. A layer's
        features share a unit, and one that hardly varies should count for little. The
        columns of a table do not share one: "feature".
      local: Whether to return the term of each point, shape [n], instead of their mean.
        Single terms are noisy and may be negative; NaN for a point alone in its class.
      block_size: Points handled at a time; chosen from n and the backend by default.
      axis_name: The mesh axis over which the points are spread, as for `ksg_discrete`.

    Returns:
      ``{layer: scalar}``, or [n] of them, in nats. Not clipped, so slightly negative
      values are possible; NaN for a layer that holds a NaN or an infinity.

    Raises:
      ValueError: If there are no layers, lengths differ, k < 1, n <= k, integer
        outcomes are not of shape [n], outcomes are one-hot codes, an option is given
        beside an estimator, or the estimator does not return a scalar.

    Warns:
      UserWarning: If outcomes are floats with few different whole numbers (classes must
        be integers), or integers of which most are alone in their class (amounts must
        be floats).

    Cost: the sum over the layers of n^2 d operations.

    Example:
      >>> import numpy as np
      >>> import optax_mi
      >>> rng = np.random.default_rng(0)
      >>> labels = rng.integers(0, 4, 1000)
      >>> noise, codes = rng.normal(size=(1000, 8)), np.eye(4)[labels]
      >>> mi = optax_mi.estimate_mi({"noise": noise, "codes": codes}, labels)
      >>> {layer: round(float(nats), 1) for layer, nats in mi.items()}  # log 4 = 1.4
      {'noise': 0.0, 'codes': 1.4}
    """
    layers, outcomes = _checked(
        activations,
        outcomes,
        own=estimator is not None,
        by_feature=scaling == "feature",
    )
    if estimator is not None:
        _refuse(
            k=k,
            metric=metric,
            scaling=scaling,
            local=local or None,
            block_size=block_size,
            axis_name=axis_name,
        )
        estimates = _apply_all(tuple(layers.values()), outcomes, estimator=estimator)
        return dict(zip(layers, estimates, strict=True))
    _checks.flag("local", local)
    options = _joint.options(
        len(outcomes),
        3 if k is None else k,
        "euclidean" if metric is None else metric,
        "variable" if scaling is None else scaling,
        block_size,
        axis_name,
    )
    estimates = _estimate_all(
        *layers.values(),
        outcomes,
        axis_name=axis_name,
        discrete=_checks.is_discrete(outcomes),
        options=options,
        local=local,
    )
    return dict(zip(layers, estimates, strict=True))


def _checked(
    activations: Mapping[str, Numeric[ArrayLike, "n ..."]],
    outcomes: Numeric[ArrayLike, "n ..."],
    *,
    own: bool,
    by_feature: bool,
) -> tuple[dict[str, Shaped[Array, "n ..."]], Numeric[Array, "n ..."]]:
    """Layers and outcomes as arrays of one length; `own` if an estimator is given."""
    if not isinstance(activations, Mapping) or not activations:  # pyright: ignore[reportUnnecessaryIsInstance]
        _checks.fail(
            "activations",
            "a mapping {layer: array} with at least one layer",
            repr(activations)[:80],
        )
    if own:
        known = _checks.any_outcomes("outcomes", outcomes)
    else:
        known = _checks.outcomes("outcomes", outcomes, by_feature=by_feature)
    layers = {
        name: _checks.samples(f"activations[{name!r}]", a, by_feature=by_feature)
        for name, a in activations.items()
    }
    named = {f"activations[{name!r}]": a for name, a in layers.items()}
    _checks.same_length([("outcomes", known), *named.items()])
    return layers, known


def _refuse(**options: Any) -> None:
    """Refuses options of the default estimator beside another one."""
    for name, option in options.items():
        if option is not None:
            expected = "left out, and bound in the estimator: functools.partial"
            _checks.fail(name, f"{expected}(estimator, {name}=...)", repr(option))


@over_points
def _estimate_all(
    *layers_and_outcomes: Numeric[Array, "n ..."],
    discrete: bool,
    options: _joint.Options,
    local: bool,
    axis: AxisName,
) -> tuple[Float[Array, "*n"], ...]:
    *layers, outcomes = layers_and_outcomes
    layers = [_checks.flat(layer) for layer in layers]  # out of `jit` that is a copy
    estimator = partial(
        ksg_discrete if discrete else ksg,
        k=options.ks,
        metric=options.metric,
        scaling=options.scaling,
        local=local,
        block_size=options.block_size,
        axis_name=axis,
    )
    return tuple(map_layers(lambda h: estimator(h, outcomes), layers, pad=True))


@partial(jax.jit, static_argnames="estimator")
def _apply_all(
    layers: tuple[Shaped[Array, "n ..."], ...],
    outcomes: Numeric[Array, "n ..."],
    *,
    estimator: Estimator,
) -> tuple[Float[Array, ""], ...]:
    def scalar(layer: Float[Array, "n d"]) -> Float[Array, ""]:
        estimate = estimator(layer, outcomes)
        shape = getattr(estimate, "shape", None)
        if shape != ():
            received = type(estimate).__name__ if shape is None else f"shape {shape}"
            _checks.fail("estimator", "a function to a scalar array", received)
        return estimate

    return tuple(map_layers(scalar, [_checks.flat(layer) for layer in layers]))


def reference_mi(
    probe: Probe,
    kind: ReferenceKind = "label_entropy",
    *,
    k: int | Sequence[int] = 3,
    tiles: int | None = None,
    metric: Metric = "euclidean",
    scaling: Scaling = "variable",
    block_size: int | None = None,
) -> Float[Array, ""]:
    """The paper's reference I_XY, in nats: a soft upper bound of a layer's information.

    - "label_entropy": H(Y) of the classes. Exact and free, and the value of "tiled" for
      classes when there are more than k tiles. A convolution network can reach it.
    - "input": the estimate of I(X; Y) between the probe's inputs and outcomes, not
      clipped. In high dimension it is well below H(Y), and layers will exceed it. With
      continuous outcomes and ten inputs it was less than half of what a network
      learned, and `reference_policy` kept the rate down: use another policy there.
    - "tiled": the same after (X, Y) is repeated along the samples, as the paper does it
      for convolution networks. With continuous outcomes every point then coincides with
      its copies, and the estimate is near log n, whatever X is.

    Args:
      probe: As `sample_probe` returns it.
      kind: One of the three above.
      k: Number of neighbours, or several ("input", "tiled").
      tiles: Number of repetitions ("tiled"), by default one more than the largest k.
      metric: "euclidean", "manhattan" or "chebyshev" ("input", "tiled").
      scaling: As for `estimate_mi`; "feature" if the inputs are the columns of a table
        ("input", "tiled").
      block_size: Points handled at a time ("input", "tiled").

    Returns:
      A scalar, in nats.

    Raises:
      ValueError: For an unknown kind, `tiles` below 1, label entropy of outcomes that
        are not classes, or inputs that are not one array where they are needed.

    Cost: n log n for "label_entropy", n^2 d for "input", (n tiles)^2 d for "tiled".

    Example:
      >>> import jax, numpy as np
      >>> import optax_mi
      >>> x, y = np.random.default_rng(0).normal(size=(2000, 3)), np.arange(2000) % 10
      >>> probe = optax_mi.sample_probe(jax.random.key(0), x, y, size=500)
      >>> for kind in ("label_entropy", "input", "tiled"):
      ...     print(f"{kind}: {optax_mi.reference_mi(probe, kind):.1f}")
      label_entropy: 2.3
      input: 0.0
      tiled: 2.3
    """
    _checks.one_of("kind", kind, REFERENCE_KINDS)
    if kind == "label_entropy":
        if not _checks.is_discrete(probe.outcomes):
            _checks.fail(
                "probe.outcomes",
                "integers, which are classes, for a reference of kind 'label_entropy' "
                "(labels held as floats: astype(int); real outcomes: leave `reference` "
                "out, as the default policy and change_policy need none; for "
                "reference_policy -log(1 - r2) / 2 of the r2 within reach, as 'input' "
                "is too low: docs/guides/regression.md)",
                f"dtype {probe.outcomes.dtype}",
            )
        return label_entropy(probe.outcomes)

    copies = 1
    if kind == "tiled":
        most = max(_checks.several_neighbours(k, sys.maxsize))
        copies = most + 1 if tiles is None else tiles
        _checks.positive_integer("tiles", copies)
    if not isinstance(probe.inputs, jax.Array | np.ndarray):
        _checks.fail(
            "probe.inputs",
            f"one array for the reference of kind {kind!r}",
            f"a {type(probe.inputs).__name__}",
        )
    x, y = (_repeat(a, copies) for a in (probe.inputs, probe.outcomes))
    options: Any = {"k": k, "metric": metric, "scaling": scaling}
    options["block_size"] = block_size
    return estimate_mi({"input": x}, y, **options)["input"]


def _repeat(array: Any, copies: int) -> Shaped[Array, "copies_n ..."]:
    return jnp.concatenate([array] * copies)
