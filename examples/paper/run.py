"""Runs the paper's experiments; what was run already is skipped.

    python -m examples.paper.run figure3 --dataset mnist --data-dir ... --seeds 3
    python -m examples.paper.report

Each row and seed writes a JSON file of its own, so a set that was stopped goes on.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from examples import data
from examples.paper.baselines import BASELINES, TUNING, UNTUNED, with_validation
from examples.paper.cost import listing
from examples.paper.curves import CURVES
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES, HELD_OUT
from examples.paper.loop import Examples, draw_probe, train_row
from examples.paper.models import MODELS

NAMES = (*CURVES, *FIGURES, "baselines")
ON_CIFAR = ("figure4", "cifar_allcnn")
PACKAGES = ("optax_mi", "jax", "jaxlib", "flax", "optax", "numpy")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def environment() -> dict[str, Any]:
    """What a result depends on beside its configuration."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform} {device.device_kind}",
        "machine": f"{platform.machine()}, {_processor()}",
        "processors": _processors(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processors() -> int | None:
    try:
        return len(os.sched_getaffinity(0))  # what it may use, not what there is
    except AttributeError:  # not on every system
        return os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            x.split(":")[1].strip() for x in lines if x.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


def run_row(
    figure: str,
    row: Row,
    dataset: data.Dataset,
    args: argparse.Namespace,
    held_out: Examples | None = None,
) -> list[Path]:
    """Runs the seeds of one row that have no result yet, and returns all results."""
    from tqdm import tqdm

    config = {
        "figure": figure,
        "row": row.name,
        "tuned_rate": row.tuned_rate,
        "dataset": args.dataset,
        "train_size": len(dataset.train_x),
        "model": args.model,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "measuring": dataclasses.asdict(row.measuring),
        "probe_size": len(draw_probe(row.measuring, dataset, held_out).outcomes),
    }
    paths = {seed: result_path(args.out, config, seed) for seed in range(args.seeds)}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    # Together on an accelerator; one after the other on a CPU, each kept when done.
    on_cpu = jax.default_backend() == "cpu"
    for seeds in [[seed] for seed in missing] if on_cpu else [missing] * bool(missing):
        records = [[] for _ in seeds]
        title = f"{figure} {row.name} seed {', '.join(map(str, seeds))}"
        with tqdm(total=args.epochs, desc=title, unit="epoch") as bar:
            for epoch in train_row(
                row,
                dataset,
                model=args.model,
                seeds=seeds,
                epochs=args.epochs,
                batch_size=args.batch_size,
                held_out=held_out,
            ):
                for mine, record in zip(records, epoch, strict=True):
                    mine.append(record)
                bar.set_postfix(accuracy=f"{epoch[0]['accuracy']:.2%}")
                bar.update()
        for seed, mine in zip(seeds, records, strict=True):
            content = {"config": config | {"seed": seed}, "environment": environment()}
            write(paths[seed], content | {"epochs": mine})
    return list(paths.values())


def tuned(dataset: data.Dataset, args: argparse.Namespace) -> list[Row]:
    """Tunes each baseline's rate on held-out training examples, once.

    Returns:
      Each baseline at the rate of the highest accuracy, and what needs no tuning.
    """
    split = with_validation(dataset)
    once = argparse.Namespace(**vars(args) | {"seeds": 1})
    rows = []
    for name, baseline in BASELINES.items():
        if name not in args.rows:
            continue
        accuracy = {}
        for rate in baseline.grid:
            (path,) = run_row(TUNING, baseline.row(name, rate), split, once)
            result = json.loads(path.read_text(encoding="utf-8"))
            accuracy[rate] = result["epochs"][-1]["accuracy"]
        best = max(accuracy, key=lambda rate: accuracy[rate])
        rows.append(baseline.row(name, best))
    return [*rows, *UNTUNED]


def run_curve(figure: str, dataset: data.Dataset, args: argparse.Namespace) -> None:
    """Draws the seeds of one curve that has no result yet."""
    config = {
        "figure": figure,
        "row": figure,
        "dataset": args.dataset,
        "train_size": len(dataset.train_x),
        "model": args.model if figure == "range_test" else "none",
        "epochs": 0,
        "batch_size": args.batch_size,
    }
    for seed in range(args.seeds):
        path = result_path(args.out, config, seed)
        if path.exists():
            continue
        curve = CURVES[figure](
            dataset, seed, model=args.model, batch_size=args.batch_size
        )
        content = {"config": config | {"seed": seed}, "environment": environment()}
        write(path, content | curve)


def result_path(out: Path, config: Mapping[str, Any], seed: int) -> Path:
    """Where a row's result for a seed lies."""
    size = f"{config['dataset']}{config['train_size']}"
    rate = config.get("tuned_rate")
    row = config["row"] if rate is None else f"{config['row']}-{rate:g}"
    length = f"{config['epochs']}x{config['batch_size']}"
    name = f"{row}-{config['model']}-{size}-{length}-{seed}.json"
    return out / config["figure"] / name


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.paper.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", nargs="?", choices=NAMES)
    parser.add_argument("--list", action="store_true", help="what there is, its cost")
    parser.add_argument("--dataset", choices=data.NAMES, help="default: the paper's")
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder")
    parser.add_argument("--train-size", type=int, help="training examples, first ones")
    parser.add_argument("--model", choices=MODELS, help="default: small")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, help="default: 100; digits 16")
    parser.add_argument("--seeds", type=int, default=1, help="0 to one less than this")
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args(arguments)
    if args.figure is None and not args.list:
        parser.error("name a figure, or --list")
    for name in ("epochs", "seeds", "batch_size"):
        number = getattr(args, name)
        if number is not None and number < 1:
            option = name.replace("_", "-")
            parser.error(f"--{option} must be at least 1, got {number}")
    return args


def with_defaults(args: argparse.Namespace, figure: str) -> argparse.Namespace:
    """The options of one figure, those that were not given by default."""
    dataset = args.dataset or ("cifar10" if figure in ON_CIFAR else "mnist")
    model = args.model or ("allcnn" if figure == "cifar_allcnn" else "small")
    batch_size = args.batch_size or (16 if dataset == "digits" else 100)
    chosen = {"dataset": dataset, "model": model, "batch_size": batch_size}
    return argparse.Namespace(**vars(args) | chosen)


def main(arguments: list[str] | None = None) -> None:
    """Runs one figure."""
    args = parse(arguments)
    if args.list:
        for figure in [args.figure] if args.figure else NAMES:
            print("\n".join(listing(figure, with_defaults(args, figure))))
        return
    args = with_defaults(args, args.figure)
    rows = FIGURES.get(args.figure, [])
    known = [row.name for row in rows]
    if args.figure == "baselines":
        known = [*BASELINES, *(row.name for row in UNTUNED)]
    unknown = [name for name in args.rows or [] if name not in known]
    if unknown:
        sys.exit(f"{args.figure} has no rows {unknown}; it has {known}.")
    args.rows = args.rows or known
    try:
        dataset = data.load(args.dataset, args.data_dir, args.train_size)
    except data.DataError as error:
        sys.exit(str(error))
    if args.figure in CURVES:
        run_curve(args.figure, dataset, args)
    if args.figure == "baselines":
        rows = tuned(dataset, args)
    held_out = None
    if args.figure in HELD_OUT:
        dataset, held_out = data.hold_out(dataset)
    for row in rows:
        if row.name in args.rows:
            run_row(args.figure, row, dataset, args, held_out)


if __name__ == "__main__":
    main()
