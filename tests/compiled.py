"""Counts of the estimators, each sample's in one compiled program."""

from functools import partial

import jax

from optax_mi._estimators import _joint, _ksg_discrete

_MARGINS = ((0,), (1,))

discrete_counts = jax.jit(
    partial(_ksg_discrete.neighbour_counts, block_size=None),
    static_argnames=("k", "metric"),
)


@partial(jax.jit, static_argnames=("k", "metric", "edges"))
def joint_counts(x, y, *, k, metric, edges=False):
    """The joint counts of two variables and their margins."""
    (counts,) = _joint.joint_counts(
        (x, y), _MARGINS, ks=(k,), metric=metric, block_size=None, edges=edges
    )
    return counts
