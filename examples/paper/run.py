"""Runs the paper's experiments; what was run already is skipped.

    python -m examples.paper.run figure3 --dataset mnist --data-dir ... --seeds 3
    python -m examples.paper.report

Each row and seed writes a JSON file of its own, so a set that was stopped goes on.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

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

NAMES = (*CURVES, *FIGURES, "baselines")
ON_CIFAR = ("figure4", "cifar_allcnn")
PACKAGES = ("optax_mi", "jax", "jaxlib", "flax", "optax", "numpy")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    text = json.dumps(_finite(content), indent=1, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def _finite(content: Any) -> Any:
    """The same with null for what is not a number, which JSON has no word for."""
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    finite = not isinstance(content, float) or math.isfinite(content)
    return content if finite else None


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
    config = {
        "figure": figure,
        **row.config,
        "dataset": args.dataset,
        "train_size": len(dataset.train_x),
        "model": args.model,
        "epochs": args.epochs,
        "batch_size": args.batch_size,
    }
    paths = {seed: result_path(args.out, config, seed) for seed in range(args.seeds)}
    missing = [seed for seed, path in paths.items() if not exists(path, config)]
    # Together on an accelerator; one after the other on a CPU, each kept when done.
    for seeds in [missing] if missing and on_accelerator() else [[s] for s in missing]:
        run_seeds(config, row, dataset, {s: paths[s] for s in seeds}, held_out)
    return list(paths.values())


def run_seeds(
    config: Mapping[str, Any],
    row: Row,
    dataset: data.Dataset,
    paths: Mapping[int, Path],
    held_out: Examples | None,
) -> None:
    """Trains one row with several seeds at once and writes their results."""
    from tqdm import tqdm

    records: dict[int, list[Any]] = {seed: [] for seed in paths}
    title = f"{config['figure']} {row.name} seed {', '.join(map(str, paths))}"
    options = {name: config[name] for name in ("model", "epochs", "batch_size")}
    with tqdm(total=config["epochs"], desc=title, unit="epoch") as bar:
        for epoch in train_row(
            row, dataset, seeds=list(paths), held_out=held_out, **options
        ):
            for mine, record in zip(records.values(), epoch, strict=True):
                mine.append(record)
            bar.set_postfix(accuracy=f"{epoch[0]['accuracy']:.2%}")
            bar.update()
    together = {"seeds_together": len(paths)}
    for seed, path in paths.items():
        result = {"config": {**config, "seed": seed}, "epochs": records[seed]}
        write(path, result | {"environment": environment() | together})


def exists(path: Path, config: Mapping[str, Any]) -> bool:
    """Whether there is a result, and that of this configuration."""
    if not path.exists():
        return False
    there = json.loads(path.read_text(encoding="utf-8"))["config"]
    for name, value in json.loads(json.dumps(config)).items():
        if there.get(name) != value:
            sys.exit(
                f"{path} holds another experiment's result, with {name} "
                f"{there.get(name)} and not {value}; move it away to run this one."
            )
    return True


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
            (path,) = run_row(TUNING, baseline.row(name, rate), split, once)
            scores[rate] = score(json.loads(path.read_text(encoding="utf-8")))
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
    for seed in range(args.seeds):
        path = result_path(args.out, config, seed)
        if exists(path, config):
            continue
        curve = CURVES[figure](
            dataset, seed, model=args.model, batch_size=args.batch_size
        )
        content = {"config": config | {"seed": seed}, "environment": environment()}
        write(path, content | curve)


def result_path(out: Path, config: Mapping[str, Any], seed: int) -> Path:
    """Where a row's result for a seed lies."""
    row, rate = config["row"], config["tuned_rate"]
    parts = [
        row if rate is None else f"{row}-{rate:g}",
        config["model"],
        f"{config['dataset']}-{config['train_size']}",
        f"{config['epochs']}x{config['batch_size']}",
        str(seed),
    ]
    return out / config["figure"] / f"{'-'.join(parts)}.json"


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
