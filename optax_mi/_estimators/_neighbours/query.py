"""What is counted about each point, and what is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from optax_mi._estimators._neighbours import classes, collectives
from optax_mi._estimators._neighbours.distances import Variable
from optax_mi._types import AxisName, Metric


class Space(NamedTuple):
    """Some variables; the distance in it is the largest of those within them.

    Points with different labels are farther apart than all others.
    """

    variables: tuple[int, ...]
    labels: Integer[Array, "n"] | None = None


class Query(NamedTuple):
    """What is to be counted."""

    variables: Sequence[Variable]
    spaces: Sequence[Space]  # the neighbours are those in the first, of all variables
    ks: Sequence[int]
    metric: Metric
    edges: bool = False  # whether those of the rectangle of the neighbours are wanted
    radii: bool = False  # whether the distances are, and not the counts alone

    @property
    def features(self) -> list[int]:
        """Their number, in each variable."""
        return [v.x.shape[1] for v in self.variables]

    @property
    def number(self) -> int:
        """That of the points."""
        return len(jax.tree.leaves(self.arrays)[0])

    @property
    def arrays(self) -> Any:
        """All that has an entry for each point."""
        return [v.x for v in self.variables], [s.labels for s in self.spaces]

    def of(self, arrays: Any) -> Query:
        """The query about other points."""
        points, labels = arrays
        return self._replace(
            variables=[Variable(*v) for v in zip(points, self.units, strict=True)],
            spaces=[
                s._replace(labels=own)
                for s, own in zip(self.spaces, labels, strict=True)
            ],
        )

    @property
    def units(self) -> list[Float[Array, ""] | float]:
        """The factor of each variable's distances."""
        return [v.unit for v in self.variables]


class Ball(NamedTuple):
    """Numbers of other points."""

    closer: Int[Array, "n"]
    tied: Int[Array, "n"]  # at exactly the radius


class Edge(NamedTuple):
    """What lies about the largest distance, in one variable, to one of k neighbours."""

    ball: Ball
    neighbours: Int[Array, "n"]  # those of the tied points that are neighbours


class Found(NamedTuple):
    """The k-th neighbour of each point, and what lies about its distance."""

    k: Int[Array, "n"]  # at most the number of other points with the label
    radius: Int[Array, "n"]  # codes
    balls: tuple[Ball, ...]  # in each space
    edges: tuple[Edge, ...] = ()  # of each variable, where they are asked for


class Rows(NamedTuple):
    """Points that neighbours are found of."""

    x: tuple[Float[Array, "rows _d"], ...]  # in each variable
    products: tuple[Any, ...]  # of variables measured by a product
    labels: tuple[Integer[Array, "rows"] | None, ...]  # in each space
    sizes: tuple[Int[Array, "rows"] | None, ...]  # points with that label
    ks: tuple[Int[Array, "rows"], ...]


def rows_of(query: Query, axis: AxisName) -> Rows:
    """All points as rows, with the number of neighbours that each can have."""
    points, labels = query.arrays
    sizes = tuple(None if own is None else classes.sizes(own, axis) for own in labels)
    # Beside itself; there are more than k where no labels divide the points.
    others = None if sizes[0] is None else sizes[0] - 1
    ks = tuple(
        collectives.varying(jnp.full(query.number, k), query.arrays)
        if others is None
        else jnp.minimum(k, others)
        for k in query.ks
    )
    return Rows(tuple(points), (None,) * len(points), tuple(labels), sizes, ks)


def ball(
    limit: Int[Array, "n"], closer: Int[Array, "n"], within: Int[Array, "n"]
) -> Ball:
    """Other points closer than a limit and at it, of counts that hold each itself."""
    itself = (limit > 0).astype(closer.dtype)
    return Ball(closer - itself, within - closer - 1 + itself)


def ball_of_class(size: Any, radius: Int[Array, "rows"]) -> Ball:
    """In a space without variables the points of a class coincide."""
    return ball(radius, jnp.where(radius > 0, size, 0), size)
