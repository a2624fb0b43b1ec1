"""The passes over blocks of neighbours against NumPy, in tiles of every kind."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from optax_mi._estimators._neighbours import blocks, collectives, tiles
from optax_mi._estimators._neighbours.distances import ALIGNMENT, FEW_FEATURES
from optax_mi._estimators._neighbours.once import once

pytestmark = pytest.mark.usefixtures("compiled_afresh")

FARTHEST = np.int32(2**31 - 1)

# Rows and columns: one tile, several of them, and so many that counts fill their bits.
SHAPES = {"one tile": (5, 1024), "tiles": (300, 4096), "many tiles": (96, 65536)}


@pytest.mark.parametrize("k", range(1, 12))
def test_the_k_nearest_are_in_different_groups_in_97_of_100_rows(k):
    groups = tiles.groups(k, 2**20)
    apart = np.prod(1 - np.arange(k) / groups)
    assert apart > 0.97 or groups == ALIGNMENT
    # More than are needed would cost time: half as many would do too rarely.
    assert groups == 256 or np.prod(1 - np.arange(k) / (groups / 2)) < 0.975
    assert ALIGNMENT % groups == 0
    assert tiles.groups(k, groups) == groups
    assert tiles.groups(k, groups // 2) == groups // 2
    # Where many are needed, one for each column or no more than 1024.
    assert tiles.groups(8, 2048) == 2048
    assert tiles.groups(8, 2049) == 1024


def test_distances_of_many_features_are_stored():
    def value(tile):
        return 2 * tile

    arrays = jnp.arange(8)
    few, _ = tiles.view(value, arrays, (1, FEW_FEATURES))
    assert few is value
    many, found = tiles.view(value, arrays, (1, FEW_FEATURES + 1))
    assert many is tiles.stored
    np.testing.assert_array_equal(found, 2 * np.arange(8))


def cosines(passes, m):
    """How often a program computes codes that XLA would gladly compute again."""

    def value(tile):
        bits = jax.lax.bitcast_convert_type(jnp.cos(tile), jnp.int32)
        return bits[None] & jnp.arange(64, dtype=np.int32)[:, None]

    lowered = jax.jit(partial(passes, value)).lower(jnp.arange(float(m)))
    program = lowered.compile().as_text()
    assert program is not None
    return program.count(" cosine(")


def test_what_is_stored_is_computed_once_however_many_passes_read_it():
    def passes(value, columns):
        codes = tiles.store(value, columns)
        minima = tiles.group_minima(tiles.stored, codes, 3)
        kth = tiles.kth_of_minima(minima, k=3, max_k=3)
        return tiles.count(
            lambda tile: [tile < kth[:, None], tile <= kth[:, None]], codes
        )

    assert cosines(passes, 4096) == 1


@pytest.mark.parametrize("m", [1024, 4096])
def test_a_pass_computes_its_codes_once_whatever_is_made_of_them(m):
    def minima(value, columns):
        return tiles.group_minima(value, columns, 3)

    def kth(value, columns):
        return tiles.kth_of_minima(minima(value, columns), k=3, max_k=3)

    def counts(value, columns, number):
        return tiles.count(lambda t: [value(t) < i for i in range(number)], columns)

    assert cosines(kth, m) == cosines(minima, m)
    assert cosines(partial(counts, number=4), m) == cosines(
        partial(counts, number=1), m
    )


@pytest.mark.parametrize("under", [jax.jit, jax.vmap, jax.grad])
def test_once_changes_nothing(under):
    def fn(x):
        return once(lambda a: jnp.sin(a["x"]) * a["y"], {"x": x, "y": 2.0})

    x = 0.5 if under is jax.grad else jnp.arange(3.0)
    np.testing.assert_array_equal(
        under(fn)(x), under(lambda x: jnp.sin(x) * jnp.float32(2.0))(x)
    )


@pytest.mark.parametrize("n", [1, 100, 5000, 100_000])
@pytest.mark.parametrize("features", [(2,), (FEW_FEATURES, 1), (FEW_FEATURES + 1, 1)])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_a_block_fills_the_cache(n, features, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    size = blocks.choose_block_size(n, features, 3, None)
    m = n + -n % ALIGNMENT
    cache = {"cpu": 2**18, "gpu": 2**25}[backend]
    # Distances that are stored may take more: the last cache of all is larger.
    stored = max(features) > FEW_FEATURES
    held = m if stored else tiles.groups(3, m)
    room = max(cache, 2**21) if stored else cache
    assert 1 <= size <= n
    assert (size - 1) * held < room
    # No more blocks than that takes.
    assert size >= n / (n * held / room + 1)


def test_a_block_size_that_was_given_is_kept():
    assert blocks.choose_block_size(100, (3,), 3, 13) == 13
    assert blocks.choose_block_size(100, (3,), 3, 500) == 100
    assert blocks.choose_block_size(10**6, (3,), 3, 13, devices=4) == 13


@pytest.mark.parametrize("n", [500, 1024, 1025, 100_000])
@pytest.mark.parametrize("features", [2, 100])
def test_on_several_devices_a_block_is_worth_the_columns_it_is_sent(n, features):
    size = blocks.choose_block_size(n, (features,), 3, None, devices=8)
    assert size == n if n <= 1024 else 512 < size <= 1024
    assert blocks.choose_block_size(n, (features,), 3, None, devices=2) >= size


@pytest.mark.parametrize("rows", [2, 8, 64, 300, 5000])
@pytest.mark.parametrize("m", [1024, 3072, 65536])
@pytest.mark.parametrize("d", [1, 10, FEW_FEATURES])
def test_a_tile_is_what_stays_in_the_caches(rows, m, d):
    offsets, columns = jnp.zeros((rows, 1), jnp.int32), jnp.zeros((d, m), jnp.int32)
    tile = tiles._tile(lambda tile: offsets + tile[:1], columns)
    assert (tile.rows, tile.dtype, m % tile.size) == (rows, jnp.int32, 0)
    assert tile.lanes >= 32

    def fits(lanes):  # a quarter of the second cache, and 32 KiB of the first
        return rows * lanes <= 2**16 and 8 * lanes * d <= 2**13

    # Whatever the number of rows, few columns are 32 at a time.
    assert fits(tile.lanes) or tile.lanes == 32
    larger = [m // 8 // t for t in range(1, m // 256 + 1) if (m // 256) % t == 0]
    assert not any(fits(lanes) for lanes in larger if lanes > tile.lanes)


def test_a_tile_of_stored_codes_is_all_of_them():
    stored = jnp.zeros((64, 65536), jnp.int32)
    tile = tiles._tile(tiles.stored, stored)
    assert tile == (64, 8192, 8, jnp.int32)


def codes(rows, m):
    """A function to codes, its arrays, and the codes: every other row has many ties."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 2**31 - 1, m, dtype=np.int32)
    columns[:3] = 0, FARTHEST, FARTHEST
    kept = np.where(np.arange(rows) % 2, FARTHEST, np.int32(7))[:, None]

    def value(tile):
        return jnp.asarray(kept) & tile[None]

    return value, jnp.asarray(columns), kept & columns


