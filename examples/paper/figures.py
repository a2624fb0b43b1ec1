"""The rows of each figure: those of the paper, and those that go beyond it."""

import dataclasses
import functools

import optax

import optax_mi
from examples.paper.experiments import (
    LR_MIN,
    Measuring,
    Phase,
    Row,
    Setting,
    dynamic,
    layerwise,
    scheduled,
)

LR = 0.01  # the paper's fixed rate, and the end of its warm-up
WARM_UP_EPOCHS = 5


def _warm_up(setting: Setting) -> optax.Schedule:
    return optax.linear_schedule(LR_MIN, LR, WARM_UP_EPOCHS * setting.steps_per_epoch)


_fixed = scheduled(lambda setting: optax.constant_schedule(LR))
_change = optax_mi.change_policy
_reference = optax_mi.reference_policy
_LAYERS = ("Conv_0", "Conv_1", "Dense_0", "logits")

FIXED = Row("fixed", "fixed 0.01", [Phase(_fixed)])
WARM_UP = Row("warm_up", "warm-up to 0.01", [Phase(scheduled(_warm_up))])
CHANGE = Row(
    "change",
    "MI: change (A)",
    [Phase(dynamic(policy=_change(gamma_up=0.1, gamma_down=1.0)))],
)
CHANGE_DAMPENED = Row(
    "change_dampened",
    "MI: change (A), increases dampened",
    [Phase(dynamic(policy=_change(gamma_up=0.01, gamma_down=1.0)))],
)
DAMPENED = Row(
    "dampened",
    "MI: change and value (B), increases dampened",
    [Phase(dynamic(policy=_reference(0.01, 0.01, 0.1)))],
)
SAME_RATE = Row(
    "same_rate",
    "MI: change and value (B), same rate",
    [Phase(dynamic(policy=_reference(0.1, 0.1, 0.1)))],
)

# The solver of Springenberg et al. (2015), whose best rate is one of four.
_MOMENTUM = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(1.0, momentum=0.9))
ALLCNN_LR = 0.05


def _allcnn_steps(setting: Setting) -> optax.Schedule:
    """Their decay at epochs 200, 250 and 300 of 350, in parts of the run."""
    steps = setting.epochs * setting.steps_per_epoch
    ends = {steps * epoch // 350: 0.1 for epoch in (200, 250, 300)}
    return optax.piecewise_constant_schedule(ALLCNN_LR, ends)


def _allcnn_rows() -> list[Row]:
    row = functools.partial(Row, augment=True)
    fixed = scheduled(lambda setting: optax.constant_schedule(ALLCNN_LR), _MOMENTUM)
    return [
        row("fixed", f"fixed {ALLCNN_LR}", [Phase(fixed)]),
        row(
            "steps",
            f"{ALLCNN_LR}, a tenth after 4/7, 5/7 and 6/7",
            [Phase(scheduled(_allcnn_steps, _MOMENTUM))],
        ),
        row("same_rate", SAME_RATE.title, [Phase(dynamic(_MOMENTUM))]),
        row(
            "held_out",
            f"{SAME_RATE.title}, held-out probe",
            [Phase(dynamic(_MOMENTUM))],
            measuring=Measuring(held_out=True),
        ),
    ]


def _sensitivity_rows() -> list[Row]:
    """One thing changed at a time from policy B with its defaults."""

    def gammas(up: float, down: float) -> optax_mi.Policy:
        return _reference(0.1 * up, 0.1 * down, 0.1 * down)

    policies = {
        "defaults": ("defaults", _reference()),
        "gammas_x3": ("gammas, times 3", gammas(3, 3)),
        "gammas_d3": ("gammas, over 3", gammas(1 / 3, 1 / 3)),
        "up_x3": ("upward gamma, times 3", gammas(3, 1)),
        "up_d3": ("upward gamma, over 3", gammas(1 / 3, 1)),
        "down_x3": ("downward gammas, times 3", gammas(1, 3)),
        "down_d3": ("downward gammas, over 3", gammas(1, 1 / 3)),
        "epsilon_0.003": ("epsilon 0.003", _reference(epsilon=0.003)),
        "epsilon_0.03": ("epsilon 0.03", _reference(epsilon=0.03)),
    }
    measuring = {
        "probe_250": ("probe of 250", Measuring(size=250)),
        "probe_4000": ("probe of 4000", Measuring(size=4000)),
        "k_5": ("k = 5", Measuring(k=5)),
        "k_10": ("k = 10", Measuring(k=10)),
        "probe_seed_1": ("another probe", Measuring(seed=1)),
        "probe_seed_2": ("another probe", Measuring(seed=2)),
        "held_out": ("held-out probe", Measuring(held_out=True)),
    }
    rows = [
        Row(name, title, [Phase(dynamic(policy=policy))])
        for name, (title, policy) in policies.items()
    ]
    rows += [
        Row(name, title, [Phase(dynamic())], measuring=how)
        for name, (title, how) in measuring.items()
    ]
    return [*rows, FIXED]


# The experiments that train on nine tenths, so that a probe can be held out.
HELD_OUT = ("cifar_allcnn", "sensitivity")

FIGURES: dict[str, list[Row]] = {
    # The paper's captions give the dampened row of Figure 3 no policy.
    "figure3": [
        dataclasses.replace(FIXED, paper="98.94 (98.99 at 38)"),
        dataclasses.replace(WARM_UP, paper="98.95 (98.99 at 38)"),
        dataclasses.replace(CHANGE, paper="99.05 (99.11 at 19)"),
        DAMPENED,
        dataclasses.replace(SAME_RATE, paper="99.22 (99.24 at 25)"),
    ],
    "figure4": [
        dataclasses.replace(FIXED, paper="62.99 (63.27 at 115)"),
        dataclasses.replace(WARM_UP, paper="63.29 (63.36 at 130)"),
        dataclasses.replace(CHANGE_DAMPENED, paper="63.11 (63.99 at 43)"),
        dataclasses.replace(DAMPENED, paper="65.61 (65.67 at 42)"),
        SAME_RATE,
    ],
    "figure5": [
        Row("base", "fixed 0.01, batches of 100", [Phase(_fixed)], paper="98.93"),
        Row(
            "fixed",
            "fixed 0.01, batches of 500 from epoch 3",
            [Phase(_fixed), Phase(_fixed, batches=5, start=3)],
            paper="98.68 (98.68 at 49)",
        ),
        Row(
            "dynamic",
            "MI: change and value (B), batches of 500 from epoch 3",
            [
                Phase(_fixed),
                Phase(dynamic(init_lr=LR), batches=5, start=3, value_only=5),
            ],
            paper="99.07 (99.09 at 31)",
        ),
    ],
    "figure6": [
        Row(
            "layerwise",
            "MI: change and value (B), a rate for each layer",
            [Phase(layerwise(lr_max=0.05))],
            layers=_LAYERS,
            paper="98.99 (99.08 at 11)",
        ),
        # Wide layers of random weights say nearly all from the start: at the paper's
        # epsilon of 1 % their information never changes.
        Row(
            "layerwise_fine",
            "the same, with an epsilon of 0.01 %",
            [Phase(layerwise(lr_max=0.05, epsilon=1e-4))],
            layers=_LAYERS,
        ),
    ],
    "cifar_allcnn": _allcnn_rows(),
    "sensitivity": _sensitivity_rows(),
}
