"""Measures what an estimate costs as it grows: `make scaling`.

Each measurement is a process of its own, so that its memory is its own and it can have
as many devices and cores as it is to have. Prints the tables of docs/scaling.md and
draws its picture. Timings are printed, never asserted.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BASE = {"n": 10_000, "d": 10, "k": 3, "layers": 1, "devices": 1, "cores": 2}
CURVES = {10: [1000, 3000, 10_000, 30_000, 100_000], 784: [1000, 3000, 10_000]}
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "scaling.png"


def measure(of: dict[str, int]) -> dict[str, float]:
    """Times one estimate in this process; seconds and GiB."""
    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[: of["cores"]])
    import jax
    import numpy as np

    import optax_mi

    jax.config.update("jax_num_cpu_devices", of["devices"])
    mesh = jax.make_mesh(
        (of["devices"],), ("points",), axis_types=(jax.sharding.AxisType.Explicit,)
    )
    by_rows = jax.NamedSharding(mesh, jax.P("points"))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, of["n"])
    layers = {}
    for layer in range(of["layers"]):
        x = rng.normal(size=(of["n"], of["d"])).astype(np.float32)
        x[:, 0] += labels
        layers[str(layer)] = jax.device_put(x, by_rows)
        del x
    outcomes = jax.device_put(labels, by_rows)

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(optax_mi.estimate_mi(layers, outcomes, k=of["k"]))
        return time.perf_counter() - start

    first, times = run(), [run()]
    while len(times) < 3 or (sum(times) < 2 and len(times) < 30):
        times.append(run())
        if sum(times) > 60:
            break
    seconds = statistics.median(times)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        **of,
        "seconds": seconds,
        "compiling": max(first - seconds, 0),
        "gib": used.ru_maxrss / 2**20,
    }


def apart(**changes: int) -> dict[str, float]:
    """Measures in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(BASE | changes)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout
    return json.loads(output)


def table(varied: str, changes: list[dict[str, int]]) -> list[dict[str, float]]:
    """Prints one line for each change of the base."""
    print(f"\n| {varied} | seconds | compiling, s | memory, GiB |\n|---|---|---|---|")
    rows = []
    for change in changes:
        row = apart(**change)
        what = ", ".join(f"{name} {value}" for name, value in change.items())
        print(
            f"| {what} | {row['seconds']:.4f} | {row['compiling']:.1f} "
            f"| {row['gib']:.2f} |",
            flush=True,
        )
        rows.append(row)
    return rows


def draw(curves: dict[int, list[dict[str, float]]]) -> None:
    """Draws time and memory against the number of points."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for d, rows in curves.items():
        n = [row["n"] for row in rows]
        for axis, what in zip(axes, ("seconds", "gib"), strict=True):
            values = [row[what] for row in rows]
            axis.loglog(n, values, "o-", label=f"{d} features")
    for axis, name in zip(axes, ("seconds", "memory of the process, GiB"), strict=True):
        axis.set(xlabel="points", ylabel=name)
        axis.grid(alpha=0.3, which="both")
    square = [1e-3 * (n / 1000) ** 2 for n in CURVES[10]]
    axes[0].loglog(CURVES[10], square, ":", color="grey", label="n²")
    axes[0].legend()
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    """Measures one, as a child, or all and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, ten classes, k = 3")
    print("10,000 points of 10 features where nothing else is said")
    curves: dict[int, Any] = {
        d: table("points", [{"n": n, "d": d} for n in points])
        for d, points in CURVES.items()
    }
    widths = [1, 2, 5, 10, 16, 17, 64, 256, 784, 3072]
    table("features", [{"n": 3000, "d": d} for d in widths])
    table("neighbours", [{"k": k} for k in (1, 3, 10)])
    table("layers", [{"n": 1000, "d": 128, "layers": m} for m in (1, 2, 4, 8, 16)])
    for d in (10, 128):
        changes = [
            {"n": 20_000, "d": d, "devices": number, "cores": cores}
            for number, cores in ((1, 1), (1, 2), (2, 2))
        ]
        table("virtual devices", changes)
    draw(curves)


if __name__ == "__main__":
    main()