def loops(fn, *arrays):
    """The lengths of the loops that a function makes one after the other."""
    equations = jax.make_jaxpr(fn)(*arrays).eqns
    return [e.params["length"] for e in equations if e.primitive.name == "scan"]


@pytest.mark.parametrize(
    ("shape", "number", "expected"),
    [
        # As many as share the bits of a word.
        ("many tiles", 1, 1),
        ("many tiles", 5, 1),
        ("many tiles", 8, 1),
        ("many tiles", 9, 2),
        ("many tiles", 17, 3),
    ],
)
def test_predicates_share_a_pass(shape, number, expected):
    value, arrays, _ = codes(*SHAPES[shape])

    def predicates(tile):
        return [value(tile) <= np.int32(i) for i in range(number)]

    passes = loops(lambda arrays: tiles.count(predicates, arrays), arrays)
    assert len(passes) == expected


@pytest.mark.parametrize("block_size", [1, 7, 20])
def test_blocks_are_put_together_in_order(block_size):
    rows = {"a": jnp.arange(60).reshape(20, 3), "b": jnp.arange(20.0)}
    sizes = []

    def fn(block):
        sizes.append(len(block["a"]))
        return block["a"].sum(axis=1), block["b"][:, None, None] + 1

    whole = partial(blocks.map_blocks, fn, block_size=block_size)
    first, second = whole(rows)
    np.testing.assert_array_equal(first, rows["a"].sum(axis=1))
    np.testing.assert_array_equal(second, rows["b"][:, None, None] + 1)
    assert set(sizes) == {block_size}
    assert loops(whole, rows) == [-(-20 // block_size)]


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_what_was_in_doubt_is_replaced(share):
    rng = np.random.default_rng(0)
    doubtful = jnp.asarray(rng.random(500) < share)
    rows = jnp.arange(500)
    results = blocks.map_rechecked(
        lambda block: (-1 - block, doubtful[block]), lambda block, _: block, rows, 90
    )
    # Blocks are filled up, so that rows that were not in doubt may be among the exact.
    right = np.asarray(results) == rows
    assert right[doubtful].all()
    np.testing.assert_array_equal(results, np.where(right, rows, -1 - rows))
    assert right.sum() < doubtful.sum() + 32 if share else not right.any()


@pytest.mark.parametrize(
    ("n", "given", "expected"),
    [(10, 100, 10), (100, 100, 32), (100, 8, 8), (6400, 1000, 100), (20_000, 1000, 52)],
)
def test_few_rows_at_a_time_are_done_again(n, given, expected):
    """A 64th of them, as far as their distances fit into four caches, or 32."""
    sizes = []

    def exact(block, found):
        sizes.append(len(block))
        np.testing.assert_equal(found.shape, block.shape)
        return block

    rows = jnp.arange(n)
    blocks.redo(rows, rows < 3, exact, rows, given)
    assert sizes == [expected]


def on_each(fn, array, devices=4):
    """What fn makes of its own part of an array, on each of several devices."""
    mesh = jax.make_mesh((devices,), ("points",), axis_types=(AxisType.Auto,))
    spec = P("points")
    return jax.jit(jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec))(array)


def test_passes_go_over_the_columns_of_all_devices():
    value, columns, every = codes(64, 4 * 2048)
    limit = np.quantile(every, 0.3, axis=1, method="lower")

    def predicates(tile):
        return [value(tile) < limit[:, None], value(tile) <= limit[:, None]]

    def passes(own):
        spread = collectives.spread(own, "points")
        minima = tiles.group_minima(value, spread, 1)
        found = [
            tiles.minimum(value, spread),
            tiles.maximum(value, spread),
            *tiles.count(predicates, spread),
            tiles.kth_of_minima(minima, k=1, max_k=1),
        ]
        return jnp.stack([a.astype(jnp.int32) for a in found])[None]

    least = every.min(axis=1)
    below, within = (every < limit[:, None]).sum(1), (every <= limit[:, None]).sum(1)
    expected = [least, every.max(axis=1), below, within, least]
    for found in on_each(passes, columns):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("devices", "n", "expected"),
    [(4, 512, 256), (4, 2048, 128), (4, 4096, 64), (4, 8192, 64), (2, 512, 256)],
)
def test_devices_without_a_doubt_pass_columns_on_for_others(devices, n, expected):
    rows, sizes = jnp.arange(devices * n, dtype=jnp.int32), []

    def farthest_again(own):
        def exact(block, _):
            sizes.append(len(block))
            spread = collectives.spread(own, "points")
            return tiles.maximum(lambda t: block[:, None] + t[None], spread)

        wrong = jnp.zeros_like(own)
        return blocks.redo(wrong, own < 300, exact, own, 1000, "points")

    results = np.asarray(on_each(farthest_again, rows, devices))
    right = results == np.arange(len(rows)) + len(rows) - 1
    assert right[:300].all()
    assert (results[~right] == 0).all()
    # As many as stay in the caches with all columns, but worth what is sent for them.
    assert set(sizes) == {expected}


