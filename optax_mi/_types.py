"""Shared type aliases. This module imports nothing of the package."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from jax.typing import ArrayLike

Metric: TypeAlias = Literal["euclidean", "chebyshev", "manhattan"]

ReferenceKind: TypeAlias = Literal["label_entropy", "input", "tiled"]

# One measurement: a scalar for the whole network, or one scalar per layer.
Measurement: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
