"""All estimators of mutual information and entropy, in nats."""

from optax_mi._estimators import Bounds as Bounds
from optax_mi._estimators import NeuralEstimate as NeuralEstimate
from optax_mi._estimators import info_nce as info_nce
from optax_mi._estimators import knn_entropy as knn_entropy
from optax_mi._estimators import ksg as ksg
from optax_mi._estimators import ksg_conditional as ksg_conditional
from optax_mi._estimators import ksg_discrete as ksg_discrete
from optax_mi._estimators import ksg_mixed as ksg_mixed
from optax_mi._estimators import label_entropy as label_entropy
from optax_mi._estimators import mine as mine
from optax_mi._estimators import pairwise_distance_bounds as pairwise_distance_bounds
from optax_mi._estimators import plug_in_mi as plug_in_mi
from optax_mi._estimators import usable_points as usable_points
from optax_mi._types import Estimator as Estimator
