"""Counts of the estimators, each sample's in one compiled program.

The programs are shared by all samples of one shape.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from optax_mi._estimators import _joint
from optax_mi._types import Scaling

MARGINS = ((0,), (1,))


class DiscreteCounts(NamedTuple):
    """What each point sees, itself excluded."""

    class_size: jax.Array  # the point itself included
    k: jax.Array
    same_closer: jax.Array
    same_tied: jax.Array
    any_closer: jax.Array
    any_tied: jax.Array


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
    """The counts of several variables for each k.

    Whether few points are searched is patched elsewhere; here `search` tells the two
    programs apart.
    """
    del search
    return _joint.search(
        variables, subspaces, _joint.Options(ks, metric, scaling), edges=edges
    )


def joint_counts(x, y, *, k, metric, edges=False):
    """The counts of two variables and their margins."""
    (found,) = counts_of((x, y), MARGINS, ks=(k,), metric=metric, edges=edges)
    return found


def discrete_counts(x, labels, *, k, metric, search=False):
    """The counts of `ksg_discrete`, from those of a variable and classes."""
    (found,) = counts_of(
        (x, labels),
        MARGINS,
        ks=(k,),
        metric=metric,
        scaling="variable",
        search=search,
    )
    same, of_any, of_class = found.balls
    size = of_class.closer + of_class.tied + 1
    # Of a point alone in its class they mean nothing.
    counted = [jnp.where(found.k > 0, c, 0) for c in (*same, *of_any)]
    return DiscreteCounts(size, found.k, *counted)
