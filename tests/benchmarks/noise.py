"""What noise does to the rate: in measurements, labels, probe and training images.

Each run trains the demo's network by the paper's second policy; a run that is in the
file is not done again. Printed and written, never asserted: `make noise`.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optax_mi
from examples.common.data import Dataset, load
from examples.common.networks import SmallCNN
from examples.common.results import find, recorded
from examples.common.training import Phase, Task, train

SETTINGS = {  # training images (None: all), batch size, epochs, seeds
    "digits": (None, 16, 40, (0, 1, 2)),
    "mnist": (12_000, 100, 20, (0,)),
}
DEVIATIONS = {
    "digits": (0.0, 0.001, 0.003, 0.01, 0.03, 0.1),
    "mnist": (0.0, 0.003, 0.01, 0.03),
}
CONDITIONS = (
    "20 % of the labels wrong",
    "60 % of the labels wrong",
    "an unbalanced probe",
    "a stale probe",
    "augmentation",
)


class Run(NamedTuple):
    """What a run trains on, and what is done to it."""

    dataset: str
    condition: str
    deviation: float  # of the noise added to each measurement, in nats
    smoothing: float
    seed: int

    @property
    def name(self) -> str:
        """Its name in the file."""
        condition = self.condition or "plain"
        numbers = f"{self.deviation:g}-{self.smoothing:g}-{self.seed}"
        return f"{self.dataset}-{condition}-{numbers}"


def planned() -> Iterator[Run]:
    """All runs, the quick ones first."""
    for dataset, (*_, seeds) in SETTINGS.items():
        for smoothing in (0.0, 0.8):
            for deviation in DEVIATIONS[dataset]:
                for seed in seeds:
                    yield Run(dataset, "", deviation, smoothing, seed)
            for condition in CONDITIONS if dataset == "digits" else ():
                for seed in seeds:
                    yield Run(dataset, condition, 0.0, smoothing, seed)


def shifted(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts a batch by up to a pixel."""
    return jnp.roll(images, jax.random.randint(key, (2,), -1, 2), (1, 2))


def prepared(run: Run, data: Dataset) -> tuple[Dataset, optax_mi.Probe]:
    """The data and the probe as the condition has them."""
    rng, key = np.random.default_rng(run.seed), jax.random.key(run.seed)
    x, y = data.train_x, data.train_y
    if "labels wrong" in run.condition:
        wrong = rng.random(len(y)) < int(run.condition[:2]) / 100
        y = np.where(wrong, (y + rng.integers(1, 10, len(y))) % 10, y)
        data = data._replace(train_y=y.astype(np.int32))
    chosen = np.arange(len(y))
    if run.condition == "an unbalanced probe":
        chosen = chosen[(y < 2) | (rng.random(len(y)) < 0.1)]  # two classes of ten
    size = min(1000, len(chosen))
    probe = optax_mi.sample_probe(key, x[chosen], data.train_y[chosen], size=size)
    if run.condition == "a stale probe":  # as from a camera since replaced
        probe = probe._replace(inputs=0.4 * probe.inputs + 0.3)
    return data, probe


def noisy(deviation: float) -> optax_mi.Estimator:
    """The default estimator with noise that each state of the network draws anew."""

    def estimate(layer: jax.Array, labels: jax.Array) -> jax.Array:
        draw = jax.lax.bitcast_convert_type(jnp.sum(layer), jnp.uint32)
        key = jax.random.fold_in(jax.random.key(0), draw)
        noise = deviation * jax.random.normal(key)
        return optax_mi.estimate_mi({"": layer}, labels)[""] + noise

    return estimate


def trained(run: Run, data: Dataset) -> optax_mi.MIHistory:
    """Trains; the rates, information and accuracies of the epochs."""
    _, batch_size, epochs, _ = SETTINGS[run.dataset]
    data, probe = prepared(run, data)
    task = Task(
        SmallCNN(),
        data,
        probe,
        estimator=noisy(run.deviation),
        augment=shifted if run.condition == "augmentation" else None,
    )
    phases = [Phase("dynamic", {"smoothing": run.smoothing})]
    options: Any = {"epochs": epochs, "batch_size": batch_size, "seeds": [run.seed]}
    *_, ((history,), _) = train(task, phases, **options)
    return history


def table(results: Mapping[Run, optax_mi.MIHistory]) -> str:
    """A line for each condition, means over seeds, without smoothing and with it."""
    lines = [
        "| | noise, nats | smoothing | mean rate | change of rate per epoch | "
        "accuracy, last 5 epochs |",
        "|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys(run[:4] for run in results)
    for kind in kinds:
        found = [history for run, history in results.items() if run[:4] == kind]
        # The second half: what the rate does when most is learnt.
        rates = np.stack([history.column("learning_rate") for history in found])
        late = rates[:, rates.shape[1] // 2 :]
        accuracy = np.mean([history.column("accuracy")[-5:] for history in found])
        dataset, condition, deviation, smoothing = kind
        lines.append(
            f"| {dataset}{', ' if condition else ''}{condition} | {deviation:g} | "
            f"{smoothing:g} | {late.mean():.3f} | "
            f"{np.abs(np.diff(late)).mean():.4f} | {accuracy:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Does what is missing in the file, and prints the table of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", choices=SETTINGS, nargs="+", default=SETTINGS)
    parser.add_argument("--out", type=Path, default=Path("docs/results/noise.jsonl"))
    args = parser.parse_args()
    for dataset in args.dataset:
        data = load(dataset, args.data_dir, SETTINGS[dataset][0])
        for run in planned():
            if run.dataset == dataset and not find(recorded(args.out), run._asdict()):
                history = trained(run, data)
                print(*run, history.column("accuracy")[-1], flush=True)
                history.append_jsonl(args.out, run.name, config=run._asdict())
    results = {Run(**result.config): result.history for result in recorded(args.out)}
    print(table({run: results[run] for run in planned() if run in results}))


if __name__ == "__main__":
    main()
