"""Runs the paper's experiments; what was run already is skipped.

    python -m examples.paper.run figure3 --dataset mnist --data-dir ... --seeds 3
    python -m examples.paper.report

Each row and seed adds a line to the file of its figure, so a set that was stopped goes
on.
"""

import argparse
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import optax_mi
from examples import data
from examples.paper.baselines import (
    BASELINES,
    TUNING,
    UNTUNED,
    score,
    with_validation,
)
from examples.paper.cost import listing
from examples.paper.curves import CURVES
from examples.paper.experiments import Row
from examples.paper.figures import FIGURES, HELD_OUT
from examples.paper.loop import Examples, SettingError, train_row
from examples.paper.models import MODELS
from examples.paper.results import Result, column, experiment, find, recorded

NAMES = (*CURVES, *FIGURES, "baselines")
ON_CIFAR = ("figure4", "cifar_allcnn")
PACKAGES = ("optax_mi", "jax", "jaxlib", "flax", "optax", "numpy")


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
) -> list[Result]:
    """Runs the seeds of one row that have no result yet, and returns all results."""
    config = {
        "figure": figure,
        **row.config,
        "dataset": args.dataset,
        "train_size": len(dataset.train_x),
        "model": args.model,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
    }
    configs = [{**config, "seed": seed} for seed in range(args.seeds)]
    path = experiment(args.out, figure)
    there = recorded(path)
    missing = [each for each in configs if find(there, each) is None]
    # Together on an accelerator; one after the other on a CPU, each kept when done.
    for some in [missing] if missing and on_accelerator() else [[c] for c in missing]:
        run_seeds(some, row, dataset, path, held_out)
    there = recorded(path)
    return [result for each in configs if (result := find(there, each))]


def run_seeds(
    configs: Sequence[Mapping[str, Any]],
    row: Row,
    dataset: data.Dataset,
    path: Path,
    held_out: Examples | None,
) -> None:
    """Trains one row with several seeds at once and keeps them."""
    from tqdm import tqdm

    config, seeds = configs[0], [each["seed"] for each in configs]
    histories = [optax_mi.MIHistory() for _ in seeds]
    title = f"{config['figure']} {row.name} seed {', '.join(map(str, seeds))}"
    options = {name: config[name] for name in ("model", "epochs", "batch_size")}
    with tqdm(total=config["epochs"], desc=title, unit="epoch") as bar:
        for epoch in train_row(row, dataset, seeds=seeds, held_out=held_out, **options):
            for history, record in zip(histories, epoch, strict=True):
                add(history, record)
            bar.set_postfix(accuracy=f"{epoch[0]['accuracy']:.2%}")
            bar.update()
    for config, history in zip(configs, histories, strict=True):
        keep(path, config, history, {"seeds_together": len(seeds)})


def add(history: optax_mi.MIHistory, record: Mapping[str, Any]) -> None:
    """Adds an epoch's record, a row for each layer that was measured."""
    rates = record["learning_rate"]
    shared = {k: v for k, v in record.items() if k not in ("learning_rate", "mi")}
    for layer, mi in record["mi"].items():
        rate = rates.get(layer, rates.get("", math.nan))
        history.add(layer=layer, learning_rate=rate, mi=mi, **shared)


def keep(
    path: Path,
    config: Mapping[str, Any],
    history: optax_mi.MIHistory,
    together: Mapping[str, int] | None = None,
    **curve: Any,
) -> None:
    """Adds a run, or a curve, to the file of its experiment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = environment() | dict(together or {})
    history.append_jsonl(
        path, name(config), config=dict(config), environment=where, **curve
    )


def on_accelerator() -> bool:
    """Whether there is anything faster than a CPU."""
    return jax.default_backend() != "cpu"


def tuned(dataset: data.Dataset, args: argparse.Namespace) -> list[Row]:
    """Tunes each baseline's rate on held-out training examples, once.

    Returns:
      Each baseline at the rate of the highest score, the lowest of equals, and what
      needs no tuning.
    """
    split = with_validation(dataset)
    once = argparse.Namespace(**vars(args) | {"seeds": 1})
    rows = []
    for name, baseline in BASELINES.items():
        if name not in args.rows:
            continue
        scores = {}
        for rate in baseline.grid:
            (result,) = run_row(TUNING, baseline.row(name, rate), split, once)
            scores[rate] = score(column(result, "accuracy"))
        best = max(scores, key=lambda rate: scores[rate])
        rows.append(baseline.row(name, best))
    return [*rows, *UNTUNED]


def run_curve(figure: str, dataset: data.Dataset, args: argparse.Namespace) -> None:
    """Draws the seeds of one curve that has no result yet."""
    swept = figure == "range_test"
    config = {
        "figure": figure,
        "row": figure,
        "tuned_rate": None,
        "dataset": args.dataset,
        "train_size": len(dataset.train_x),
        "model": args.model if swept else "none",
        "epochs": 0,
        "batch_size": args.batch_size if swept else 0,
    }
    path = experiment(args.out, figure)
    for seed in range(args.seeds):
        own = config | {"seed": seed}
        if find(recorded(path), own) is None:
            curve = CURVES[figure](
                dataset, seed, model=args.model, batch_size=args.batch_size
            )
            keep(path, own, optax_mi.MIHistory(), **curve)


def name(config: Mapping[str, Any]) -> str:
    """A run's name beside the others of its experiment."""
    row, rate = config["row"], config["tuned_rate"]
    parts = [
        row if rate is None else f"{row}-{rate:g}",
        config["model"],
        f"{config['dataset']}-{config['train_size']}",
        f"{config['epochs']}x{config['batch_size']}",
        str(config["seed"]),
    ]
    return "-".join(parts)


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
    known = [row.name for row in FIGURES.get(args.figure, [])]
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
        return
    try:
        run_figure(args.figure, dataset, args)
    except SettingError as error:
        sys.exit(str(error))


def run_figure(figure: str, dataset: data.Dataset, args: argparse.Namespace) -> None:
    """Runs the rows of a figure that were asked for."""
    held_out = None
    if figure in HELD_OUT:
        dataset, held_out = data.hold_out(dataset)
    rows = tuned(dataset, args) if figure == "baselines" else FIGURES[figure]
    for row in rows:
        if row.name in args.rows:
            run_row(figure, row, dataset, args, held_out)


if __name__ == "__main__":
    main()
