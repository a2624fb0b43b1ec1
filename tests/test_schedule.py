"""When to measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi


def steps(last, *arguments, **options):
    due = optax_mi.measurement_steps(*arguments, **options)
    return [step for step in range(last) if due(step)]


def test_ten_times_an_epoch_at_first_and_once_later():
    assert steps(501, 100) == [*range(0, 200, 10), 200, 300, 400, 500]


@pytest.mark.parametrize("length", [1, 3, 7, 10, 11, 77, 999])
def test_parts_are_as_even_as_they_can_be(length):
    found = steps(3 * length + 1, length)
    dense = [step for step in found if step < 2 * length]
    assert len(dense) == 2 * min(10, length)
    assert set(np.diff(dense)) <= {length // 10 or 1, -(-length // 10)}
    assert found[len(dense) :] == [2 * length, 3 * length]


def test_it_may_be_asked_in_compiled_code_and_of_many_steps_at_once():
    due = jax.jit(optax_mi.measurement_steps(12, dense_epochs=1, per_epoch=5))
    found = np.flatnonzero(due(jnp.arange(40))).tolist()
    assert found == steps(40, 12, dense_epochs=1, per_epoch=5)
    assert found == [0, 3, 5, 8, 10, 12, 24, 36]


def test_once_an_epoch_throughout():
    assert steps(30, 10, dense_epochs=0) == [0, 10, 20]


@pytest.mark.parametrize(
    "bad", [{"steps_per_epoch": 0}, {"per_epoch": 0}, {"dense_epochs": -1}]
)
def test_bad_numbers_are_refused_with_their_name(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}` must be "):
        optax_mi.measurement_steps(**{"steps_per_epoch": 10, **bad})
