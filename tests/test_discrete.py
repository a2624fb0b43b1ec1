import numpy as np
import pytest
import twins

import optax_mi


@pytest.mark.parametrize("miller_madow", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 7, 400])
def test_it_equals_the_twin(classes, miller_madow):
    rng = np.random.default_rng(0)
    x = rng.integers(0, classes, 500)
    y = (x + rng.integers(0, 3, 500)) % 5 - 100
    np.testing.assert_allclose(
        optax_mi.plug_in_mi(x, y, miller_madow=miller_madow),
        twins.plug_in_mi(x, y, miller_madow),
        atol=1e-5,
    )


def test_a_variable_tells_all_of_itself():
    x = np.random.default_rng(0).integers(0, 9, 1000)
    np.testing.assert_allclose(
        optax_mi.plug_in_mi(x, x), optax_mi.label_entropy(x), rtol=1e-5
    )


def test_the_correction_takes_the_bias_away():
    plain, corrected = [], []
    for seed in range(50):
        x, y = np.random.default_rng(seed).integers(0, 6, (2, 300))
        plain.append(optax_mi.plug_in_mi(x, y))
        corrected.append(optax_mi.plug_in_mi(x, y, miller_madow=True))
    error = np.std(corrected) / np.sqrt(50)
    assert np.mean(plain) == pytest.approx(25 / 600, abs=4 * error)
    assert abs(np.mean(corrected)) < 4 * error + 0.003


def test_a_hundred_thousand_samples_do_not_overflow():
    x = np.random.default_rng(0).integers(0, 2, 100_000)
    np.testing.assert_allclose(optax_mi.plug_in_mi(x, 1 - x), np.log(2), atol=1e-4)


def test_bad_input_is_refused_with_its_name():
    with pytest.raises(ValueError, match="`y` must be integer class labels"):
        optax_mi.plug_in_mi(np.zeros(5, int), np.zeros(5))
    with pytest.raises(ValueError, match="`y` must be as long as `x`"):
        optax_mi.plug_in_mi(np.zeros(5, int), np.zeros(6, int))
