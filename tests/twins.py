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


def by_feature(x, digits=16):
    """Several features, each divided by its standard deviation.

    The factor has so many binary digits, two thirds of a float's.
    """
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    deviation = x.std(axis=0)
    if x.shape[1] == 1:
        return x
    mantissa, exponent = np.frexp(1 / np.where(deviation > 0, deviation, 1.0))
    factor = np.ldexp(np.rint(mantissa * 2**digits), exponent - digits)
    return x * np.where(np.ptp(x, axis=0) > 0, factor, 1.0)


def mean_or_each(terms, local):
    """Each point's term, or the mean of those that are not NaN."""
    terms = np.array(terms, np.float64)
    used = ~np.isnan(terms)
    if local:
        return terms
    return np.mean(terms[used]) if used.any() else np.nan


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


def ksg_discrete(x, labels, k=3, metric="euclidean", scaling="feature", local=False):
    """Ross (2014), ties at the k-th neighbour averaged over their random order."""
    labels = np.asarray(labels)
    x = by_feature(x) if scaling == "feature" else x
    terms = []
    for class_size, k_i, a, t_same, m0, t_any in discrete_counts(
        x, labels, k, metric
    ).T.tolist():
        if k_i == 0:
            terms.append(np.nan)
            continue
        rank = mean_digamma(m0, k_i - a, t_same, t_any)
        terms.append(digamma(k_i) - digamma(class_size) - rank)
    return digamma(len(labels)) + mean_or_each(terms, local)


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


def mean_digamma(closer, j, subset, tied):
    """E psi of the rank of the j-th of a subset of tied points in random order."""
    mean = j * (tied + 1) / (subset + 1)
    variance = j * (tied - subset) * (tied + 1) * (subset - j + 1)
    variance /= (subset + 1) ** 2 * (subset + 2)
    if closer == 0:
        return digamma(j) + digamma(tied + 1) - digamma(subset + 1)
    return digamma(closer + mean) + polygamma(2, closer + mean) * variance / 2


def _spaces(variables, metric, scaling):
    """Distances within each variable, those of equal spread told apart."""
    if scaling == "feature":
        variables = [by_feature(v) for v in variables]
    own = [distances(v, metric) for v in variables]
    for i, v in enumerate(variables):
        one_distance = metric == "chebyshev" and v.shape[1:] not in ((), (1,))
        if scaling == "variable" or (scaling == "feature" and not one_distance):
            own[i] /= _spread(v, metric)
    apart = 2.0**-20 if metric != "euclidean" else 2.0**-21  # of squares: twice that
    return [d * (1 + i * apart) for i, d in enumerate(own)]


def joint_counts(variables, subspaces, k=3, metric="chebyshev", scaling="feature"):
    """For the whole space and each subspace, points closer than rho and at rho, [n]."""
    own = _spaces(variables, metric, scaling)
    joint = np.max(own, axis=0)
    spaces = [joint, *(np.max([own[v] for v in s], axis=0) for s in subspaces)]
    rows = []
    for i in range(len(joint)):
        others = np.arange(len(joint)) != i
        rho = np.sort(joint[i, others])[k - 1]
        row = [rho == 0]
        for space in spaces:
            row += [np.sum(space[i, others] < rho), np.sum(space[i, others] == rho)]
        rows.append(row)
    coincident, *counts = np.array(rows).T
    return coincident.astype(bool), list(zip(counts[::2], counts[1::2], strict=True))


def _terms(variables, subspaces, signs, k, metric, scaling="feature"):
    """psi(k) + sum of sign psi(n_S + 1), ties averaged over their random order."""
    coincident, (joint, *near) = joint_counts(variables, subspaces, k, metric, scaling)
    terms = []
    for i in range(len(coincident)):
        closer, tied = joint[0][i], joint[1][i]
        term = digamma(tied + 1) if coincident[i] else digamma(k)
        for sign, (m, t) in zip(signs, near, strict=True):
            term += sign * _rank(m[i], t[i], coincident[i], k - closer, tied)
        terms.append(term)
    return np.array(terms)


def _rank(closer, tied, coincident, j, joint_tied):
    """E psi(n_S + 1), where the neighbour is the j-th of those tied in all spaces."""
    if coincident:  # Gao et al. (2017), Mesner and Shalizi (2019)
        return digamma(tied + 1)
    if tied == 0:
        return digamma(closer + 1)
    return mean_digamma(closer, j, joint_tied, tied)


