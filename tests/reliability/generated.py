"""Generated cases: some hundreds in `make test`, thousands in `make soak`."""

import functools
import os
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

SOAK = "OPTAX_MI_SOAK" in os.environ
CASES: Counter[str] = Counter()


def generated(few, many, **strategies):
    """Runs a test on so many cases, the same in every run, and counts them."""

    def decorate(test):
        @settings(max_examples=many if SOAK else few, deadline=None, derandomize=True)
        @given(**strategies)
        @functools.wraps(test)
        def counted(*args, **kwargs):
            CASES["generated cases"] += 1
            test(*args, **kwargs)

        return counted

    return decorate


@st.composite
def points(draw, n, d):
    """Points as float32: Gaussian or on a grid, some repeated, at any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(n, d))
    if draw(st.booleans()):
        x = np.round(x * draw(st.sampled_from([1, 3])))
    if draw(st.booleans()):
        x[rng.integers(0, n, n // 3)] = x[rng.integers(0, n)]
    # Powers of two, so that the grid's ties stay ties in float64 as well.
    return (x * 2.0 ** draw(st.integers(-30, 30))).astype(np.float32)


@st.composite
def class_labels(draw, n):
    """Up to five classes of any sizes."""
    sizes = draw(st.lists(st.integers(1, n), min_size=1, max_size=4))
    labels = np.repeat(np.arange(len(sizes)), sizes)[:n] * 7 - 3
    return np.concatenate([labels, np.full(n - len(labels), 100)])
