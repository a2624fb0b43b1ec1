"""Estimators of mutual information and entropy, in nats."""

from optax_mi._estimators._bounds import Bounds as Bounds
from optax_mi._estimators._bounds import (
    pairwise_distance_bounds as pairwise_distance_bounds,
)
from optax_mi._estimators._conditional import ksg_conditional as ksg_conditional
from optax_mi._estimators._discrete import plug_in_mi as plug_in_mi
from optax_mi._estimators._entropy import knn_entropy as knn_entropy
from optax_mi._estimators._entropy import label_entropy as label_entropy
from optax_mi._estimators._ksg import ksg as ksg
from optax_mi._estimators._ksg_discrete import ksg_discrete as ksg_discrete
from optax_mi._estimators._ksg_discrete import usable_points as usable_points
from optax_mi._estimators._mixed import ksg_mixed as ksg_mixed
from optax_mi._estimators._neural import NeuralEstimate as NeuralEstimate
from optax_mi._estimators._neural import info_nce as info_nce
from optax_mi._estimators._neural import mine as mine
