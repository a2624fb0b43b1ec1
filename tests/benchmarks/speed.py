"""Times the estimators beside other packages: `make bench`.

Everything runs in one process, one after the other, on the same samples; a peer runs as
often as fits into a second, and not at all where its run before says that it would take
longer than `PATIENCE` seconds. Timings are printed, never asserted.
"""

import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import peers

import optax_mi

PATIENCE = 60


class Row(NamedTuple):
    """One row of the table. `d_y` 0 means ten classes."""

    n: int
    d_x: int
    d_y: int
    metric: str


ROWS = [
    Row(1000, 10, 0, "euclidean"),
    Row(1000, 128, 0, "euclidean"),
    Row(1000, 784, 0, "euclidean"),
    Row(1000, 3072, 0, "euclidean"),
    Row(5000, 10, 0, "euclidean"),
    Row(20_000, 10, 0, "euclidean"),
    Row(10_000, 50, 0, "euclidean"),
    Row(1000, 1, 1, "chebyshev"),
    Row(1000, 784, 10, "euclidean"),
    Row(1000, 784, 10, "chebyshev"),
    Row(10_000, 2, 2, "chebyshev"),
    Row(100_000, 1, 1, "chebyshev"),
    Row(100_000, 2, 2, "chebyshev"),
    Row(100_000, 1, 0, "euclidean"),
    Row(100_000, 2, 0, "euclidean"),
    Row(100_000, 5, 0, "euclidean"),
    Row(100_000, 10, 0, "euclidean"),
]


def seconds(run: Callable[[], Any]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def median(run: Callable[[], Any], at_least: int = 1) -> float:
    """Median of as many calls as fit into a second."""
    times = [seconds(run) for _ in range(at_least)]
    while sum(times) < 1 and len(times) < 30:
        times.append(seconds(run))
    return statistics.median(times)


def sample(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Gaussians that depend on each other weakly, or classes of shifted ones."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(row.n, row.d_x)).astype(np.float32)
    if row.d_y:
        y = rng.normal(size=(row.n, row.d_y)).astype(np.float32)
        y[:, 0] += x[:, 0]
        return x, y
    labels = rng.integers(0, 10, row.n)
    x[:, 0] += labels
    return x, labels


def ours(row: Row, x: Any, y: Any) -> Callable[[], jax.Array]:
    """Our estimate, as a call without arguments."""
    estimator = optax_mi.ksg if row.d_y else optax_mi.ksg_discrete
    return partial(
        estimator, jax.numpy.asarray(x), jax.numpy.asarray(y), metric=row.metric
    )


def table(largest: int) -> None:
    """Prints one line a row, and the slower packages in a table of their own."""
    continuous, labels = peers.load()
    rate: dict[tuple[str, bool], float] = {}
    slower = []
    print(
        "| n | features | outcomes | norm | ms | compiling, s | fastest other, ms |"
        " times faster |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        if row.n > largest:
            continue
        x, y = sample(row)
        run = ours(row, x, y)
        first = seconds(run)
        mine = median(run)
        found: dict[str, float] = {}
        omitted = []
        size = row.n**2 * (row.d_x + row.d_y)
        for name, peer in (continuous if row.d_y else labels).items():
            key = (name, row.d_x > 5)
            if rate.get(key, 0) * size > PATIENCE:
                omitted.append(name)
                continue
            try:
                found[name] = median(partial(peer, x.astype(float), y))
            except peers.Unsupported:
                continue
            rate[key] = found[name] / size
        ordered = sorted(found, key=found.__getitem__)
        best, rest = ordered[:1], ordered[1:]
        others = [f"{name} {1e3 * found[name]:.0f}" for name in rest]
        others += [f"{name} not run" for name in omitted]
        sample_of = f"| {row.n} | {row.d_x} | {row.d_y or '10 classes'} | {row.metric}"
        slower.append(f"{sample_of} | {', '.join(others)} |")
        own = f"{sample_of} | {1e3 * mine:.1f} | {max(first - mine, 0):.2f}"
        beside = [f"{1e3 * found[b]:.1f} {b} | {found[b] / mine:.1f}" for b in best]
        print(f"{own} | {''.join(beside) or 'none run |'} |", flush=True)
    print("\n| n | features | outcomes | norm | other packages, ms |")
    print("|---|---|---|---|---|")
    print("\n".join(slower))


def layers() -> None:
    """One compiled call for five layers, against the sum of each alone."""
    rng = np.random.default_rng(0)
    labels = jax.numpy.asarray(rng.integers(0, 10, 1000))
    widths = {"conv 16": 12544, "conv 32": 6272, "dense": 64, "logits": 10, "p": 10}
    activations = {
        name: jax.numpy.asarray(rng.normal(size=(1000, d)), "float32")
        for name, d in widths.items()
    }

    def measure(names: list[str]) -> float:
        chosen = {name: activations[name] for name in names}
        run = partial(optax_mi.estimate_mi, chosen, labels)
        seconds(run)
        return median(run, at_least=5)

    together = measure(list(widths))
    alone = sum(measure([name]) for name in widths)
    features = ", ".join(map(str, widths.values()))
    print(
        f"\nFive layers of a CNN ({features} features, 1000 examples): "
        f"{1e3 * together:.0f} ms in one call, {1e3 * alone:.0f} ms one by one, "
        f"ratio {together / alone:.2f}"
    )


def main() -> None:
    """Prints the table, up to a largest n given on the command line."""
    warnings.simplefilter("ignore")
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind}, {platform.machine()}, k = 3\n")
    table(largest)
    layers()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the whole process, peers included: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
