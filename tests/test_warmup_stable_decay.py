"""Each row of the table of `warmup_stable_decay_policy`, worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

NAN = float("nan")


def run(
    measurements: Any,
    lr_min: float = 5e-4,
    lr_max: float = 1.0,
    reference: float | None = 2.0,
    start: float = 0.1,
    **options: Any,
) -> tuple[list[float], list[int]]:
    """The rates after each measurement, and after which the parameters go back.

    The start is measured before. Rates are in thousandths.
    """
    init_lr = options.pop("init_lr", None)
    policy = optax_mi.warmup_stable_decay_policy(**options)
    tx = optax_mi.mi_dynamic_lr(
        lr_min, lr_max, policy=policy, reference=reference, init_lr=init_lr
    )
    params, update = jnp.ones(2), jax.jit(tx.update)
    _, state = update(params, tx.init(params), params, mi=start)
    rates, back = [], []
    for number, mi in enumerate(measurements):
        value = 0.0
        if mi == "diverged":
            mi, value = None, NAN
        elif mi == "larger batch":
            state, mi = optax_mi.track_value_only(state, 1), measurements[number - 1]
        _, state = update(params, state, params, mi=mi, value=value)
        rates.append(round(1000 * optax_mi.learning_rates(state)[""], 4))
        if state.updates_back:
            back.append(number)
        _, state = update(params, state, params)  # at whose start it is back
    return rates, back


TABLE = {
    "warm-up: it rises": ([0.5, 0.6, 0.7], [2, 4, 8], []),
    "warm-up: it stays, or falls within noise": ([0.5, 0.5, 0.45], [2, 4, 8], []),
    "warm-up: no measurement": ([0.5, None, NAN, 0.6], [2, 2, 2, 4], []),
    "warm-up: it falls": ([0.5, 0.6, 0.5], [2, 4, 1], [2]),
    "warm-up: it falls step by step, from the best": ([1, 0.95, 0.9], [2, 4, 1], [2]),
    "warm-up: training diverges": ([0.5, 0.6, "diverged", 0.6], [2, 4, 1, 1], [2]),
    "stable: at the third rise in all the rate rises too": (
        [1, 1, 0.5, 1.1, 1.2, 1.2, 1.3],
        [2, 4, 1, 1, 1, 1, 2],
        [2],
    ),
    "stable: twice as high only after as many rises more": (
        [1, 1, 0.5, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9],
        [2, 4, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4],
        [2],
    ),
    "stable: no rise, and below the best": (
        [1, 1, 1, 0.5, 1, 1, 0.99],
        [2, 4, 8, 2, 2, 2, 1],
        [3, 6],
    ),
    "stable: another fall": ([1, 1, 1, 0.5, 1.1, 1], [2, 4, 8, 2, 2, 1], [3, 5]),
    "stable: no rise": (
        [1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 1],
        [2, 4, 8, 16, 4, 4, 4, 2, 2, 2, 1],
        [4],
    ),
    "stable: a rise starts the count again": (
        [1, 1, 1, 0.5, 1, 1, 1.1, 1.1, 1.1, 1.1],
        [2, 4, 8, 2, 2, 2, 2, 2, 2, 1],
        [3],
    ),
    "stable: a rise too small to count": (
        [1, 1, 1, 0.5, 1.002, 1.004, 1.005],
        [2, 4, 8, 2, 2, 2, 1],
        [3],
    ),
    "stable: small rises add up": (
        [1, 1, 1, 0.5, 1.004, 1.008, 1.012],
        [2, 4, 8, 2, 2, 2, 2],
        [3],
    ),
    "stable: at the lower bound for long": (
        [1, 0.5] + [1] * 11,
        [2, 0.5] + [0.5] * 10 + [1],
        [1],
    ),
    "warm-up: nothing learned yet, it falls": ([0.09, 0.0, -0.1], [2, 4, 8], []),
    "warm-up: nothing learned yet, it falls a lot": ([0.09, -0.55], [2, 0.5], [1]),
    "a larger batch": ([1, 1, 0.5, 1, "larger batch"], [2, 4, 1, 1, 2], [2]),
}


@pytest.mark.parametrize(("measurements", "rates", "back"), TABLE.values(), ids=TABLE)
def test_each_row_of_the_table(measurements, rates, back):
    found, gone_back = run(measurements)
    assert found == rates
    assert gone_back == back


def test_the_warm_up_ends_at_the_upper_bound():
    rates, back = run([1, 1, 1, 1, 1, 1, 1], lr_max=0.004)
    assert rates == [2, 4, 1, 1, 1, 0.5, 0.5]
    assert back == []


def test_a_warm_up_that_ends_at_the_upper_bound_without_effect_goes_back():
    rates, back = run([0.1, 0.1, 0.1, 0.5], lr_max=0.004)
    assert rates == [2, 4, 1, 1]
    assert back == [2]


def test_much_information_at_the_start_may_fall_by_half_before_it_rises():
    assert run([1.5, 1.1, 1.8], start=2.0) == ([2, 4, 8], [])
    assert run([1.5, 0.9], start=2.0)[1] == [1]


def test_from_the_top_it_reduces_on_plateaus():
    rates, _ = run([1, 1, 1, 1, 1.1, 1.1, 1.1, 1.1], lr_max=0.008, init_lr=0.008)
    assert rates == [8, 8, 8, 4, 4, 4, 4, 2]


def test_a_fall_is_more_than_the_noise_seen_so_far():
    assert run([1] * 8 + [0.85])[1] == [8]
    assert run([1, 0.95] * 4 + [0.85])[1] == []
    assert run([1, 0.95] * 4 + [0.5])[1] == [8]


def test_thresholds_are_nats_without_a_reference():
    # 3 % of one nat, where 3 % of two would be within noise.
    assert run([1, 0.95], reference=None, noise=0.01)[1] == [1]
    assert run([1, 0.95], reference=2.0)[1] == []


def test_of_a_larger_reference_a_fall_is_a_larger_share():
    assert run([1, 0.89], reference=4.0)[1] == []
    assert run([1, 0.87], reference=4.0)[1] == [1]


def test_noise_around_nothing_neither_begins_nor_ends_learning():
    # A classifier of two classes that learns nothing yet, at a rate that is too low.
    reference, noise = float(np.log(2)), [-0.018, -0.022, -0.001, 0.019, -0.026, -0.003]
    rates, back = run(noise, lr_min=1e-4, reference=reference, start=-0.022)
    assert rates == pytest.approx([0.1 * 2 ** (i + 2) for i in range(6)])
    assert back == []
    _, back = run(noise, lr_min=1e-4, reference=reference, start=-0.022, noise=0.0)
    assert back == [4]
    # What was learned, and lost, is told from it.
    assert run([0.1, 0.2, 0.13], reference=reference)[1] == [2]


def test_its_options_are_those_of_the_table():
    options = {"fall": 0.5, "rise": 0.1, "decay": 0.1, "patience": 1, "reset": 1}
    rates, back = run(
        [2, 1.1, 0.4, 2.1, 2.4, 2.4, 2.4, 2.4], 1e-4, **options, factor=10
    )
    assert rates == [10, 100, 5, 0.5, 5, 0.5, 0.1, 0.1]
    assert back == [2]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("factor", 0.5),
        ("fall", -0.1),
        ("rise", np.nan),
        ("decay", 1.5),
        ("decay", -0.5),
        ("patience", 0),
        ("reset", 0),
        ("noise", -0.1),
    ],
)
def test_bad_options_are_refused_with_their_name(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be "):
        optax_mi.warmup_stable_decay_policy(**{argument: value})
