"""How a rate is set: methods by name, each made for a run with its options."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax
from optax import contrib

import optax_mi

LR_MIN, LR_MAX = 0.001, 0.1  # the paper's bounds


class Run(NamedTuple):
    """What a method needs to know of its run."""

    epochs: int
    steps_per_epoch: int
    reference: float  # nats

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch


class Method(NamedTuple):
    """An optimizer, its learning rate included, and what is read from its state."""

    transformation: optax.GradientTransformationExtraArgs
    learning_rates: Callable[[Any], Mapping[str, float]]  # those in force
    takes_mi: bool = False
    dense_epochs: int = 0  # the first epochs that are measured ten times each
    # The parameters to test and to measure.
    eval_params: Callable[[Any, Any], Any] = lambda opt_state, params: params


# SGD under a rate that is known beforehand.
SCHEDULES: Mapping[str, Callable[..., Any]] = {
    "constant": lambda run, rate: optax.constant_schedule(rate),
    "warm_up": lambda run, start, rate, epochs: optax.linear_schedule(
        start, rate, epochs * run.steps_per_epoch
    ),
    # To a tenth after each of several parts of the run.
    "decayed": lambda run, rate, ends: optax.piecewise_constant_schedule(
        rate, {round(run.steps * end): 0.1 for end in ends}
    ),
    # From a tenth of the rate, over a tenth of the run.
    "tenth_warm_up": lambda run, rate: optax.linear_schedule(
        rate / 10, rate, run.steps // 10
    ),
    # The same, and then half a cosine down to zero.
    "cosine": lambda run, rate: optax.warmup_cosine_decay_schedule(
        rate / 10, rate, run.steps // 10, run.steps
    ),
    "one_cycle": lambda run, rate: optax.cosine_onecycle_schedule(run.steps, rate),
}

# Other optimizers at a constant rate. Prodigy's multiplies its own estimate; "plateau"
# halves it after three epochs without a lower training loss.
OPTIMIZERS: Mapping[str, Callable[..., Any]] = {
    "adam": lambda run, rate: optax.adam(rate),
    "prodigy": lambda run, rate: contrib.prodigy(rate),
    "schedule_free": lambda run, rate: contrib.schedule_free_sgd(
        rate, warmup_steps=run.steps_per_epoch
    ),
    "plateau": lambda run, rate: optax.chain(
        optax.sgd(rate),
        contrib.reduce_on_plateau(
            factor=0.5, patience=3, accumulation_size=run.steps_per_epoch
        ),
    ),
}

# SGD under the paper's policies A and B, this package's own, both with a rate for each
# layer, and any policy.
POLICIES: Mapping[str, Callable[..., Any]] = {
    "change": optax_mi.change_policy,
    "reference": optax_mi.reference_policy,
    "layerwise": optax_mi.reference_policy,
    "stable": optax_mi.warmup_stable_decay_policy,
    "layerwise_stable": optax_mi.warmup_stable_decay_policy,
    "dynamic": lambda policy=None: policy or optax_mi.reference_policy(),
}
OF_POLICIES = ("gamma_up", "gamma_down", "gamma_over", "epsilon", "policy")


def make(name: str, run: Run, **options: Any) -> Method:
    """Makes the method of a name.

    Args:
      name: One of `SCHEDULES`, `OPTIMIZERS` or `POLICIES`.
      run: The run that it is for.
      **options: Those of its function there. SGD takes `momentum` and `weight_decay`
        too, a policy what `optax_mi.mi_dynamic_lr` takes.
    """
    if name in OPTIMIZERS:
        tx = optax.with_extra_args_support(OPTIMIZERS[name](run, **options))

        def rates(state: Any) -> dict[str, float]:
            return {"": options["rate"] * float(optax.tree.get(state, "scale", 1.0))}

        if name == "schedule_free":
            return Method(tx, rates, eval_params=contrib.schedule_free_eval_params)
        return Method(tx, rates)
    sgd = optax.sgd(1.0, momentum=options.pop("momentum", None))
    if decay := options.pop("weight_decay", 0.0):
        sgd = optax.chain(optax.add_decayed_weights(decay), sgd)
    if name in SCHEDULES:
        rate = optax.inject_hyperparams(optax.scale)(SCHEDULES[name](run, **options))
        tx = optax.with_extra_args_support(optax.chain(sgd, rate))
        return Method(tx, lambda x: {"": float(x[1].hyperparams["step_size"])})
    own = {key: options.pop(key) for key in OF_POLICIES if key in options}
    bounds = (options.pop("lr_min", LR_MIN), options.pop("lr_max", LR_MAX))
    options |= {"policy": POLICIES[name](**own), "reference": run.reference}
    if name.startswith("layerwise"):
        rate = optax_mi.layerwise_mi_dynamic_lr("auto", *bounds, **options)
    else:
        rate = optax_mi.mi_dynamic_lr(*bounds, **options)
    dense_epochs = 2 if name.endswith("stable") else 0
    tx = optax.chain(sgd, rate)
    return Method(tx, optax_mi.learning_rates, True, dense_epochs)
