"""Runs the paper's experiments; what was run already is skipped.

    python -m examples.paper.run figure3 --dataset mnist --data-dir ... --seeds 3
    python -m examples.paper.report

Each row and seed adds a line to its experiment's file: a set that was stopped goes on.
So does a run, from its last save in the folder `runs` beside that file; the save is
removed when the line is there.
"""

import hashlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

import optax_mi
from examples.common import data
from examples.common.data import Dataset
from examples.common.networks import NETWORKS
from examples.common.results import Result, environment, find, recorded, rounded
from examples.common.saves import Saves
from examples.common.training import SettingError, Task, flip_and_shift, sweep, train
from examples.paper.compression import compression
from examples.paper.experiments import EXPERIMENTS, SPLIT, TUNING, Measuring, Row, score

SIZES, REPEATS = (100, 250, 500, 1000, 2000, 4000), 10  # of figure 1


def configs(
    name: str, dataset: Dataset, args: Namespace, **more: Any
) -> list[dict[str, Any]]:
    """What the runs of an experiment depend on, for each seed."""
    given = {key: getattr(args, key) for key in ("model", "epochs", "batch_size")}
    given |= {"dataset": dataset.name, "train_size": len(dataset.train_x)}
    return [{"figure": name, **given, **more, "seed": i} for i in range(args.seeds)]


def run_row(name: str, row: Row, dataset: Dataset, args: Namespace) -> list[Result]:
    """Runs the seeds of a row that have no result yet; returns all seeds' results.

    They train together on an accelerator, and one after the other on a CPU. A run that
    another experiment has made with the same settings is copied.
    """
    path = args.out / f"{name}.jsonl"
    wanted, there = configs(name, dataset, args, **row.config), recorded(path)
    missing = [config for config in wanted if not find(there, config)]
    missing = [config for config in missing if not copied(config, args.out)]
    for some in [missing] if missing and on_accelerator() else [[x] for x in missing]:
        seeds = [config["seed"] for config in some]
        saves = saves_of(some, args.out)
        histories = trained(f"{name} {row.name}", row, seeds, dataset, args, saves)
        where = environment() | {"seeds_together": len(seeds)}
        for config, history in zip(some, histories, strict=True):
            keep(path, config, history, environment=where)
        saves.remove()
    there = recorded(path)
    return [result for config in wanted if (result := find(there, config))]


def draw_probe(measuring: Measuring, dataset: Dataset) -> optax_mi.Probe:
    """Draws a row's probe from what it trains on, or from what was held out."""
    if measuring.held_out and not dataset.held_out:
        raise ValueError("the row measures on held-out examples; there are none")
    x, y = dataset.held_out if measuring.held_out else dataset[1:3]
    key, size = jax.random.key(measuring.seed), min(measuring.size, len(x))
    return optax_mi.sample_probe(key, x, y, size=size)