def rectangle_counts(x, y, k=3, metric="chebyshev", scaling="feature"):
    """For each variable, points closer than the edge, at it, and neighbours at it."""
    own = _spaces((x, y), metric, scaling)
    joint = np.maximum(*own)
    found = []
    for d in own:
        rows = []
        for i in range(len(joint)):
            others = np.arange(len(joint)) != i
            rho = np.sort(joint[i, others])[k - 1]
            neighbours = others & (joint[i] <= rho)
            edge = d[i, neighbours].max()
            rows.append(
                (
                    np.sum(d[i, others] < edge),
                    np.sum(d[i, others] == edge),
                    np.sum(d[i, neighbours] == edge),
                )
            )
        found.append(np.array(rows).T)
    return found


def ksg(x, y, k=3, algorithm=1, metric="chebyshev", scaling="feature", local=False):
    """Kraskov et al. (2004), equations (8) and (9), ties averaged."""
    terms = _terms((x, y), ((0,), (1,)), (-1, -1), k, metric, scaling)
    if algorithm == 2:
        _, ((_, tied), *_) = joint_counts((x, y), (), k, metric, scaling)
        edges = rectangle_counts(x, y, k, metric, scaling)
        for i in np.flatnonzero(tied == 1):
            terms[i] = digamma(k) - 1 / k
            for closer, at_edge, neighbours in edges:
                terms[i] -= mean_digamma(
                    closer[i], neighbours[i], neighbours[i], at_edge[i]
                )
    return digamma(len(terms)) + mean_or_each(terms, local)


def ksg_strict(x, y, k=3, metric="chebyshev"):
    """Kraskov et al. (2004), equation (8), with no care for ties but at rho = 0."""
    coincident, (joint, *near) = joint_counts((x, y), ((0,), (1,)), k, metric)
    terms = np.where(coincident, digamma(joint[1] + 1), digamma(k))
    for closer, tied in near:
        terms -= digamma(closer + np.where(coincident, tied, 0) + 1)
    return digamma(len(terms)) + np.mean(terms)


def label_entropy(labels):
    """Plug-in entropy."""
    _, counts = np.unique(labels, return_counts=True)
    p = counts / counts.sum()
    return -np.sum(p * np.log(p))


def ksg_mixed(x, y, k=3, metric="chebyshev", scaling="feature", local=False):
    """Gao et al. (2017), as their published code has it, ties averaged."""
    terms = _terms((x, y), ((0,), (1,)), (-1, -1), k, metric, scaling)
    return np.log(len(terms)) + mean_or_each(terms, local)


def ksg_conditional(x, y, z, k=3, metric="chebyshev", scaling="feature", local=False):
    """Frenzel and Pompe (2007), ties averaged."""
    subspaces = ((0, 2), (1, 2), (2,))
    terms = _terms((x, y, z), subspaces, (-1, -1, 1), k, metric, scaling)
    return mean_or_each(terms, local)


def conditional_of_classes(
    x, y, z, k=3, metric="chebyshev", scaling="feature", local=False
):
    """Mesner and Shalizi (2019): integers are infinitely far from each other."""
    variables = [np.asarray(v) for v in (x, y, z)]
    numbers = [v if v.dtype.kind == "f" else 0.0 * v for v in variables]
    own = _spaces(numbers, metric, scaling)
    for i, v in enumerate(variables):
        if v.dtype.kind in "iu":
            own[i] = np.where(v[:, None] == v, 0.0, np.inf)
    terms = []
    for i in range(len(own[0])):
        dx, dy, dz = (np.delete(d[i], i) for d in own)
        joint = np.sort(np.max([dx, dy, dz], axis=0))
        k_i = min(k, np.isfinite(joint).sum())
        if k_i == 0:
            terms.append(np.nan)
            continue
        rho = joint[k_i - 1]
        spaces = np.max([dx, dz], axis=0), np.max([dy, dz], axis=0), dz
        closer, tied = np.sum(joint < rho), np.sum(joint == rho)
        term = digamma(tied + 1) if rho == 0 else digamma(k_i)
        for sign, d in zip((-1, -1, 1), spaces, strict=True):
            at = np.sum(d < rho), np.sum(d == rho)
            term += sign * _rank(*at, rho == 0, k_i - closer, tied)
        terms.append(term)
    return mean_or_each(terms, local)


def knn_entropy(x, k=3, metric="euclidean"):
    """Kozachenko and Leonenko (1987)."""
    n, d = np.asarray(x).reshape(len(x), -1).shape
    radius = np.sort(distances(x, metric), axis=1)[:, k]
    log_volume = {
        "euclidean": d / 2 * np.log(np.pi) - gammaln(d / 2 + 1),
        "manhattan": d * np.log(2) - gammaln(d + 1),
        "chebyshev": d * np.log(2),
    }[metric]
    return digamma(n) - digamma(k) + log_volume + d * np.mean(np.log(radius))


def plug_in_mi(x, y, miller_madow=False):
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
