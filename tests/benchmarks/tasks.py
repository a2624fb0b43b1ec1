"""Samples of known mutual information, after the list of Czyz et al. (2023).

A task is a sampler (rng, n) -> (x, y) and its truth in nats, exact or by quadrature.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, ndtr

Pair = tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """Samples x [n, d_x] and y, [n, d_y] or [n] labels, that share `truth` nats."""

    name: str
    band: str
    sample: Callable[[np.random.Generator, int], Pair]
    truth: float


def gaussian(d: int, rho: float, pairs: int | None = None) -> tuple[Any, float]:
    """d + d dimensions of which the first `pairs` correlate pairwise."""
    pairs = d if pairs is None else pairs

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x, noise = rng.normal(size=(2, n, d))
        y = noise.copy()
        mixed = rho * x + np.sqrt(1 - rho**2) * noise
        y[:, :pairs] = mixed[:, :pairs]
        return x, y

    return sample, -pairs / 2 * np.log(1 - rho**2)


def student(d: int, rho: float, freedom: int) -> tuple[Any, float]:
    """Multivariate Student-t: its tails depend on each other even for rho = 0."""
    gauss, truth = gaussian(d, rho)

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x, y = gauss(rng, n)
        scale = np.sqrt(freedom / rng.chisquare(freedom, size=(n, 1)))
        return x * scale, y * scale

    def f(v: float) -> float:
        return gammaln(v / 2) - v / 2 * digamma(v / 2)

    return sample, truth + f(freedom) + f(freedom + 2 * d) - 2 * f(freedom + d)


def mapped(task: tuple[Any, float], *maps: Callable[[Any], Any]) -> tuple[Any, float]:
    """Applies invertible maps to x and y: the information stays."""
    sample, truth = task

    def changed(rng: np.random.Generator, n: int) -> Pair:
        x, y = sample(rng, n)
        return maps[0](x), maps[-1](y)

    return changed, truth


def half_cube(x: np.ndarray) -> np.ndarray:
    """Stretches the tails."""
    return np.sign(x) * np.abs(x) ** 1.5


def exponential(x: np.ndarray) -> np.ndarray:
    """Gaussian margins to exponential ones."""
    return -np.log(ndtr(-x))


def spiral(x: np.ndarray) -> np.ndarray:
    """Turns the first two dimensions by an angle in proportion to the radius."""
    angle = np.linalg.norm(x, axis=1)
    c, s = np.cos(angle), np.sin(angle)
    turned = x.copy()
    turned[:, 0] = c * x[:, 0] - s * x[:, 1]
    turned[:, 1] = s * x[:, 0] + c * x[:, 1]
    return turned


def additive_uniform(width: float) -> tuple[Any, float]:
    """x uniform on [0, 1], y = x + uniform noise of half width at most 1 / 2."""

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x = rng.uniform(size=(n, 1))
        return x, x + rng.uniform(-width, width, size=(n, 1))

    return sample, width - np.log(2 * width)


def channel(symbols: int, error: float) -> tuple[Any, float]:
    """A symbol, received as another one, chosen uniformly, with some probability."""

    def sample(rng: np.random.Generator, n: int) -> Pair:
        sent = rng.integers(0, symbols, n)
        wrong = rng.random(n) < error
        got = np.where(wrong, rng.integers(0, symbols, n), sent)
        return got[:, None].astype(float), sent

    hit, miss = 1 - error + error / symbols, error / symbols
    noise = -hit * np.log(hit) - (symbols - 1) * miss * np.log(miss) if error else 0.0
    return sample, np.log(symbols) - noise


def class_mixture(means: list[float], d: int, floor: float | None) -> tuple[Any, float]:
    """Unit Gaussians of these means, d - 1 features of noise; cut off below `floor`."""
    centres = np.array(means)

    def sample(rng: np.random.Generator, n: int) -> Pair:
        labels = rng.integers(0, len(means), n)
        x = rng.normal(size=(n, d))
        x[:, 0] += centres[labels]
        return (x if floor is None else np.maximum(x, floor)), labels

    grid = np.linspace(-12, 12 + max(means), 200_001)
    step = grid[1] - grid[0]
    density = np.exp(-((grid - centres[:, None]) ** 2) / 2) / np.sqrt(2 * np.pi)
    weight = density * step
    if floor is not None:  # the rectified mass is one more value
        above = grid > floor
        weight = np.hstack([weight[:, above], ndtr(floor - centres)[:, None]])
    mean = weight.mean(axis=0)
    log_ratio = np.log(np.maximum(weight, 1e-300) / np.maximum(mean, 1e-300))
    return sample, float(np.mean(np.sum(weight * log_ratio, axis=1)))


def quantised(levels: int, d: int) -> tuple[Any, float]:
    """Pixels of a class: d independent binomial levels whose chance is the class's."""
    chances = np.array([0.2, 0.5, 0.8])

    def sample(rng: np.random.Generator, n: int) -> Pair:
        labels = rng.integers(0, 3, n)
        x = rng.binomial(levels, chances[labels][:, None], size=(n, d))
        return x / levels, labels

    # The sum of the levels is sufficient for the class.
    total = np.arange(levels * d + 1)
    size = levels * d
    log_choose = gammaln(size + 1) - gammaln(total + 1) - gammaln(size - total + 1)
    log_p = log_choose + np.outer(np.log(chances), total)
    p = np.exp(log_p + np.outer(np.log(1 - chances), size - total))
    ratio = np.maximum(p, 1e-300) / np.maximum(p.mean(axis=0), 1e-300)
    return sample, float(np.mean(np.sum(p * np.log(ratio), axis=1)))