def trained(
    title: str,
    row: Row,
    seeds: list[int],
    dataset: Dataset,
    args: Namespace,
    saves: Saves,
) -> list[optax_mi.MIHistory]:
    """Trains one row, and says after each epoch how long the others will take."""
    if row.measuring.held_out and not dataset.held_out:
        parts = max(10, len(dataset.train_x) // row.measuring.size)
        dataset = data.hold_out(dataset, parts)  # no more than the probe
    model, probe = NETWORKS[args.model], draw_probe(row.measuring, dataset)
    k = row.measuring.k
    estimator = partial(optax_mi.ksg_discrete, k=k, scaling="variable")
    augment = flip_and_shift if row.augment else None
    task = Task(model, dataset, probe, row.layers, estimator, augment)
    title = f"{title} seed {', '.join(map(str, seeds))}"
    if saves.epochs:
        print(f"{title}: goes on after epoch {saves.epochs - 1}", flush=True)
    sizes = {"epochs": args.epochs, "batch_size": args.batch_size}
    started, histories = time.perf_counter(), []
    try:
        for histories, _ in train(task, row.phases, seeds=seeds, saves=saves, **sizes):
            last, ended = histories[0].rows[-1], time.perf_counter()
            took, started = ended - started, ended
            left = (args.epochs - 1 - last["epoch"]) * took / 60
            told = f"accuracy {last['accuracy']:.2%}, {took:.1f} s"
            rest = f"the rest takes about {left:.1f} minutes"
            print(f"{title}: epoch {last['epoch']}, {told}; {rest}", flush=True)
    except SettingError as error:
        sys.exit(f"{row.name}: {error}")
    return histories


def named(config: Mapping[str, Any]) -> str:
    """A run's name in its file."""
    rate = "" if config["tuned_rate"] is None else f"-{config['tuned_rate']:g}"
    name = "{row}{rate}-{model}-{dataset}-{train_size}-{epochs}x{batch_size}-{seed}"
    return name.format(rate=rate, **config)


def saves_of(configs: Sequence[Mapping[str, Any]], out: Path) -> Saves:
    """The saves of runs that train together, apart from those of any other settings."""
    first, settings = configs[0], json.dumps(configs, sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    return Saves(out / "runs" / f"{first['figure']}-{named(first)}-{digest}")


def keep(
    path: Path, config: Mapping[str, Any], history: optax_mi.MIHistory, **about: Any
) -> None:
    """Adds a run, or a curve, to the file of its experiment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    history.append_jsonl(path, named(config), config=config, **about)


def copied(config: Mapping[str, Any], out: Path) -> bool:
    """Copies another experiment's run with the same settings, if there is one.

    It has to be of this machine and these packages, so that a new run would be equal.
    """
    comparable = set(EXPERIMENTS) - set(SPLIT)  # nor the tuning: they hold data out
    if config["figure"] not in comparable:
        return False
    here = environment().items()
    for name in sorted(comparable):
        for result in recorded(out / f"{name}.jsonl"):
            own = {key: result.config[key] for key in ("figure", "row")}
            where = result.about["environment"]
            if here <= where.items() and find([result], {**config, **own}):
                source = f"{name}.jsonl: {result.about['name']}"
                more = {"environment": where, "copied_from": source}
                keep(out / f"{config['figure']}.jsonl", config, result.history, **more)
                return True
    return False


def on_accelerator() -> bool:
    """Whether there is anything faster than a CPU."""
    return jax.default_backend() != "cpu"


def tuned(row: Row, dataset: Dataset, args: Namespace) -> Row:
    """The row at its best rate on held-out training examples, the lowest of equals."""
    rest, once = data.hold_out(dataset), Namespace(**vars(args) | {"seeds": 1})
    split = rest._replace(test_x=rest.held_out[0], test_y=rest.held_out[1])
    scores: dict[float, float] = {}
    for rate in row.grid:
        (result,) = run_row(TUNING, row.at(rate), split, once)
        scores[rate] = score(result.history.column("accuracy"))
    return row.at(max(scores, key=lambda rate: scores[rate]))


def run_curve(name: str, dataset: Dataset, args: Namespace) -> None:
    """Draws the seeds of one curve that are not there yet."""
    more: dict[str, Any] = {"row": name, "tuned_rate": None}
    if name != "compression":
        more |= {"epochs": 0}
    if name == "figure1":
        more |= {"model": "none", "batch_size": 0}
    path = args.out / f"{name}.jsonl"
    for config in configs(name, dataset, args, **more):
        if not find(recorded(path), config):
            about = CURVES[name](dataset, config) | {"environment": environment()}
            keep(path, config, optax_mi.MIHistory(), **about)


def sample_size(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    """I(X; Y) of raw images and labels against the sample's size, in nats."""
    sizes = [size for size in SIZES if size <= len(dataset.train_x)]
    key, x, y = jax.random.key(config["seed"]), dataset.train_x, dataset.train_y
    curve = optax_mi.sample_size_curve(key, x, y, sizes, REPEATS)
    return {"sizes": sizes, "estimates": [rounded(row) for row in curve.estimates]}


def range_test(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    """Loss and I(H; Y) in nats over a sweep of plain SGD's rate, and its bounds."""
    probe = draw_probe(Measuring(), dataset)
    task = Task(NETWORKS[config["model"]], dataset, probe)
    found = sweep(task, batch_size=config["batch_size"], seed=config["seed"])
    names = ("learning_rate", "loss", "mi")
    curves: dict[str, Any] = {name: rounded(getattr(found, name)) for name in names}
    curves["loss"][0] = None  # before the first step
    return curves | {"lr_min": found.lr_min, "lr_max": found.lr_max}


def information_plane(dataset: Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    """I(H; X), I(H; Y) and the accuracy of two methods, after each epoch."""
    return compression(dataset, draw_probe(Measuring(), dataset), config)


CURVES = {
    "figure1": sample_size,
    "range_test": range_test,
    "compression": information_plane,
}
NAMES = (*CURVES, *EXPERIMENTS)
DEFAULTS = {"figure4": ("cifar10", "small"), "cifar_allcnn": ("cifar10", "allcnn")}


def parse(arguments: list[str] | None) -> Namespace:
    """Reads the command line; what is left open depends on the experiment."""
    prog, layout = "python -m examples.paper.run", RawDescriptionHelpFormatter
    parser = ArgumentParser(prog=prog, description=__doc__, formatter_class=layout)
    parser.add_argument("experiment", nargs="?", choices=NAMES)
    parser.add_argument("--list", action="store_true", help="the rows of all of them")
    parser.add_argument("--dataset", choices=data.NAMES, help="default: the paper's")
    parser.add_argument("--data-dir", help="TensorFlow Datasets folder")
    parser.add_argument("--train-size", type=int, help="training examples, first ones")
    parser.add_argument("--model", choices=NETWORKS, help="default: small")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, help="default: 100; digits 16")
    parser.add_argument("--seeds", type=int, default=1, help="0 to one less than this")
    parser.add_argument("--rows", nargs="+", help="only these, in this order")
    parser.add_argument("--out", type=Path, default="docs/results")
    args = parser.parse_args(arguments)
    if args.experiment is None and not args.list:
        parser.error("name an experiment, or --list")
    dataset, model = DEFAULTS.get(str(args.experiment), ("mnist", "small"))
    args.dataset, args.model = args.dataset or dataset, args.model or model
    if args.batch_size is None:
        args.batch_size = 16 if args.dataset == "digits" else 100
    for option in ("epochs", "seeds", "batch-size"):
        if (given := getattr(args, option.replace("-", "_"))) < 1:
            parser.error(f"--{option} must be at least 1, got {given}")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Runs the rows of one experiment that were asked for."""
    args = parse(arguments)
    if args.list:
        for experiment in [args.experiment] if args.experiment else NAMES:
            print(experiment)
            for row in EXPERIMENTS.get(experiment, []):
                print(f"  {row.name:16} {row.title}")
        return
    rows = {row.name: row for row in EXPERIMENTS.get(args.experiment, [])}
    if unknown := [name for name in args.rows or [] if name not in rows]:
        sys.exit(f"{args.experiment} has no rows {unknown}; it has {list(rows)}.")
    dataset = data.load(args.dataset, args.data_dir, args.train_size)
    if args.experiment in CURVES:
        run_curve(args.experiment, dataset, args)
    if args.experiment in SPLIT:
        dataset = data.hold_out(dataset)
    for name in args.rows or rows:
        row = rows[name]
        row = tuned(row, dataset, args) if row.grid else row
        run_row(args.experiment, row, dataset, args)


if __name__ == "__main__":
    main()
