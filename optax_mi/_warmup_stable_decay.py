"""A policy whose bounds need no tuning: warm-up, stable, decay, led by information."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, ScalarLike

from optax_mi import _checks
from optax_mi._policies import PolicyAnswer, PolicyInput, PolicyWithMemory
from optax_mi._state import MISSING, UNBOUNDED, scalar


class WarmupStableDecayMemory(NamedTuple):
    """The memory of `warmup_stable_decay_policy`; nats are -3.4e38 before the first."""

    warming_up: Bool[Array, ""]  #: whether the rate still rises
    start: Float[Array, ""]  #: the whole network's information at the start
    best: Float[Array, ""]  #: its maximum so far, less `fall` R for each fall
    reached: Float[Array, ""]  #: its own information at the last rise
    network_reached: Float[Array, ""]  #: the whole network's at the last rise
    last: Float[Array, ""]  #: the whole network's at the last measurement
    noise: Float[Array, ""]  #: the mean of its drops, falls excluded
    rises: Int32[Array, ""]  #: of its own information, since the rate last changed
    misses: Int32[Array, ""]  #: measurements in a row without any rise
    ceiling: Float[Array, ""]  #: the rate rises to at most half of this; 3.4e38: none
    at_minimum: Int32[Array, ""]  #: measurements at `lr_min` without a rise


def warmup_stable_decay_policy(
    factor: ScalarLike = 2.0,
    *,
    fall: ScalarLike = 0.03,
    rise: ScalarLike = 0.003,
    decay: ScalarLike = 0.5,
    patience: ScalarLike = 3,
    reset: ScalarLike = 10,
    noise: ScalarLike = 0.02,
) -> PolicyWithMemory:
    r"""Doubles the rate until information falls, goes back, and cools as it saturates.

    The steps are factors, so the bounds may be five decades apart and need no tuning:
    take an `lr_min` that is surely safe and an `lr_max` that is surely too high. The
    shape is the known warm-up, stable, decay, but the information ends each stage, not
    a number of steps. Measure on a held-out probe: before the first step, then about
    ten times an epoch during the first two epochs, then once an epoch
    (`measurement_steps`).

    With :math:`I` the measurement, :math:`B` the best so far, :math:`R` the reference
    (1 nat if none was given) and :math:`F` the size of a fall:

    ======== =============================== =========================================
    stage    when a measurement arrives      what follows
    ======== =============================== =========================================
    any      :math:`I > B`                   these parameters are kept
    warm-up  :math:`I \ge B - F`             :math:`LR \cdot factor`
    warm-up  the same, at lr_max             :math:`LR / (2\,factor)`; stable
    warm-up  :math:`I < B - F`, or training  :math:`LR / (2\,factor)`, back to the
             diverges                        parameters kept; stable
    stable   :math:`I < B - F`, or training  :math:`LR / 2`, back to the parameters
             diverges                        kept; the ceiling is the rate before
    stable   `patience` rises                :math:`LR \cdot factor`, if at most half
                                             of the ceiling; otherwise the ceiling
                                             times factor
    stable   no rise, `patience` times in a  :math:`LR \cdot decay`, and if
             row                             :math:`I < B - rise\,R` back to those kept
    stable   no rise, `reset` times in a     warm-up again
             row, at lr_min
    ======== =============================== =========================================

    A rise is one by :math:`rise\,R` above the last that counted; rises are counted
    since the rate last changed. A fall must exceed a share of the reference, the noise
    of a measurement, and the usual drops:

    .. math:: F = \max(fall\,R,\; 3\,noise,\; 8\,N), \qquad N \leftarrow 0.8\,N
        + 0.2\,\max(0, I_{last} - I)

    :math:`N` is the mean drop from one measurement to the next. If measurements differ
    by noise alone, it is 0.56 of their standard deviation. Each fall lowers :math:`B`
    by :math:`fall\,R`, as the best of many noisy measurements is too high.

    Even an untrained network has information, as random features do, and the first
    steps can lose some of it: an output of the wrong sign loses all before it gains. So
    there is a milder rule until the information has risen above the first measurement
    by the larger of :math:`fall\,R` and :math:`3\,noise`. Until then the warm-up ends
    only if it falls by ten times as much and by half of :math:`B`, if training
    diverges, or at `lr_max`, which then counts as a fall.

    The edge of stability lies between the last rate without a fall and the next one,
    and comes nearer as training goes on. So the warm-up ends at half of the former,
    which with a factor of 2 is a quarter of the largest rate tried. At `lr_max` without
    a fall it ends likewise, as the fall may come later than the measurement. The
    ceiling rises with the information, as one unlucky batch can cause a fall. After
    `track_value_only` (a larger batch, for example) the warm-up begins again from the
    current rate.

    Under `layerwise_mi_dynamic_lr` a fall is one of the whole network's information. A
    layer's rate rises with the rises of its own information. It cools only if neither
    that nor the whole network's rises: a wide layer has nearly all information from the
    start, and by its own alone it would cool at once.

    With ``mi_dynamic_lr(..., init_lr=lr_max)`` there is no warm-up, and what remains is
    a reduction on plateaus, as ``optax.contrib.reduce_on_plateau``.

    Args:
      factor: The warm-up multiplies the rate by it at each measurement.
      fall: A fall must be at least this share of the reference. It ends the warm-up,
        and leads back to the kept parameters in each stage.
      rise: A rise must be this share of the reference.
      decay: The rate is multiplied by it when the information has not risen.
      patience: The rate is raised after so many measurements with a rise, and lowered
        after so many in a row without one.
      reset: The warm-up begins again after so many measurements at `lr_min` without a
        rise.
      noise: The standard deviation of a measurement when nothing was learned, in nats:
        0.02 for 1000 examples, 0.04 for 300. It matters if the reference is below
        ``3 * noise / fall``, 2 nats by default, as with two classes.

    Returns:
      A policy with a memory; the transformation holds a copy of the parameters for it.
      It needs no reference, but with one its thresholds suit the task.

    Raises:
      ValueError: If factor is below 1, fall, rise or noise is negative, decay is not
        within 0 and 1, or patience or reset is below 1.

    Example:
      >>> import jax.numpy as jnp, optax, optax_mi
      >>> policy = optax_mi.warmup_stable_decay_policy()
      >>> tx = optax.chain(optax.sgd(1.0), optax_mi.mi_dynamic_lr(
      ...     1e-4, 3.0, policy=policy, reference=2.3))
      >>> params = jnp.ones(3)
      >>> state = tx.init(params)
      >>> for mi in (0.0, 0.2, 0.7, 0.1):  # it falls by more than 3 %
      ...     updates, state = tx.update(params, state, params, mi=mi)
      ...     print(f"{optax_mi.learning_rates(state)['']:.4f}")
      0.0002
      0.0004
      0.0008
      0.0002

    References:
      Hu et al., `MiniCPM <https://arxiv.org/abs/2404.06395>`_, 2024, for the shape;
      Vasudevan, `Dynamic learning rate using Mutual Information
      <https://arxiv.org/abs/1805.07249>`_, 2018, for the measure.
    """
    _checks.within("factor", factor, 1)
    _checks.within("fall", fall, 0)
    _checks.within("rise", rise, 0)
    _checks.within("decay", decay, 0, 1)
    _checks.within("patience", patience, 1)
    _checks.within("reset", reset, 1)

    _checks.within("noise", noise, 0)
    options = _Options(factor, fall, rise, decay, patience, reset, noise)
    return PolicyWithMemory(_init, partial(_update, options))


# A drop by so many times the mean drop is more than noise. The difference of two
# measurements is normal, with a mean drop of 0.4 of its standard deviations: this is
# three of them.
_BEYOND_NOISE = 8.0
# So many standard deviations of a measurement are neither a rise nor a fall.
_DEVIATIONS = 3.0
_MEMORY_OF_NOISE = 0.8  # of a measurement's drop, at the next one


class _Options(NamedTuple):
    factor: ScalarLike
    fall: ScalarLike
    rise: ScalarLike
    decay: ScalarLike
    patience: ScalarLike
    reset: ScalarLike
    noise: ScalarLike


class _Event(NamedTuple):
    """What a measurement shows."""

    network: Float[Array, ""]  # the whole network's information
    scale: Float[Array, ""]  # what thresholds are shares of
    start: Float[Array, ""]
    warming_up: Bool[Array, ""]
    fell: Bool[Array, ""]
    ends_at_maximum: Bool[Array, ""]  # the warm-up, with no fall
    rose: Bool[Array, ""]  # its own or the whole network's information
    own_rose: Bool[Array, ""]


def _init() -> WarmupStableDecayMemory:
    return WarmupStableDecayMemory(
        warming_up=jnp.array(True),
        start=scalar(MISSING),
        best=scalar(MISSING),
        reached=scalar(MISSING),
        network_reached=scalar(MISSING),
        last=scalar(MISSING),
        noise=scalar(0.0),
        rises=jnp.zeros((), jnp.int32),
        misses=jnp.zeros((), jnp.int32),
        ceiling=scalar(UNBOUNDED),
        at_minimum=jnp.zeros((), jnp.int32),
    )


def _event(o: _Options, p: PolicyInput, memory: WarmupStableDecayMemory) -> _Event:
    network = p.mi if p.network_mi is None else p.network_mi
    given = (p.reference > 0) & (p.reference < UNBOUNDED)
    scale = jnp.where(given, p.reference, 1)
    warming_up = memory.warming_up | p.value_only
    begun = memory.start > MISSING
    start = jnp.where(begun, memory.start, network)
    least = jnp.maximum(o.fall * scale, _DEVIATIONS * o.noise)
    without_effect = warming_up & begun & (memory.best <= start + least)
    fall = jnp.maximum(least, _BEYOND_NOISE * memory.noise)
    large = jnp.maximum(10 * least, memory.best / 2)
    tolerated = jnp.where(without_effect, jnp.maximum(large, fall), fall)
    at_maximum = p.learning_rate >= p.lr_max
    fell = (
        p.diverged | (network < memory.best - tolerated) | (without_effect & at_maximum)
    )
    # Not if it begins there, as with ``init_lr=lr_max``.
    ends_at_maximum = memory.warming_up & begun & at_maximum & ~fell
    own_rose = ~fell & (p.mi > memory.reached + o.rise * scale)
    network_rose = ~fell & (network > memory.network_reached + o.rise * scale)
    rose = own_rose | network_rose
    return _Event(
        network, scale, start, warming_up, fell, ends_at_maximum, rose, own_rose
    )


def _update(
    o: _Options, p: PolicyInput, memory: WarmupStableDecayMemory
) -> tuple[PolicyAnswer, WarmupStableDecayMemory]:
    event = _event(o, p, memory)
    network, scale, start, warming_up, fell, ends_at_maximum, rose, own_rose = event
    stable = ~warming_up & ~fell

    rises = jnp.where(stable, memory.rises + own_rose.astype(jnp.int32), 0)
    misses = jnp.where(stable & ~rose, memory.misses + 1, 0)
    ceiling = jnp.where(warming_up, UNBOUNDED, memory.ceiling)
    steady = rises >= o.patience
    climbs = steady & (p.learning_rate * o.factor <= ceiling / 2)
    lifts = steady & ~climbs  # the ceiling
    cools = misses >= o.patience
    in_stable = jnp.where(climbs, o.factor, jnp.where(cools, o.decay, 1.0))
    change = jnp.where(
        warming_up,
        jnp.where(fell | ends_at_maximum, 0.5 / o.factor, o.factor),
        jnp.where(fell, 0.5, in_stable),
    )
    waits = stable & ~rose & (p.learning_rate <= p.lr_min)
    at_minimum = jnp.where(waits, memory.at_minimum + 1, 0)
    begins_again = at_minimum >= o.reset
    keep = ~fell & (network > memory.best)
    go_back = fell | (cools & (network < memory.best - o.rise * scale))
    # The best of many noisy measurements is too high.
    lowered = memory.best - jnp.where(p.diverged | ~fell, 0, o.fall * scale)
    drop = jnp.maximum(memory.last - network, 0)
    drops = _MEMORY_OF_NOISE * memory.noise + (1 - _MEMORY_OF_NOISE) * drop
    unlike = fell | (memory.last <= MISSING)

    def last_rise(before: Float[Array, ""], now: Float[Array, ""]) -> Any:
        highest = jnp.where(fell, before, jnp.maximum(before, now))
        return jnp.where(warming_up, highest, jnp.where(rose, now, before))

    lifted = o.factor * jnp.minimum(ceiling, UNBOUNDED / o.factor)
    ceiling = jnp.where(lifts, lifted, ceiling)
    changed = climbs | lifts | cools
    return PolicyAnswer(p.learning_rate * change, keep, go_back), (
        WarmupStableDecayMemory(
            warming_up=(warming_up & ~fell & (p.learning_rate < p.lr_max))
            | begins_again,
            start=jnp.where(p.diverged, memory.start, start),
            best=jnp.where(keep, network, lowered),
            reached=last_rise(memory.reached, p.mi),
            network_reached=last_rise(memory.network_reached, network),
            last=jnp.where(fell, memory.best, network),
            noise=jnp.where(unlike, memory.noise, drops),
            rises=jnp.where(changed, 0, rises),
            misses=jnp.where(changed, 0, misses),
            ceiling=jnp.where(fell, p.learning_rate, ceiling),
            at_minimum=jnp.where(begins_again, 0, at_minimum),
        )
    )
