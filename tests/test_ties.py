"""The expectation over the order of ties, against the exact sum over that order."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import twins
from scipy.special import digamma, gammaln

import optax_mi
from optax_mi._estimators._neighbours.ties import mean_digamma

TIED = [1, 2, 3, 5, 10, 30, 100, 1000]  # T


def cases():
    """(j, Ts, T): the j-th of Ts points of the same class among T tied ones."""
    for t_any in TIED:
        for t_same in sorted({1, 2, 3, 5, 10, t_any // 2, t_any - 1, t_any}):
            for j in (1, 2, 3, 7):
                if j <= t_same <= t_any:
                    yield j, t_same, t_any


def exact(m0, j, t_same, t_any):
    """E psi(m0 + p), summed over the negative hypergeometric distribution of p."""

    def log_choose(n, k):
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    rank = np.arange(j, t_any - t_same + j + 1)
    log_weight = log_choose(rank - 1, j - 1) + log_choose(t_any - rank, t_same - j)
    weight = np.exp(log_weight - log_choose(t_any, t_same))
    assert weight.sum() == pytest.approx(1)
    return np.sum(weight * digamma(m0 + rank))


def error(m0, j, t_same, t_any):
    arguments = (jnp.float32(value) for value in (m0, j, t_same, t_any))
    return abs(float(mean_digamma(*arguments)) - exact(m0, j, t_same, t_any))


def test_it_is_exact_where_nothing_is_closer():
    assert max(error(0, *case) for case in cases()) < 2e-6  # float32 rounding


def test_the_rank_by_drawing_orders():
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        same = rng.permutation(12) < 5  # T = 12, Ts = 5
        draws.append(digamma(2 + np.flatnonzero(same)[2] + 1))  # j = 3, m0 = 2
    standard_error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - exact(2, 3, 5, 12)) < 4 * standard_error


def test_the_second_order_elsewhere_has_the_documented_error():
    m0 = [1, 2, 3, 5, 10, 30, 100]
    errors = {(m, case): error(m, *case) for m, case in itertools.product(m0, cases())}
    assert max(errors.values()) < 0.142
    common = [
        e for (_, (_, t_same, t_any)), e in errors.items() if t_any <= 10 * t_same
    ]
    assert max(common) < 0.041
    no_ties = [e for (_, case), e in errors.items() if case == (1, 1, 1)]
    assert max(no_ties) < 1e-6


@pytest.mark.parametrize(
    ("steps", "k", "excess"),
    [((0.5, 0.3), 3, 0.1), ((1.0, 0.0), 3, 0.0), ((0.3, 0.3), 1, 0.05)],
)
def test_joint_ties_agree_with_breaking_them_at_random(steps, k, excess):
    """Independent levels in X and in Y, far below the steps, then strict counts."""
    rng = np.random.default_rng(0)
    n, draws = 150, 200
    x, noise = rng.normal(size=(2, n))
    x, y = x, 0.8 * x + 0.6 * noise
    x, y = (np.round(v / s) * s if s else v for v, s in zip((x, y), steps, strict=True))
    d_x, d_y = (np.abs(v[:, None] - v) / np.std(v) for v in (x, y))
    estimates = []
    for _ in range(draws):
        own_x, own_y = (d + 1e-9 * rng.random((n, n)) for d in (d_x, d_y))
        joint = np.maximum(own_x, own_y)
        np.fill_diagonal(joint, np.inf)
        rho = np.sort(joint, axis=1)[:, k - 1]
        n_x, n_y = (
            np.sum((d < rho[:, None]) & ~np.eye(n, dtype=bool), axis=1)
            for d in (own_x, own_y)
        )
        terms = digamma(k) - digamma(n_x + 1) - digamma(n_y + 1)
        estimates.append(digamma(n) + np.mean(terms))
    standard_error = np.std(estimates) / np.sqrt(draws)
    mi = float(optax_mi.ksg(x, y, k=k))
    assert abs(mi - np.mean(estimates)) < 4 * standard_error + 0.01
    assert twins.ksg_strict(x, y, k) > np.mean(estimates) + excess