def saturated_softmax(error: float) -> tuple[Any, float]:
    """Float32 softmax of logits so large that most rows are one-hot codes."""
    send, truth = channel(4, error)

    def sample(rng: np.random.Generator, n: int) -> Pair:
        got, labels = send(rng, n)
        logits = 200.0 * (got == np.arange(4))
        p = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float32))
        return (p / p.sum(axis=1, keepdims=True)).astype(float), labels

    return sample, truth


def repeated_rows(copies: int) -> tuple[Any, float]:
    """Each of few distinct rows many times; a class is a set of rows."""

    def sample(rng: np.random.Generator, n: int) -> Pair:
        rows = rng.normal(size=(n // copies, 5))
        labels = np.arange(len(rows)) % 3
        return np.repeat(rows, copies, axis=0), np.repeat(labels, copies)

    return sample, np.log(3)


def rounded(step: float, rho: float, pairs: int = 1) -> tuple[Any, float]:
    """Pairs of correlated Gaussians, all rounded to multiples of a step."""
    gauss, _ = gaussian(pairs, rho)

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x, y = gauss(rng, n)
        return np.round(x / step), np.round(y / step)

    x = np.linspace(-8, 8, 4001)
    cell = np.round(x / step)
    edges = (np.unique(cell)[None] + np.array([[-0.5], [0.5]])) * step
    upper, lower = (
        ndtr((edge - rho * x[:, None]) / np.sqrt(1 - rho**2)) for edge in edges[::-1]
    )
    given_x = (upper - lower) * (x[1] - x[0])
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    table = np.stack([density[cell == c] @ given_x[cell == c] for c in np.unique(cell)])
    return sample, pairs * table_information(table)


def table_information(table: np.ndarray) -> float:
    """The information of a table of joint probabilities."""
    p = table / table.sum()
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    ratio = np.where(p > 0, p, 1) / np.where(p > 0, independent, 1)
    return float(np.sum(p * np.log(ratio)))


def counts_of_a_rate(inflation: float, exponential_rate: bool) -> tuple[Any, float]:
    """A Poisson count and its mean, exponential or Poisson; some counts become 0."""

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x = rng.exponential(size=n) if exponential_rate else rng.poisson(5, n)
        y = rng.poisson(x) * (rng.random(n) >= inflation)
        return x[:, None].astype(float), y[:, None].astype(float)

    if exponential_rate:
        x = np.linspace(0, 40, 40_001)[1:]
        weight = np.exp(-x)
    else:
        x = np.arange(60.0)
        weight = np.exp(x * np.log(5) - gammaln(x + 1))
    y = np.arange(150)
    log_p = y * np.log(np.maximum(x, 1e-300))[:, None] - x[:, None] - gammaln(y + 1)
    given_x = (1 - inflation) * np.exp(log_p)
    given_x[:, 0] += inflation
    return sample, table_information(weight[:, None] * given_x)


def half_rounded(step: float, rho: float) -> tuple[Any, float]:
    """Correlated Gaussians of which the one is rounded to multiples of a step."""
    gauss, _ = gaussian(1, rho)

    def sample(rng: np.random.Generator, n: int) -> Pair:
        x, y = gauss(rng, n)
        return np.round(x / step), y

    y = np.linspace(-8, 8, 4001)[:, None]
    cell = np.arange(-round(8 / step), round(8 / step) + 1) * step
    upper, lower = (
        ndtr((cell + side * step / 2 - rho * y) / np.sqrt(1 - rho**2))
        for side in (1, -1)
    )
    return sample, table_information(np.exp(-(y**2) / 2) * (upper - lower))


def numbers(task: tuple[Any, float]) -> tuple[Any, float]:
    """Symbols taken for numbers, in both variables."""
    sample, truth = task

    def changed(rng: np.random.Generator, n: int) -> Pair:
        x, y = sample(rng, n)
        return x, y[:, None].astype(float)

    return changed, truth


def all_tasks() -> list[Task]:
    """Every task, grouped in bands."""
    one, few, many, ties = "1 + 1", "2 to 5", "25 to 50", "labels, ties"
    wide, grids = "labels, no ties", "numbers, ties"
    bands: dict[str, dict[str, tuple[Any, float]]] = {
        one: {
            "independent": gaussian(1, 0.0),
            "Gaussian, rho 0.5": gaussian(1, 0.5),
            "Gaussian, rho 0.9": gaussian(1, 0.9),
            "Gaussian, rho 0.999": gaussian(1, 0.999),
            "uniform margins": mapped(gaussian(1, 0.75), ndtr),
            "exponential margins": mapped(gaussian(1, 0.75), exponential),
            "additive noise 0.1": additive_uniform(0.1),
            "additive noise 0.5": additive_uniform(0.5),
            "half-cube": mapped(gaussian(1, 0.75), half_cube),
            "asinh of Student-t, 1": mapped(student(1, 0.75, 1), np.arcsinh),
            "Student-t, 1": student(1, 0.0, 1),
            "Student-t, 3": student(1, 0.75, 3),
        },
        few: {
            "Gaussian 2 + 2, rho 0.8": gaussian(2, 0.8),
            "Gaussian 3 + 3, one pair 0.9": gaussian(3, 0.9, 1),
            "Gaussian 5 + 5, rho 0.5": gaussian(5, 0.5),
            "spiral 3 + 3": mapped(gaussian(3, 0.6), spiral),
            "half-cube 3 + 3": mapped(gaussian(3, 0.6), half_cube),
            "exponential margins 3 + 3": mapped(gaussian(3, 0.6), exponential),
            "Student-t 2 + 2, 2": student(2, 0.5, 2),
            "Student-t 3 + 3, 3": student(3, 0.5, 3),
            "Student-t 5 + 5, 2": student(5, 0.0, 2),
            "asinh of Student-t 3 + 3, 2": mapped(student(3, 0.5, 2), np.arcsinh),
        },
        many: {
            "Gaussian 25 + 25, two pairs 0.8": gaussian(25, 0.8, 2),
            "Gaussian 25 + 25, rho 0.3": gaussian(25, 0.3),
            "Gaussian 50 + 50, two pairs 0.8": gaussian(50, 0.8, 2),
            "Student-t 25 + 25, 5": student(25, 0.0, 5),
        },
        grids: {
            "rounded to 0.1, rho 0": rounded(0.1, 0.0),
            "rounded to 0.1, rho 0.5": rounded(0.1, 0.5),
            "rounded to 0.3, rho 0.9": rounded(0.3, 0.9),
            "rounded to 1, rho 0.9": rounded(1.0, 0.9),
            "rounded to 0.3, 2 + 2, rho 0.6": rounded(0.3, 0.6, 2),
            "rounded to 1, 2 + 2, rho 0": rounded(1.0, 0.0, 2),
            "Poisson of a Poisson": counts_of_a_rate(0.0, exponential_rate=False),
            "Poisson of an exponential": counts_of_a_rate(0.0, exponential_rate=True),
            "zero-inflated Poisson": counts_of_a_rate(0.15, exponential_rate=True),
            "one rounded to 0.3, rho 0.7": half_rounded(0.3, 0.7),
            "channel of 10 numbers, 0.3": numbers(channel(10, 0.3)),
        },
        ties: {
            "noiseless channel": channel(10, 0.0),
            "noisy channel, 0.1": channel(10, 0.1),
            "noisy channel, 0.5": channel(10, 0.5),
            "independent symbols": channel(5, 1.0),
            "saturated softmax": saturated_softmax(0.0),
            "saturated softmax, 0.2": saturated_softmax(0.2),
            "dead units, 1 feature": class_mixture([-1, 0, 1], 1, 0.0),
            "dead units, mostly": class_mixture([-2, -1, 1], 1, 0.5),
            "quantised pixels, 4 levels x 3": quantised(4, 3),
            "quantised pixels, 16 levels x 2": quantised(16, 2),
            "rows ten times each": repeated_rows(10),
        },
        wide: {
            "two classes": class_mixture([0, 2], 1, None),
            "five classes": class_mixture([0, 2, 4, 6, 8], 1, None),
            "five classes, 5 features": class_mixture([0, 2, 4, 6, 8], 5, None),
            "five classes, 20 features": class_mixture([0, 2, 4, 6, 8], 20, None),
            "five classes, 50 features": class_mixture([0, 2, 4, 6, 8], 50, None),
        },
    }
    return [
        Task(name, band, sample, truth)
        for band, tasks in bands.items()
        for name, (sample, truth) in tasks.items()
    ]
