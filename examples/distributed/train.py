"""Trains a network data-parallel over all devices, with a rate for each layer.

    python -m examples.distributed.train --fsdp          # the devices of this process
    python -m examples.distributed.launch --processes 2  # two processes on this host

On a cluster, run `train --cluster` once on every host; JAX finds the others where the
scheduler says them (Slurm, Open MPI, Cloud TPU). With `--checkpoints DIR` a run that
was stopped goes on, on as many devices as there are then.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

import optax_mi
from examples.common import data
from examples.common.networks import SmallCNN
from examples.common.training import shuffled
from examples.distributed import layout
from examples.distributed.checkpoints import Checkpoints

LAYERS = ("Conv_0", "Conv_1", "Dense_0", "logits")
LR_MIN, LR_MAX = 0.005, 0.05


def train(
    mesh: Mesh,
    *,
    epochs: int,
    batch_size: int,
    fsdp: bool = False,
    probe_size: int = 1000,
    seed: int = 0,
    folder: Path | None = None,
) -> Iterator[tuple[optax_mi.MIHistory, Any]]:
    """Trains, and yields the history and the state after each epoch.

    A run that goes on begins with the last epoch that is known.
    """
    digits = data.load("digits")
    key = jax.random.key(seed)
    probe = optax_mi.sample_probe(key, digits.train_x, digits.train_y, size=probe_size)
    model = SmallCNN()
    # Wide layers hold nearly all the information from the start; they change little.
    policy = optax_mi.reference_policy(epsilon=1e-4)
    reference = float(optax_mi.reference_mi(probe))
    rates = optax_mi.layerwise_mi_dynamic_lr(
        "auto", LR_MIN, LR_MAX, policy=policy, reference=reference
    )
    tx = optax.chain(optax.sgd(1.0), rates)
    probe = layout.spread(mesh, probe)

    def init() -> Any:
        params = model.init(key, digits.train_x[:1])["params"]
        return {"params": params, "opt_state": tx.init(params)}

    shapes = jax.eval_shape(init)
    shardings = layout.of_state(mesh, shapes, fsdp=fsdp)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        params = state["params"]
        gradients = jax.grad(loss)(layout.gathered(mesh, params), x, y)
        updates, opt_state = tx.update(gradients, state["opt_state"], params)
        params = optax.apply_updates(params, updates)
        return {"params": params, "opt_state": opt_state}

    def measure(state: Any, probe: optax_mi.Probe) -> Any:
        variables = {"params": layout.gathered(mesh, state["params"])}
        found = optax_mi.capture_activations(
            model, variables, probe.inputs, layers=LAYERS
        )
        mi = optax_mi.estimate_mi(found, probe.outcomes, axis_name=layout.AXIS)
        opt_state = optax_mi.record_mi(state["opt_state"], mi)
        return {**state, "opt_state": opt_state}

    # The devices of one CPU share its threads: a program that is begun ahead may take
    # those that another needs to end, whose collectives then wait for good.
    virtual = jax.default_backend() == "cpu" and len(mesh.local_devices) > 1

    def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
        program = jax.jit(fn, out_shardings=shardings)
        if virtual:
            return lambda *args: jax.block_until_ready(program(*args))
        return program

    init, step, measure = map(compiled, (init, step, measure))
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest(shapes, shardings)
        last, state, history = latest or (-1, init(), optax_mi.MIHistory())
        if latest:
            yield history, state
        else:
            with jax.set_mesh(mesh):  # in which the probe's axis is known by its name
                state = measure(state, probe)  # before the first step
        for epoch in range(last + 1, epochs):
            rng = np.random.default_rng([seed, epoch])
            for i in shuffled(rng, len(digits.train_x), batch_size):
                batch = layout.spread(mesh, (digits.train_x[i], digits.train_y[i]))
                state = step(state, *batch)
            with jax.set_mesh(mesh):
                state = measure(state, probe)
            history.record(state["opt_state"], epoch=epoch)
            checkpoints.save(epoch, state, history)
            yield history, state


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.distributed.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--probe-size", type=int, default=1000)
    parser.add_argument("--fsdp", action="store_true", help="shard the parameters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, help="a folder to go on from")
    parser.add_argument("--out", type=Path, help="a JSON file for the history")
    parser.add_argument("--devices", type=int, help="virtual ones, of a CPU")
    processes = parser.add_argument_group("several processes")
    processes.add_argument("--cluster", action="store_true", help="as it says itself")
    processes.add_argument("--coordinator", help="HOST:PORT of the first process")
    processes.add_argument("--processes", type=int, help="how many there are")
    processes.add_argument("--process-id", type=int, help="which this one is")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Trains, and tells the rates after each epoch."""
    args = parse(arguments)
    if args.devices:
        jax.config.update("jax_num_cpu_devices", args.devices)
    if args.cluster:
        jax.distributed.initialize()
    elif args.coordinator:
        jax.distributed.initialize(args.coordinator, args.processes, args.process_id)
    first = jax.process_index() == 0
    if first:
        print(f"{jax.process_count()} processes, {jax.device_count()} devices")
    history = optax_mi.MIHistory()
    for history, state in train(
        layout.in_a_row(jax.devices()),
        epochs=args.epochs,
        batch_size=args.batch_size,
        fsdp=args.fsdp,
        probe_size=args.probe_size,
        seed=args.seed,
        folder=args.checkpoints,
    ):
        rates = optax_mi.learning_rates(state["opt_state"])
        if first:
            epoch = history.rows[-1]["epoch"]
            told = "  ".join(f"{layer} {rate:.4f}" for layer, rate in rates.items())
            print(f"epoch {epoch:2}  {told}", flush=True)
    if args.out:
        history.to_json(args.out)


if __name__ == "__main__":
    main()
