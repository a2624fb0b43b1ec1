"""Slow, readable float64 versions of the estimators: one point, one line of paper."""

import numpy as np
from scipy.special import digamma, gammaln, polygamma


def distances(x, metric):
    """All pairwise distances, [n, n]."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    if metric == "euclidean":
        return np.stack([np.sqrt(((x - point) ** 2).sum(axis=1)) for point in x])
    if metric == "manhattan":
        return np.stack([np.abs(x - point).sum(axis=1) for point in x])
    return np.stack([np.abs(x - point).max(axis=1) for point in x])


def discrete_counts(x, labels, k=3, metric="euclidean"):
    """class size, k_i, a, T_s, m0, T of DESIGN's formula, each [n]."""
    distance = distances(x, metric)
    rows = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        same = others & (labels == labels[i])
        class_size = same.sum() + 1
        k_i = min(k, class_size - 1)
        if k_i == 0:
            rows.append((class_size, 0, 0, 0, 0, 0))
            continue
        r = np.sort(distance[i, same])[k_i - 1]
        rows.append(
            (
                class_size,
                k_i,
                np.sum(distance[i, same] < r),
                np.sum(distance[i, same] == r),
                np.sum(distance[i, others] < r),
                np.sum(distance[i, others] == r),
            )
        )
    return np.array(rows).T


def ksg_discrete(x, labels, k=3, metric="euclidean"):
    """Ross (2014), ties at the k-th neighbour averaged over their random order."""
    labels = np.asarray(labels)
    terms = []
    for class_size, k_i, a, t_same, m0, t_any in discrete_counts(
        x, labels, k, metric
    ).T.tolist():
        if k_i == 0:
            continue
        j = k_i - a
        mean = j * (t_any + 1) / (t_same + 1)
        variance = (j * (t_any - t_same) * (t_any + 1) * (t_same - j + 1)) / (
            (t_same + 1) ** 2 * (t_same + 2)
        )
        if m0 == 0:
            rank = digamma(j) + digamma(t_any + 1) - digamma(t_same + 1)
        else:
            mu = m0 + mean
            rank = digamma(mu) + polygamma(2, mu) * variance / 2
        terms.append(digamma(k_i) - digamma(class_size) - rank)
    return digamma(len(labels)) + np.mean(terms) if terms else np.nan


def ross(x, labels, k=3, metric="euclidean"):
    """Ross (2014) with the usual strict counts and no care for ties."""
    labels, distance = np.asarray(labels), distances(x, metric)
    terms = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        same = others & (labels == labels[i])
        r = np.sort(distance[i, same])[k - 1]
        m = np.sum(distance[i, others] < r) + 1
        terms.append(digamma(k) - digamma(same.sum() + 1) - digamma(m))
    return digamma(len(labels)) + np.mean(terms)


