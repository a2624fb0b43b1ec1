"""Other packages behind one signature: (x [n, d], y) to nats, k = 3.

What is not installed is left out (`pip install --group bench`). The two on scipy's
trees are the textbook algorithms, on two workers.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import digamma

K = 3


class Unsupported(Exception):
    """A sample that a package cannot take."""


Peer = Callable[[np.ndarray, np.ndarray], float]


def ckdtree_ksg(x: np.ndarray, y: np.ndarray) -> float:
    """Kraskov et al. (2004), algorithm 1, on k-d trees."""
    x_tree, y_tree = cKDTree(x), cKDTree(y)
    both = np.hstack([x, y])
    radius = cKDTree(both).query(both, [K + 1], p=np.inf, workers=2)[0][:, 0]
    radius = np.nextafter(radius, 0)
    n_x, n_y = (
        tree.query_ball_point(v, radius, p=np.inf, workers=2, return_length=True)
        for tree, v in ((x_tree, x), (y_tree, y))
    )
    return digamma(K) + digamma(len(x)) - np.mean(digamma(n_x) + digamma(n_y))


def ckdtree_ross(x: np.ndarray, labels: np.ndarray) -> float:
    """Ross (2014), on k-d trees, with strict counts."""
    radius, size = np.zeros(len(x)), np.zeros(len(x))
    for label in np.unique(labels):
        own = labels == label
        same = x[own]
        size[own] = len(same)
        radius[own] = cKDTree(same).query(same, [K + 1], workers=2)[0][:, 0]
    closer = np.nextafter(radius, 0)
    m = cKDTree(x).query_ball_point(x, closer, workers=2, return_length=True)
    m = np.where(radius > 0, m, 1)  # nothing but the point itself
    return digamma(len(x)) + digamma(K) - np.mean(digamma(size) + digamma(m))


def load() -> tuple[dict[str, Peer], dict[str, Peer]]:
    """The peers for continuous outcomes and those for labels."""
    continuous: dict[str, Peer] = {"cKDTree": ckdtree_ksg}
    labels: dict[str, Peer] = {"cKDTree": ckdtree_ross}

    npeet = _find("npeet_plus")
    if npeet:
        continuous["NPEET"] = lambda x, y: npeet.mi(x, y, k=K, base=np.e)
        labels["NPEET"] = lambda x, y: npeet.micd(
            x, y[:, None], k=K, base=np.e, warning=False
        )
    ennemi = _find("ennemi._entropy_estimators")
    if ennemi:
        continuous["ennemi"] = lambda x, y: ennemi._estimate_single_mi(x, y, K)
        labels["ennemi"] = lambda x, y: ennemi._estimate_semidiscrete_mi(x, y, K)
    infomeasure = _find("infomeasure")
    if infomeasure:
        continuous["infomeasure"] = lambda x, y: infomeasure.mutual_information(
            x, y, approach="ksg", k=K
        )
    entropy_estimators = _find("entropy_estimators.continuous")
    if entropy_estimators:
        continuous["entropy_estimators"] = lambda x, y: entropy_estimators.get_mi(
            x, y, k=K, workers=2
        )
    sklearn = _find("sklearn.feature_selection")
    if sklearn:
        options: dict[str, Any] = dict(n_neighbors=K, discrete_features=False)

        def regression(x: np.ndarray, y: np.ndarray) -> float:
            _one_feature(x, y)
            return sklearn.mutual_info_regression(x, y[:, 0], **options)[0]

        def classification(x: np.ndarray, y: np.ndarray) -> float:
            _one_feature(x)
            return sklearn.mutual_info_classif(x, y, **options)[0]

        continuous["scikit-learn"] = regression
        labels["scikit-learn"] = classification
    return continuous, labels


def _find(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        return None


def _one_feature(*arrays: np.ndarray) -> None:
    if any(a.shape[1] > 1 for a in arrays):
        raise Unsupported("one feature at a time")
