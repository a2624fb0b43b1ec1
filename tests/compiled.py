"""Counts of the estimators, each sample's in one compiled program.

The programs are shared by all samples of one shape.
"""

from functools import partial

import jax

from optax_mi._estimators import _joint, _ksg_discrete
from optax_mi._types import Scaling

MARGINS = ((0,), (1,))


@partial(jax.jit, static_argnames=("k", "metric", "search"))
def discrete_counts(x, labels, *, k, metric, search=False):
    """The counts of `ksg_discrete`.

    Whether few points are searched is patched elsewhere; here `search` tells the two
    programs apart.
    """
    del search
    (counts,) = _ksg_discrete.neighbour_counts(
        x, labels, ks=(k,), metric=metric, block_size=None
    )
    return counts


@partial(
    jax.jit, static_argnames=("subspaces", "ks", "metric", "scaling", "edges", "search")
)
def counts_of(
    variables,
    subspaces,
    *,
    ks,
    metric,
    scaling: Scaling = "feature",
    edges=False,
    search=False,
):
    """The joint counts of several variables for each k, likewise."""
    del search
    return _joint.joint_counts(
        variables,
        subspaces,
        ks=ks,
        metric=metric,
        scaling=scaling,
        block_size=None,
        edges=edges,
    )


def joint_counts(x, y, *, k, metric, edges=False):
    """The joint counts of two variables and their margins."""
    (counts,) = counts_of((x, y), MARGINS, ks=(k,), metric=metric, edges=edges)
    return counts
