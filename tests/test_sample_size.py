import jax
import numpy as np
import pytest

import optax_mi


@pytest.fixture(scope="module")
def data():
    y = np.arange(1000) % 2
    return np.random.default_rng(0).normal(size=(1000, 2)) + y[:, None], y


def test_it_repeats_the_estimate_on_samples_of_each_size(data):
    seen = []

    def progress(samples):
        seen.extend(samples)
        return samples

    curve = optax_mi.sample_size_curve(
        jax.random.key(0), data[0], data[1], (40, 400), 6, progress=progress
    )
    assert len(seen) == 12
    assert curve.estimates.shape == (2, 6)
    assert len(set(curve.estimates.ravel())) == 12
    np.testing.assert_allclose(curve.mean, curve.estimates.mean(axis=1))
    np.testing.assert_allclose(curve.std, np.std(curve.estimates, axis=1, ddof=1))
    assert curve.std[1] < curve.std[0]
    assert curve.mean[1] == pytest.approx(
        float(optax_mi.ksg_discrete(*data)), abs=4 * curve.std[1]
    )


def test_the_key_decides_and_another_estimator_may_be_used(data):
    def plug_in(x, y):
        return optax_mi.plug_in_mi((x[:, 0] > 0.5).astype(int), y)

    def curve(seed):
        key = jax.random.key(seed)
        return optax_mi.sample_size_curve(
            key, data[0], data[1], (100,), 2, estimator=plug_in
        )

    np.testing.assert_array_equal(curve(0).estimates, curve(0).estimates)
    assert not np.array_equal(curve(0).estimates, curve(1).estimates)


@pytest.mark.parametrize(
    ("sizes", "repeats", "message"),
    [
        ((), 3, "`sizes` must be at least one sample size"),
        ((100, 1001), 3, "`sizes` must be at most the number of examples, 1000, got"),
        ((0.5,), 3, "`sizes` must be an integer >= 1, got 0.5"),
        ((100,), 0, "`repeats` must be an integer >= 1, got 0"),
    ],
)
def test_bad_input_is_refused_with_its_name(data, sizes, repeats, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.sample_size_curve(jax.random.key(0), data[0], data[1], sizes, repeats)


def test_only_the_samples_of_an_array_on_disk_are_read(data, tmp_path, monkeypatch):
    x, y = data
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    read, take = [], np.memmap.__getitem__

    def seen(self, index):
        read.append(np.shape(index))
        return take(self, index)

    monkeypatch.setattr(np.memmap, "__getitem__", seen)
    found = optax_mi.sample_size_curve(jax.random.key(0), mapped, y, (40,), 2)
    assert read[:2] == [(40,), (40,)]
    assert max(shape for shape in read if shape) == (40,)
    expected = optax_mi.sample_size_curve(jax.random.key(0), x, y, (40,), 2)
    np.testing.assert_allclose(found.estimates, expected.estimates, atol=1e-6)
