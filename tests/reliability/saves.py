"""Saves a checkpoint by the guide's program, or restores one, in a process of its own.

Usage: saves.py {STEP | restore} DIRECTORY...
"""

import json
import os
import sys
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pages

import optax_mi

PROGRAM = pages.programs("guides/checkpoints.md")[5]
TX = optax.chain(
    optax.sgd(1.0, momentum=0.9),
    optax_mi.mi_dynamic_lr(
        1e-3, 0.1, reference=2.3, policy=optax_mi.reference_policy()
    ),
)


def functions() -> Any:
    """The guide's save and restore."""
    names: Any = {"jax": jax, "np": np}
    exec(PROGRAM, names)
    return names


def state_after(steps: int) -> Any:
    """A state that so many updates have made, and the history of its measurements."""
    rng = np.random.default_rng(0)
    params = {"dense": {"kernel": jnp.asarray(rng.normal(size=(64, 32)), jnp.float32)}}
    opt_state, history = TX.init(params), optax_mi.MIHistory()
    for step in range(steps):
        mi = 0.5 + step / 10
        _, opt_state = TX.update(params, opt_state, params, mi=mi)
        history.record(opt_state, epoch=step)
    return {"params": params, "opt_state": opt_state}, history.rows


def restore(directory: str) -> None:
    """Restores a checkpoint, and says which it was and which are there then."""
    with ocp.CheckpointManager(directory) as manager:
        found = functions()["restore"](manager, state_after(0)[0])
        step, state, rows, damaged = found
        expected, expected_rows = state_after(step)
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True)
        assert all(np.array_equal(have, want) for have, want in pairs)
        assert json.dumps(rows) == json.dumps(expected_rows)
        told = " by its digest" if "not those that were saved" in str(damaged) else ""
        kept = [*manager.all_steps()]
        print(f"restored {step}, damaged {[*damaged]}{told}, kept {kept}")


def save(directory: str, step: int) -> None:
    """Saves the checkpoint of a step."""
    with ocp.CheckpointManager(directory) as manager:
        functions()["save"](manager, step, *state_after(step))
    print(f"saved {step}")


def main(what: str, *directories: str) -> None:
    for directory in directories:
        restore(directory) if what == "restore" else save(directory, int(what))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # where a write failed, threads of Orbax wait for one another
