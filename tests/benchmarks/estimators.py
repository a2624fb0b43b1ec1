"""Times a measurement: `.venv/bin/python tests/benchmarks/estimators.py`.

Prints the median of several runs, and the seconds that the first call takes (it
compiles). Timings are printed, never asserted.
"""

import statistics
import time
from functools import partial

import jax
import numpy as np

import optax_mi
from optax_mi._estimators._neighbours import METRICS

SIZES = [(1000, 10), (1000, 128), (1000, 784), (1000, 3072), (5000, 10)]


def seconds(measure):
    """Wall seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(measure())
    return time.perf_counter() - start


def main(repeats=15):
    """Prints one row a size."""
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, k = 3, 10 classes\n")
    print("| n | features | metric | milliseconds | first call, seconds |")
    print("|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for n, d in SIZES:
        x = jax.numpy.asarray(rng.normal(size=(n, d)), np.float32)
        labels = jax.numpy.asarray(rng.integers(0, 10, n))
        for metric in METRICS:
            measure = partial(optax_mi.ksg_discrete, x, labels, metric=metric)
            first = seconds(measure)
            median = statistics.median(seconds(measure) for _ in range(repeats))
            print(f"| {n} | {d} | {metric} | {1e3 * median:.1f} | {first:.2f} |")


if __name__ == "__main__":
    main()
