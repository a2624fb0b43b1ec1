"""Shared type aliases. This module imports nothing of the package."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import jax
from jax.typing import ArrayLike

Metric: TypeAlias = Literal["euclidean", "chebyshev", "manhattan"]

ReferenceKind: TypeAlias = Literal["label_entropy", "input", "tiled"]

# The mesh axis, or axes, over which points are spread; None where they are not.
AxisName: TypeAlias = str | tuple[str, ...] | None

# One measurement: a scalar for the whole network, or one scalar per layer.
Measurement: TypeAlias = ArrayLike | Mapping[str, ArrayLike]


class Estimator(Protocol):
    """Any traceable function from a layer and the outcomes to a scalar, in nats.

    The layer comes as floats [n, d], the outcomes as integers [n] where they are
    classes and as floats [n, d] otherwise. Options are bound beforehand, as in
    ``functools.partial(ksg, k=5)``; what takes other arguments or returns more than a
    scalar is wrapped in a function of one line.
    """

    def __call__(self, layer: jax.Array, outcomes: jax.Array, /) -> ArrayLike:
        """Returns the mutual information of a layer with the outcomes, in nats."""
        ...
