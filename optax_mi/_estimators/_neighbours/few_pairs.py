"""Counts without looking at all pairs: of classes, of one feature, of a few."""

from __future__ import annotations

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from optax_mi._estimators._neighbours import boxes, sorting
from optax_mi._estimators._neighbours.query import (
    Ball,
    Found,
    Query,
    Rows,
    Space,
    ball,
    ball_of_class,
)


def by_classes(query: Query, rows: Rows) -> list[Found]:
    """Where all variables are classes: neighbours coincide."""
    nowhere = jnp.zeros(len(rows.ks[0]), jnp.int32)
    balls = [ball_of_class(size, nowhere) for size in rows.sizes]
    return [Found(k, nowhere, tuple(balls)) for k in rows.ks]


def by_sorting(query: Query, rows: Rows) -> list[Found]:
    """Of one feature, in n log n operations."""
    (variable,) = query.variables
    values = variable.x[:, 0]
    feature = sorting.sorted_feature(values, variable.unit, query.spaces[0].labels)

    def found(k: Int[Array, "n"], max_k: int) -> Found:
        radius = sorting.kth_distances(feature, k, max_k, query.metric)
        return Found(k, radius, _balls_within(query, rows, radius))

    return [found(*ks) for ks in zip(rows.ks, query.ks, strict=True)]


def by_boxes(query: Query, rows: Rows) -> tuple[list[Found], Bool[Array, "n"]]:
    """Of few features, looking at the points of near boxes alone."""
    labels = query.spaces[0].labels
    nearest = boxes.nearest(query.variables, rows.ks, query.ks, query.metric, labels)
    found = [
        Found(
            k,
            near.radius,
            (
                Ball(near.closer, near.tied),
                *_balls_within(query, rows, near.radius, start=1),
            ),
        )
        for k, near in zip(rows.ks, nearest, strict=True)
    ]
    return found, ~reduce(jnp.logical_and, [near.certain for near in nearest])


def _balls_within(
    query: Query, rows: Rows, radius: Int[Array, "n"], start: int = 0
) -> tuple[Ball, ...]:
    """In each space from `start` on, the points closer than the radius and at it."""

    def of_space(space: Space, size: Any) -> Ball:
        members = [query.variables[v] for v in space.variables]
        if not members:
            return ball_of_class(size, radius)
        features = sorting.sorted_features_of(members, query.metric, space.labels)
        if features is not None:
            counts = sorting.counts(features, radius, query.metric)
        else:
            counts = boxes.counts(members, radius, query.metric, space.labels)
        return ball(radius, *counts)

    pairs = zip(query.spaces[start:], rows.sizes[start:], strict=True)
    return tuple(of_space(space, size) for space, size in pairs)
