"""The policy with a memory on generated sequences of events, beside a slow twin."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from generated import generated
from hypothesis import strategies as st

import optax_mi

LOW, HIGH, REFERENCE = 0.001, 0.1, 1.5
LEAST = 0.06  # three standard deviations of noise; of the reference it is 4 %
FALL, RISE, PATIENCE, RESET = 0.03, 0.003, 3, 10
PARAMS = {"w": jnp.array([0.3, -1e-9], jnp.float32)}
GRADIENTS = {"w": jnp.array([0.5, 0.25], jnp.float32)}


NOTHING = -math.inf


class Twin:
    """`warmup_stable_decay_policy` within `mi_dynamic_lr`, in Python's numbers.

    Parameters are numbered, not computed: by the update that made them.
    """

    def __init__(self):
        self.rate, self.warming_up = LOW, True
        self.start = self.best = self.reached = NOTHING
        self.rises = self.misses = self.at_minimum = self.value_only = 0
        self.pending, self.doubtful, self.ceiling = math.nan, False, math.inf
        self.last, self.noise = NOTHING, 0.0

    def less(self, a, b):
        """Whether a < b; float32 may not agree where they are close."""
        self.doubtful |= math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5)
        return a < b

    def measure(self, mi: float, diverged: bool = False):
        """What follows from a measurement: whether to keep, and whether to go back."""
        if math.isnan(mi) and not diverged:
            return False, False
        begun = self.start > NOTHING
        if not begun and not diverged:
            self.start = mi
        warming_up = self.warming_up or self.value_only > 0
        self.value_only = max(self.value_only - (not math.isnan(mi)), 0)
        if diverged or (begun and self.fell(mi, warming_up)):
            self.fall(diverged, warming_up)
            return False, True
        if self.last > NOTHING:
            self.noise = 0.8 * self.noise + 0.2 * max(self.last - mi, 0)
        self.last = mi
        keep = self.best == NOTHING or mi > self.best
        rose = self.reached == NOTHING or self.less(self.reached + RISE * REFERENCE, mi)
        go_back = False
        if warming_up:
            self.warm_up(mi, begun)
        else:
            go_back = self.stable(mi, rose)
        self.best = mi if keep else self.best
        self.clip()
        return keep, go_back

    def fell(self, mi, warming_up):
        """Whether a measurement is a fall."""
        fall = max(LEAST, 8 * self.noise)
        learned = self.less(self.start + LEAST, self.best)
        if warming_up and not learned:
            fall = max(fall, 10 * LEAST, self.best / 2)
            if self.rate >= HIGH:
                return True
        return self.less(mi, self.best - fall)

    def fall(self, diverged, warming_up):
        """What follows from a fall."""
        self.last = self.best
        if not diverged:
            self.best -= FALL * REFERENCE
        self.ceiling = self.rate
        self.rate *= 0.25 if warming_up else 0.5
        self.warming_up, self.rises, self.misses, self.at_minimum = False, 0, 0, 0
        self.clip()

    def warm_up(self, mi, begun):
        """What follows from a measurement of the warm-up that is no fall."""
        self.reached = mi if self.reached == NOTHING else max(self.reached, mi)
        self.ceiling = math.inf
        too_high = self.warming_up and begun and self.rate >= HIGH
        self.rises = self.misses = self.at_minimum = 0
        self.warming_up = self.rate < HIGH
        self.rate *= 0.25 if too_high else 2

    def stable(self, mi, rose):
        """What follows from any other; whether to go back."""
        self.reached = mi if rose else self.reached
        self.rises += rose
        self.misses = 0 if rose else self.misses + 1
        at_minimum = not rose and self.rate <= LOW
        self.at_minimum = self.at_minimum + 1 if at_minimum else 0
        go_back = False
        if self.rises >= PATIENCE:
            self.rises = self.misses = 0
            if self.less(self.ceiling * 1.001, 4 * self.rate):
                self.ceiling *= 2
            else:
                self.rate *= 2
        elif self.misses >= PATIENCE:
            self.rises, self.misses, self.rate = 0, 0, self.rate / 2
            go_back = self.less(mi, self.best - RISE * REFERENCE)
        if self.at_minimum >= RESET:
            self.at_minimum, self.warming_up = 0, True
        return go_back

    def clip(self):
        self.rate = min(max(self.rate, LOW), HIGH)


NATS = st.floats(-0.5, 3, width=32) | st.sampled_from([1.0, 1.5, 2.0, 2.01])
EVENTS = st.one_of(
    st.tuples(st.just("update"), NATS),
    st.tuples(st.just("record"), NATS | st.just(math.nan)),
    st.tuples(st.just("loss"), st.sampled_from([1.0, math.nan, math.inf])),
    st.tuples(st.just("value only"), st.integers(0, 3)),
)
TX = optax.chain(
    optax.sgd(1.0),
    optax_mi.mi_dynamic_lr(
        LOW,
        HIGH,
        policy=optax_mi.warmup_stable_decay_policy(),
        reference=REFERENCE,
    ),
)


@jax.jit
def step(params, state, mi, loss):
    updates, state = TX.update(GRADIENTS, state, params, mi=mi, value=loss)
    return optax.apply_updates(params, updates), state


@generated(60, 2500, events=st.lists(EVENTS, min_size=1, max_size=40))
def test_whatever_happens_rate_and_parameters_are_those_of_the_twin(events):
    twin, params, state = Twin(), PARAMS, TX.init(PARAMS)
    dtypes, kept = jax.tree.map(jnp.result_type, state), PARAMS
    for what, value in events:
        if what == "record":
            state = optax_mi.record_mi(state, value)
            twin.pending = value if math.isfinite(value) else twin.pending
            continue
        if what == "value only":
            state = optax_mi.track_value_only(state, value)
            twin.value_only = value
            continue
        mi, loss = (value, 1.0) if what == "update" else (math.nan, value)
        keep, back = twin.measure(twin.pending, not math.isfinite(loss))
        twin.pending = math.nan
        if what == "update":
            again = twin.measure(mi)
            keep, back = keep or again[0], back or again[1]
        kept = params if keep and not back else kept
        params, state = step(params, state, mi, loss)
        if twin.doubtful:
            return
        assert float(optax_mi.learning_rates(state)[""]) == pytest.approx(twin.rate)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
        assert jax.tree.map(jnp.result_type, state) == dtypes
        if back:
            for _ in range(3):  # to the last bit, in a few updates
                if (params["w"] != kept["w"]).any():
                    params, state = step(params, state, math.nan, 1.0)
            np.testing.assert_array_equal(params["w"], kept["w"])
        np.testing.assert_array_equal(optax.tree.get(state, "kept")["w"], kept["w"])
