import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_mi

KEY = jax.random.key(0)


def test_it_pairs_inputs_with_their_outcomes_and_repeats_none():
    x, y = np.arange(100.0), np.arange(100.0)
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


def test_a_stratified_probe_has_as_many_of_each_class_as_there_are():
    labels = np.repeat([3, 7, 7, 5, 5, 5], [4, 30, 30, 100, 100, 100])
    x = np.arange(len(labels))
    probe = optax_mi.sample_probe(KEY, x, labels, 45, stratify=True)
    index = np.asarray(probe.inputs)
    assert len({*index.tolist()}) == 45
    np.testing.assert_array_equal(probe.outcomes, labels[index])
    counts = dict(zip(*np.unique(probe.outcomes, return_counts=True), strict=True))
    assert counts[3] == 4
    assert {counts[5], counts[7]} == {20, 21}
    compiled = jax.jit(
        lambda key, y: optax_mi.sample_probe(key, x, y, 45, stratify=True)
    )
    jax.tree.map(np.testing.assert_array_equal, compiled(KEY, labels), probe)


def test_a_stratified_probe_draws_each_example_of_a_class_as_often():
    labels, counts = np.repeat([0, 1], [12, 40]), np.zeros(52)
    for key in jax.random.split(KEY, 200):
        probe = optax_mi.sample_probe(
            key, np.arange(52), labels, size=15, stratify=True
        )
        counts[probe.inputs] += 1
    # 7.5 of 12 and of 40; five standard deviations
    assert (abs(counts[:12] / 200 - 7.5 / 12) < 0.18).all()
    assert (abs(counts[12:] / 200 - 7.5 / 40) < 0.14).all()


@pytest.mark.parametrize("y", [np.linspace(0, 1, 50), np.zeros((50, 2), int)])
def test_what_is_not_one_class_an_example_cannot_be_stratified(y):
    with pytest.raises(ValueError, match="`y` must be"):
        optax_mi.sample_probe(KEY, np.zeros(50), y, 5, stratify=True)


def test_labels_held_as_floats_are_told_of():
    x, y = np.zeros((300, 2)), np.arange(300) % 10
    with pytest.warns(UserWarning, match=r"only the values 0, 1, 2, 3, 4, \.\.\.\. .*"):
        optax_mi.sample_probe(KEY, x, y.astype(float), 200)
    optax_mi.sample_probe(KEY, x, np.round(100 * np.sin(y + x[:, 0])) + y**3, 50)
