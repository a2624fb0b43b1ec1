"""Measures what an estimate costs as it grows: `make scaling`.

Each measurement is a process of its own, so that its memory is its own and it can have
as many devices and cores as it is to have. Prints the tables of docs/scaling.md and
draws its picture; with `--accelerator`, prints one for whatever JAX finds. Timings are
printed, never asserted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BASE = {"n": 10_000, "d": 10, "k": 3, "layers": 1, "devices": 1, "cores": 0}
CURVES = {
    10: [1000, 3000, 10_000, 30_000, 100_000],
    784: [1000, 3000, 10_000],
    3072: [1000, 3000, 10_000],
}
LARGEST = {"n": 1_000_000, "d": 10}  # on an accelerator
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "scaling.png"

Result = dict[str, Any]


def measure(of: dict[str, int]) -> Result:
    """Times one estimate in this process; seconds and GiB."""
    if of["cores"]:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: of["cores"]])
    import jax
    import numpy as np

    import optax_mi

    if of["devices"] > 1:
        jax.config.update("jax_num_cpu_devices", of["devices"])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, of["n"])
    layers = {}
    for layer in range(of["layers"]):
        x = rng.standard_normal((of["n"], of["d"]), np.float32)
        x[:, 0] += labels
        layers[str(layer)] = x
    placed = jax.device_put((layers, labels))
    if of["devices"] > 1:
        mesh = jax.make_mesh(
            (of["devices"],), ("points",), axis_types=(jax.sharding.AxisType.Explicit,)
        )
        by_rows = jax.NamedSharding(mesh, jax.P("points"))
        placed = jax.device_put((layers, labels), by_rows)

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(optax_mi.estimate_mi(*placed, k=of["k"]))
        return time.perf_counter() - start

    first, times = run(), [run()]
    while sum(times) < 60 and (len(times) < 3 or (sum(times) < 2 and len(times) < 30)):
        times.append(run())
    seconds = statistics.median(times)
    device = jax.devices()[0]
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    used = (device.memory_stats() or {}).get("peak_bytes_in_use", used)
    return {
        **of,
        "seconds": seconds,
        "compiling": max(first - seconds, 0),
        "gib": used / 2**30,
        "device": f"{device.device_kind}, jax {jax.__version__}",
    }


def apart(change: dict[str, int], platform: str | None) -> Result:
    """Measures in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps(BASE | change)]
    environment = os.environ | ({"JAX_PLATFORMS": platform} if platform else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def table(
    varied: str, changes: list[dict[str, int]], platform: str | None = "cpu"
) -> list[Result]:
    """Prints one line for each change of the base, and its ratio to the first one."""
    print(f"\n| {varied} | seconds | to the first | compiling, s | memory, GiB |")
    print("|---|---|---|---|---|")
    rows = []
    for change in changes:
        rows.append(apart(change, platform))
        row, what = rows[-1], ", ".join(f"{name} {change[name]}" for name in change)
        print(
            f"| {what} | {row['seconds']:.4f} "
            f"| {row['seconds'] / rows[0]['seconds']:.2f} "
            f"| {row['compiling']:.1f} | {row['gib']:.2f} |",
            flush=True,
        )
    print(f"\n({rows[0]['device']})")
    return rows


def draw(curves: dict[int, list[Result]]) -> None:
    """Draws time and memory against the number of points."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = {"seconds": "seconds", "gib": "memory of the process, GiB"}
    for axis, (what, name) in zip(axes, names.items(), strict=True):
        for d, rows in curves.items():
            n = [row["n"] for row in rows]
            axis.plot(n, [row[what] for row in rows], "o-", label=f"{d} features")
        axis.set(xlabel="points", ylabel=name, xscale="log")
        axis.grid(alpha=0.3)
    n, first = CURVES[10], curves[10][0]["seconds"]
    square = [first * (m / n[0]) ** 2 for m in n]
    axes[0].plot(n, square, ":", color="grey", label="n², from the first")
    axes[0].set(yscale="log")
    axes[0].legend()
    axes[1].set(ylim=(0, None))
    figure.savefig(PICTURE, dpi=120)


def on_this_cpu() -> None:
    """Prints what docs/scaling.md has."""
    print(
        "Ten classes, k = 3; 10,000 points of 10 features where nothing else is said."
    )
    curves = {
        d: table("points", [{"n": n, "d": d} for n in points])
        for d, points in CURVES.items()
    }
    widths = (1, 2, 5, 10, 16, 17, 64, 256, 784, 3072)
    table("features", [{"n": 3000, "d": d} for d in widths])
    table("neighbours", [{"k": k} for k in (1, 3, 10)])
    numbers = (1, 2, 4, 8, 16, 50)
    table("layers", [{"n": 1000, "d": 128, "layers": m} for m in numbers])
    for d in (10, 128):
        shared = [{"cores": 1}, {"cores": 2}, {"cores": 2, "devices": 2}]
        changes = [{"n": 20_000, "d": d, **share} for share in shared]
        table("virtual devices of this CPU", changes)
    draw(curves)


def main() -> None:
    """Measures one, as a child, or all and prints them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--accelerator", action="store_true")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
    elif args.accelerator:
        sizes = [{"n": n, "d": d} for d, points in CURVES.items() for n in points]
        table("points, features", [*sizes, LARGEST], platform=None)
    else:
        on_this_cpu()


if __name__ == "__main__":
    main()
