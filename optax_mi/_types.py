"""Shared types. This module imports nothing of the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from jaxtyping import AbstractDtype, Array, Bool, Float, Int, Integer, Real, ScalarLike

if TYPE_CHECKING:
    # To a static checker such an annotation is the array type that it begins with.
    from typing import Annotated as Discrete  # pyright: ignore[reportUnusedImport]
    from typing import Annotated as Numeric
else:

    class Discrete(AbstractDtype):
        """Integers or booleans: classes."""

        dtypes = [*Integer.dtypes, *Bool.dtypes]

    class Numeric(AbstractDtype):
        """Real numbers of any precision, integers or booleans."""

        dtypes = [*Real.dtypes, *Bool.dtypes]


Metric: TypeAlias = Literal["euclidean", "chebyshev", "manhattan"]

# What the features of a variable are divided by: see `ksg`.
Scaling: TypeAlias = Literal["feature", "variable", "none"]

ReferenceKind: TypeAlias = Literal["label_entropy", "input", "tiled"]

# The mesh axis, or axes, over which points are spread; None where they are not.
AxisName: TypeAlias = str | tuple[str, ...] | None

# A loop's index, a number where JAX leaves loops to Python (`jax.disable_jit`).
Index: TypeAlias = Int[Array, ""] | int

# One measurement: a scalar for the whole network, or one scalar per layer.
Measurement: TypeAlias = ScalarLike | Mapping[str, ScalarLike]


@runtime_checkable
class Estimator(Protocol):
    """Any traceable function from a layer and the outcomes to a scalar, in nats.

    The layer is an array of floats [n, d]. The outcomes are integers [n] if they are
    classes, and floats [n, d] otherwise. Options are bound beforehand, as in
    ``functools.partial(ksg, k=5)``. Wrap a function that takes other arguments, or
    returns more than a scalar, in a function of one line.
    """

    def __call__(
        self, layer: Float[Array, "n d"], outcomes: Numeric[Array, "n ..."], /
    ) -> Float[Array, ""]:
        """Returns the mutual information of a layer with the outcomes, in nats."""
        ...
