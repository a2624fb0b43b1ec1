"""Learning rates set by mutual information, as an Optax gradient transformation."""

import warnings as _warnings
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from optax_mi import estimators as estimators
from optax_mi._capture import capture_activations as capture_activations
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
from optax_mi._history import MIHistory as MIHistory
from optax_mi._interval import MIInterval as MIInterval
from optax_mi._interval import mi_with_error as mi_with_error
from optax_mi._layerwise import layerwise_mi_dynamic_lr as layerwise_mi_dynamic_lr
from optax_mi._measure import estimate_mi as estimate_mi
from optax_mi._measure import reference_mi as reference_mi
from optax_mi._policies import Policy as Policy
from optax_mi._policies import PolicyAnswer as PolicyAnswer
from optax_mi._policies import PolicyInput as PolicyInput
from optax_mi._policies import PolicyWithMemory as PolicyWithMemory
from optax_mi._policies import change_policy as change_policy
from optax_mi._policies import decay_policy as decay_policy
from optax_mi._policies import reference_policy as reference_policy
from optax_mi._positions import Positions as Positions
from optax_mi._positions import sample_positions as sample_positions
from optax_mi._probe import Probe as Probe
from optax_mi._probe import sample_probe as sample_probe
from optax_mi._range_test import LRRangeTest as LRRangeTest
from optax_mi._range_test import lr_range_test as lr_range_test
from optax_mi._record import learning_rates as learning_rates
from optax_mi._record import record_mi as record_mi
from optax_mi._record import track_value_only as track_value_only
from optax_mi._sample_size import SampleSizeCurve as SampleSizeCurve
from optax_mi._sample_size import sample_size_curve as sample_size_curve
from optax_mi._schedule import measurement_steps as measurement_steps
from optax_mi._state import MIDynamicLRState as MIDynamicLRState
from optax_mi._transform import mi_dynamic_lr as mi_dynamic_lr
from optax_mi._types import Estimator as Estimator
from optax_mi._warmup_stable_decay import (
    warmup_stable_decay_policy as warmup_stable_decay_policy,
)

__version__ = _version("optax_mi")

# Old names, kept for one minor version.
_RENAMED = {
    "conditional_ksg": "ksg_conditional",
    "discrete_mi": "plug_in_mi",
    "kl_entropy": "knn_entropy",
    "mutual_information_interval": "mi_with_error",
}

if _TYPE_CHECKING:
    conditional_ksg = ksg_conditional
    discrete_mi = plug_in_mi
    kl_entropy = knn_entropy
    mutual_information_interval = mi_with_error
else:

    def __getattr__(name: str) -> _Any:
        if name not in _RENAMED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        new = _RENAMED[name]
        _warnings.warn(
            f"optax_mi.{name} is now optax_mi.{new}; the old name goes in 0.2.",
            DeprecationWarning,
            stacklevel=2,
        )
        return globals()[new]