@pytest.fixture(params=SHAPES)
def stored(request):
    return codes(*SHAPES[request.param])[2]


@pytest.fixture(params=["stored", "taken afresh"])
def case(request, stored):
    if request.param == "stored":
        return tiles.stored, jnp.asarray(stored), stored
    return codes(*stored.shape)


def test_least_and_largest_codes(case):
    value, arrays, expected = case
    least = jax.jit(lambda arrays: tiles.minimum(value, arrays))(arrays)
    largest = jax.jit(lambda arrays: tiles.maximum(value, arrays))(arrays)
    np.testing.assert_array_equal(least, expected.min(axis=1))
    np.testing.assert_array_equal(largest, expected.max(axis=1))


@pytest.mark.parametrize("number", [1, 5, 9])
def test_counts_of_several_predicates(case, number):
    value, arrays, expected = case
    # From none of the columns to all, which fills the bits of a word most quickly.
    quantiles = np.linspace(0, 1, number)
    limits = [np.quantile(expected, q, axis=1, method="lower") for q in quantiles]

    def predicates(tile):
        return [value(tile) <= jnp.asarray(limit)[:, None] for limit in limits]

    counts = jax.jit(lambda arrays: tiles.count(predicates, arrays))(arrays)
    assert len(counts) == number
    for counted, limit in zip(counts, limits, strict=True):
        np.testing.assert_array_equal(counted, (expected <= limit[:, None]).sum(axis=1))


