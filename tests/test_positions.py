"""Positions of sequences and images as the points of an estimate."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import optax_mi

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 5, (23, 7))
MASK = np.arange(7) < RNG.integers(1, 8, 23)[:, None]
IMAGES = RNG.normal(size=(23, 8, 12, 2)).astype(np.float32)
PIXELS = RNG.integers(0, 3, (23, 8, 12))


class Tagger(nn.Module):
    pooled: int = 7

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(5, 6, name="embed")(tokens)
        pooled = nn.Dense(self.pooled, name="pooled")(x.mean(1))
        x = nn.Dense(4, name="hidden")(x) + pooled[:, :4][:, None]
        return nn.Dense(5, name="tags")(x)


class Pixels(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), name="fine")(x)
        low = nn.Conv(5, (3, 3), strides=(2, 2), name="coarse")(x)
        odd = nn.Conv(5, (3, 3), strides=(2, 1), name="odd")(x)
        x = jax.image.resize(low, (len(x), 8, 12, 5), "nearest") + odd[:, :1, :1]
        return nn.Conv(3, (1, 1), name="classes")(x)


def captured(model, x, **options):
    variables = model.init(KEY, x[:2])
    return optax_mi.capture_activations(model, variables, x, **options)


def test_each_position_is_drawn_once_and_none_is_padding():
    found = optax_mi.sample_positions(KEY, TOKENS, MASK.sum(), mask=MASK)
    example, place = np.asarray(found.index).T
    assert len({*zip(example.tolist(), place.tolist(), strict=True)}) == MASK.sum()
    assert MASK[example, place].all()
    np.testing.assert_array_equal(found.outcomes, TOKENS[example, place])
    assert found.grid == (7,)


def test_all_positions_are_as_likely():
    mask = np.array([[True, True, False], [True, False, False]])
    counts = np.zeros((2, 3))
    for key in jax.random.split(KEY, 300):
        (index,) = optax_mi.sample_positions(key, mask.astype(int), 1, mask=mask).index
        counts[tuple(index)] += 1
    assert counts[~mask].sum() == 0
    assert (abs(counts[mask] - 100) < 35).all()


@pytest.mark.parametrize("batch_size", [None, 1, 10, 23])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_rows_are_those_of_the_layers_at_the_positions(batch_size, place):
    positions = optax_mi.sample_positions(KEY, TOKENS, 40, mask=MASK)
    whole = captured(Tagger(), place(TOKENS))
    found = captured(
        Tagger(), place(TOKENS), positions=positions, batch_size=batch_size
    )
    # One vector for the sequence, of as many features as it has positions, is not it.
    assert [*found] == ["embed", "hidden", "tags", ""]
    example, at = np.asarray(positions.index).T
    for name, rows in found.items():
        expected = np.asarray(whole[name])[example, at]
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [None, 10])
def test_a_coarser_layer_of_an_image_has_the_cell_that_holds_the_pixel(batch_size):
    positions = optax_mi.sample_positions(KEY, PIXELS, 50)
    whole = captured(Pixels(), IMAGES)
    found = captured(Pixels(), IMAGES, positions=positions, batch_size=batch_size)
    assert [*found] == ["fine", "coarse", "classes", ""]
    example, row, column = np.asarray(positions.index).T
    for name, scale in (("fine", 1), ("coarse", 2), ("", 1)):
        expected = np.asarray(whole[name])[example, row // scale, column // scale]
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


def test_it_works_with_nnx_within_jit_and_with_projection():
    positions = optax_mi.sample_positions(KEY, TOKENS, 40, mask=MASK)
    model = nnx.Sequential(nnx.Embed(5, 30, rngs=nnx.Rngs(0)))

    @jax.jit
    def measure(positions):
        layers = optax_mi.capture_activations(
            model, None, jnp.asarray(TOKENS), positions=positions, max_features=8
        )
        return layers, optax_mi.estimate_mi(layers, positions.outcomes)

    layers, mi = measure(positions)
    assert layers[""].shape == (40, 8)
    classes = optax_mi.label_entropy(positions.outcomes)
    assert abs(mi[""] - classes) < 0.2  # an embedding is the token


def test_a_layer_without_positions_is_refused_where_it_was_asked_for():
    positions = optax_mi.sample_positions(KEY, TOKENS, 40)
    with pytest.raises(ValueError, match=r"'pooled'.*23 x \(7,\).*shape \(23, 8\)"):
        captured(Tagger(8), TOKENS, positions=positions, layers="pooled")


def test_one_number_for_each_position_is_returned_where_it_was_asked_for():
    class Scores(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            return nn.Embed(5, 1)(tokens)[..., 0]

    positions = optax_mi.sample_positions(KEY, TOKENS, 40)
    assert "" not in captured(Scores(), TOKENS, positions=positions)
    assert captured(Scores(), TOKENS, positions=positions, layers="")[""].shape == (40,)


@pytest.mark.parametrize(
    ("outcomes", "options", "message"),
    [
        (TOKENS[:, 0], {}, "`outcomes` must be with an axis of positions"),
        (TOKENS, {"mask": MASK[0]}, "`mask` must be with an axis of positions"),
        (TOKENS, {"mask": MASK[:, :3]}, r"`mask` must be as the first .*, \(23, 7\)"),
        (TOKENS, {"mask": 0 * MASK}, "`size` must be at most .* 0, got 10"),
        (TOKENS, {"size": 162}, "`size` must be at most .* 161, got 162"),
        (np.array([["a"]]), {}, "`outcomes` must be an array of real numbers"),
    ],
)
def test_bad_input_is_refused_with_its_name(outcomes, options, message):
    with pytest.raises(ValueError, match=message):
        optax_mi.sample_positions(KEY, outcomes, **{"size": 10, **options})


def test_a_mask_has_to_be_known():
    with pytest.raises(ValueError, match="`mask` must be known"):
        jax.jit(lambda mask: optax_mi.sample_positions(KEY, TOKENS, 5, mask=mask))(MASK)


def test_vectors_at_each_position_need_a_mask_to_be_told_from_places():
    vectors = RNG.normal(size=(23, 7, 3))
    found = optax_mi.sample_positions(KEY, vectors, 10, mask=np.ones((23, 7)))
    assert found.outcomes.shape == (10, 3)
    assert optax_mi.sample_positions(KEY, vectors, 10).outcomes.shape == (10,)


def test_masks_held_as_floats_are_told_of():
    floats = (PIXELS > 1).astype(np.float32)
    with pytest.warns(UserWarning, match="`outcomes` holds floats.*only the values 0"):
        optax_mi.sample_positions(KEY, floats, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optax_mi.sample_positions(KEY, PIXELS > 1, 100)
