"""Which strategy counts, and what all of them share."""

import jax.numpy as jnp
import numpy as np
import pytest

from optax_mi._estimators._neighbours.query import ball


@pytest.mark.parametrize("limit", [0, 1, 2, 9])
def test_others_leave_out_the_point_itself(limit):
    distances = np.array([0, 0, 0, 0, 2, 2, 5, 9])  # the first is from the point itself
    closer, within = (
        jnp.array([c.sum()]) for c in (distances < limit, distances <= limit)
    )
    counted = ball(jnp.full(1, limit, jnp.uint32), closer, within)
    others = distances[1:]
    assert [int(c[0]) for c in counted] == [sum(others < limit), sum(others == limit)]
