import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

KEY = jax.random.key(0)


def test_it_pairs_inputs_with_their_outcomes_and_repeats_none():
    x, y = np.arange(100.0), np.arange(100)
    probe = optax_mi.sample_probe(KEY, x, y, size=40)
    np.testing.assert_array_equal(probe.inputs, probe.outcomes)
    assert len(set(probe.outcomes.tolist())) == 40


def test_the_same_key_gives_the_same_probe_from_numpy_and_jax_arrays_and_under_jit():
    x, y = np.random.default_rng(0).normal(size=(50, 4, 4, 1)), np.arange(50) % 3
    probe = optax_mi.sample_probe(KEY, x, y, size=20)
    for other in (
        optax_mi.sample_probe(KEY, jnp.asarray(x), jnp.asarray(y), size=20),
        jax.jit(lambda key, x, y: optax_mi.sample_probe(key, x, y, 20))(KEY, x, y),
        jax.jit(lambda key: optax_mi.sample_probe(key, x, y, 20))(KEY),
    ):
        jax.tree.map(np.testing.assert_array_equal, probe, other)
    different = optax_mi.sample_probe(jax.random.key(1), x, y, size=20)
    assert not np.array_equal(probe.inputs, different.inputs)


def test_inputs_may_be_a_pytree_and_outcomes_continuous():
    x = {"tokens": np.arange(30).reshape(10, 3), "mask": np.ones((10, 3), bool)}
    probe = optax_mi.sample_probe(KEY, x, np.linspace(0, 1, 20).reshape(10, 2), size=5)
    assert jax.tree.map(jnp.shape, probe) == (
        {"tokens": (5, 3), "mask": (5, 3)},
        (5, 2),
    )


def test_memory_mapped_inputs_are_read_at_the_probe_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(60.0).reshape(20, 3))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    probe = optax_mi.sample_probe(KEY, x, np.arange(20), size=5)
    np.testing.assert_array_equal(probe.inputs, np.asarray(x)[probe.outcomes])


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        (np.zeros((5, 2)), np.zeros(4), 2, "`x` must be as long as `y`, 4 .* got 5"),
        (np.zeros((5, 2)), np.zeros(5), 6, "`size` must be at most .* 5, got 6"),
        (np.zeros((5, 2)), np.zeros(5), 0, "`size` must be an integer >= 1, got 0"),
        (np.zeros((5, 2)), np.zeros(5), 2.0, "`size` must be an integer >= 1"),
        (np.float32(1), np.zeros(5), 2, "`x` must be an array of examples"),
        (np.zeros((5, 2)), np.eye(5), 5, "`y` must be integer class labels .*argmax"),
    ],
)
def test_bad_input_is_refused_with_its_name(x, y, size, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.sample_probe(KEY, x, y, size=size)