@pytest.mark.parametrize("k", [1, 6, 15])
def test_minima_are_those_of_columns_a_fixed_way_apart(case, k):
    value, arrays, expected = case
    minima = jax.jit(lambda a: tiles.group_minima(value, a, k))(arrays)
    rows, m = expected.shape
    assert minima.shape[1] >= tiles.groups(k, m)
    apart = expected.reshape(rows, -1, minima.shape[1])
    np.testing.assert_array_equal(minima, apart.min(axis=1))


def test_kth_smallest_counts_multiplicity(stored):
    k = jnp.arange(len(stored)) % 8  # 0 counts as 1
    rank = np.maximum(k, 1) - 1
    expected = np.sort(stored)[np.arange(len(k)), rank]
    kth = jax.jit(lambda *a: tiles.kth_smallest(a[0], k=k, above=a[1]))
    # From the code itself, from one beyond it, and from beyond some others.
    for further in (0, 1, 2**27):
        above = np.minimum(expected, FARTHEST - further) + np.int32(further)
        np.testing.assert_array_equal(kth(stored, above), expected)


@pytest.mark.parametrize("columns", [32, 96, 256])
def test_kth_of_minima_counts_multiplicity(stored, columns):
    minima, k = stored[:, :columns], jnp.arange(len(stored)) % 8
    kth = tiles.kth_of_minima(jnp.asarray(minima), k=k, max_k=7)
    rank = np.maximum(k, 1) - 1
    expected = np.sort(minima)[np.arange(len(k)), rank]
    np.testing.assert_array_equal(kth, expected)


@pytest.mark.parametrize("nearest", [[1, 2, 3, 4], [0, 0, 0, 0]])
def test_kth_smallest_where_all_the_nearest_are_in_one_group(nearest):
    expected = np.full((3, 4096), 1000, np.int32)
    expected[:, ::1024] = nearest
    for k in (2, 5):
        minima = tiles.group_minima(tiles.stored, jnp.asarray(expected), k)
        above = tiles.kth_of_minima(minima, k=k, max_k=5)
        kth = tiles.kth_smallest(jnp.asarray(expected), k=k, above=above)
        np.testing.assert_array_equal(kth, np.sort(expected)[:, k - 1])