def _spread(x, metric):
    """Root mean square distance from the mean."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    from_mean = distances(np.vstack([x.mean(axis=0), x]), metric)[0, 1:]
    return np.sqrt(np.mean(from_mean**2)) or 1.0


def ksg_counts(x, y, k=3, algorithm=1, metric="chebyshev", standardise=True):
    """Neighbours in both, in x and in y, and whether rho = 0, each [n]."""
    dx, dy = distances(x, metric), distances(y, metric)
    if standardise:
        dx, dy = dx / _spread(x, metric), dy / _spread(y, metric)
    joint = np.maximum(dx, dy)
    rows = []
    for i in range(len(dx)):
        others = np.arange(len(dx)) != i
        rho = np.sort(joint[i, others])[k - 1]
        neighbours = others & (joint[i] <= rho)
        if rho == 0:
            near_x, near_y = dx[i] <= 0, dy[i] <= 0
        elif algorithm == 1:
            near_x, near_y = dx[i] < rho, dy[i] < rho
        else:
            near_x = dx[i] <= dx[i, neighbours].max()
            near_y = dy[i] <= dy[i, neighbours].max()
        n_joint = k if algorithm == 1 and rho > 0 else neighbours.sum()
        n_x, n_y = (others & near_x).sum(), (others & near_y).sum()
        rows.append((n_joint, n_x, n_y, rho == 0))
    return np.array(rows).T


def ksg(x, y, k=3, algorithm=1, metric="chebyshev", standardise=True):
    """Kraskov et al. (2004), equations (8) and (9); Gao et al. (2017) where rho = 0."""
    terms = []
    counts = ksg_counts(x, y, k, algorithm, metric, standardise)
    for n_joint, n_x, n_y, coincident in counts.T.tolist():
        if coincident:
            term = digamma(n_joint + 1) - digamma(n_x + 1) - digamma(n_y + 1)
        elif algorithm == 1:
            term = digamma(k) - digamma(n_x + 1) - digamma(n_y + 1)
        else:
            term = digamma(n_joint) - 1 / n_joint - digamma(n_x) - digamma(n_y)
        terms.append(term)
    return digamma(len(terms)) + np.mean(terms)


def label_entropy(labels):
    """Plug-in entropy."""
    _, counts = np.unique(labels, return_counts=True)
    p = counts / counts.sum()
    return -np.sum(p * np.log(p))


def ksg_mixed(x, y, k=3, metric="chebyshev"):
    """Gao et al. (2017), as their published code has it."""
    dx = distances(x, metric) / _spread(x, metric)
    dy = distances(y, metric) / _spread(y, metric)
    terms = []
    for own_x, own_y in zip(dx, dy, strict=True):
        joint = np.maximum(own_x, own_y)
        rho = np.sort(joint)[k]  # the point itself is first
        if rho == 0:
            n_joint, n_x, n_y = (np.sum(d == 0) for d in (joint, own_x, own_y))
        else:
            n_joint, n_x, n_y = k, np.sum(own_x < rho), np.sum(own_y < rho)
        terms.append(digamma(n_joint) - digamma(n_x) - digamma(n_y))
    return np.log(len(terms)) + np.mean(terms)


def conditional_ksg(x, y, z, k=3, metric="chebyshev"):
    """Frenzel and Pompe (2007); Mesner and Shalizi (2019) where rho = 0."""
    dx, dy, dz = (distances(v, metric) / _spread(v, metric) for v in (x, y, z))
    terms = []
    for own_x, own_y, own_z in zip(dx, dy, dz, strict=True):
        joint = np.maximum(np.maximum(own_x, own_y), own_z)
        xz, yz = np.maximum(own_x, own_z), np.maximum(own_y, own_z)
        rho = np.sort(joint)[k]
        if rho == 0:
            n_joint = np.sum(joint == 0)
            n_xz, n_yz, n_z = (np.sum(d == 0) for d in (xz, yz, own_z))
        else:
            n_joint = k
            n_xz, n_yz, n_z = (np.sum(d < rho) for d in (xz, yz, own_z))
        terms.append(digamma(n_joint) - digamma(n_xz) - digamma(n_yz) + digamma(n_z))
    return np.mean(terms)


def kl_entropy(x, k=3, metric="euclidean"):
    """Kozachenko and Leonenko (1987)."""
    n, d = np.asarray(x).reshape(len(x), -1).shape
    radius = np.sort(distances(x, metric), axis=1)[:, k]
    log_volume = {
        "euclidean": d / 2 * np.log(np.pi) - gammaln(d / 2 + 1),
        "manhattan": d * np.log(2) - gammaln(d + 1),
        "chebyshev": d * np.log(2),
    }[metric]
    return digamma(n) - digamma(k) + log_volume + d * np.mean(np.log(radius))


def discrete_mi(x, y, miller_madow=False):
    """The information of the table of frequencies."""
    _, x = np.unique(x, return_inverse=True)
    _, y = np.unique(y, return_inverse=True)
    table = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(table, (x, y), 1)
    p = table / table.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    mi = np.sum(p[seen] * np.log(p[seen] / independent[seen]))
    bias = (len(table) + len(table.T) - np.sum(seen) - 1) / (2 * table.sum())
    return mi + bias if miller_madow else mi


def pairwise_distance_bounds(x, labels, noise):
    """Kolchinsky and Tracey (2017), equation (10), for the mixture and each class."""
    squared = (distances(x, "euclidean") / noise) ** 2
    same = np.asarray(labels)[:, None] == np.asarray(labels)

    def entropy(scale, among):
        weights = np.where(among, np.exp(-squared / scale), 0)
        return -np.mean(np.log(weights.sum(axis=1) / among.sum(axis=1)))

    everyone = np.ones_like(same)
    kl, bhattacharyya = 2, 8
    lower = entropy(bhattacharyya, everyone) - entropy(kl, same)
    upper = entropy(kl, everyone) - entropy(bhattacharyya, same)
    return lower, upper
