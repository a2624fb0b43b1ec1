"""Estimators of mutual information and entropy, in nats."""

from optax_mi._estimators._entropy import label_entropy as label_entropy
from optax_mi._estimators._ksg import ksg as ksg
from optax_mi._estimators._ksg_discrete import ksg_discrete as ksg_discrete
