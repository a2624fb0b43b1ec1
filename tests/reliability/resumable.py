"""Trains by the loop of docs/guides/checkpoints.md, as a process that may be killed.

Usage: resumable.py {plain,layer-wise,memory} CHECKPOINTS RESULTS [PAUSE_AFTER [EPOCHS]]

RESULTS/log has a line for each step: every leaf of the optimizer's MI states, and of
what a policy remembers.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import pages
from sklearn import datasets

import optax_mi
from optax_mi import _record

BOUNDS = (0.005, 0.05)


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dropout(0.2, deterministic=not train)(nn.relu(nn.Dense(32)(x)))
        return nn.Dense(10)(x)


def main(
    form: str, checkpoints: str, results: str, pause_after: str = "", epochs: str = "7"
) -> None:
    out = Path(results)
    out.mkdir()
    x, y = map(np.asarray, datasets.load_digits(return_X_y=True))
    x, y = x[:800].astype(np.float32) / 16, y[:800]
    model = Model()
    params = jax.jit(model.init)(jax.random.key(0), x[:1])
    probe = optax_mi.sample_probe(jax.random.key(1), x, y, size=400)
    policy_b = optax_mi.reference_policy(epsilon=1e-4)
    remembers = optax_mi.warmup_stable_decay_policy(factor=1.5, patience=1)
    make, layers, bounds, policy = {
        "plain": (optax_mi.mi_dynamic_lr, "", BOUNDS, policy_b),
        "layer-wise": (layerwise, ["Dense_0", "Dense_1"], BOUNDS, policy_b),
        "memory": (optax_mi.mi_dynamic_lr, "", (0.01, 1.0), remembers),
    }[form]
    reference = optax_mi.reference_mi(probe)
    tx = optax.chain(
        optax.sgd(1.0, momentum=0.9), make(*bounds, reference=reference, policy=policy)
    )

    @jax.jit
    def compiled_step(params, opt_state, x, y, key):
        def loss(params):
            logits: Any = model.apply(params, x, train=True, rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    @jax.jit
    def measure(params):
        found = optax_mi.capture_activations(model, params, probe.inputs, layers=layers)
        return optax_mi.estimate_mi(found, probe.outcomes)

    with (out / "log").open("w") as log:

        def train_step(*arguments):
            params, opt_state = compiled_step(*arguments)
            states = _record.labelled_states(opt_state)
            line = {k: [leaf.item() for leaf in states[k]] for k in states}
            memory = jax.tree.leaves(optax.tree.get(opt_state, "memory"))
            line |= {"memory": [leaf.item() for leaf in memory]} if memory else {}
            print(json.dumps(line), file=log, flush=True)
            (step,) = {int(state.count) for state in states.values()}
            if str(step) == pause_after:
                signal.pause()  # until the test kills it
            return params, opt_state

        names = {
            **{"jax": jax, "np": np, "optax_mi": optax_mi, "model": model, "tx": tx},
            **{"x": x, "y": y, "params": params, "measure": measure},
            **{"directory": checkpoints, "epochs": int(epochs), "seed": 3},
            "train_step": train_step,
        }
        exec(pages.programs("guides/checkpoints.md")[4], names)

    names["history"].to_json(out / "history.json")
    end = {"params": names["params"], "opt_state": names["opt_state"]}
    leaves = jax.tree_util.tree_leaves_with_path(end)
    arrays: dict[str, Any] = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    np.savez(out / "end.npz", **arrays)


def layerwise(*bounds, **options):
    return optax_mi.layerwise_mi_dynamic_lr("auto", *bounds, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
