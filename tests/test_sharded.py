"""Estimates of points that are spread over eight virtual devices."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
import tiers
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import optax_mi
from optax_mi._estimators._neighbours import collectives

pytestmark = pytest.mark.usefixtures("compiled_afresh")

DEVICES = 8
N = 40 * DEVICES
EXACT = {"rel": 0, "abs": 1e-6}


def make_mesh(kind=AxisType.Explicit):
    return jax.make_mesh((DEVICES,), ("points",), axis_types=(kind,))


def sharded(mesh, *arrays):
    over_points = NamedSharding(mesh, PartitionSpec("points"))
    return [jax.device_put(jnp.asarray(a), over_points) for a in arrays]


def points(d, n=N):
    """Classes and points near them, an eighth rounded so that they are tied."""
    rng = np.random.default_rng(d)
    labels = rng.integers(0, 3, n)
    x = rng.normal(size=(n, d)).astype(np.float32)
    x[:, 0] += labels
    x[: n // 8] = np.round(x[: n // 8])
    return x, labels


def continuous(d, n=N):
    x, _ = points(d, n)
    noise = np.random.default_rng(100).normal(size=n).astype(np.float32)
    return x, x[:, 0] + noise


def three_variables(classes):
    x, y = continuous(2)
    return x, y, points(1)[1] if classes else x[:, 1] + y


def lower_bound(*data, **options):
    return optax_mi.pairwise_distance_bounds(*data, noise=1.0, **options).lower


def table(x, labels, **options):
    rounded = jnp.round(x[:, 0]).astype(int)
    return optax_mi.plug_in_mi(rounded, labels, miller_madow=True, **options)


NAMED = {
    "conditional": (optax_mi.ksg_conditional, three_variables(classes=False)),
    "conditional, classes": (optax_mi.ksg_conditional, three_variables(classes=True)),
    "entropy, 1 feature": (optax_mi.knn_entropy, continuous(1)[1:]),
    "entropy, 3": (optax_mi.knn_entropy, points(3)[:1]),
    "entropy, 40": (optax_mi.knn_entropy, points(40)[:1]),
    "bounds": (lower_bound, points(3)),
    "table": (table, points(1)),
}
ESTIMATORS = {
    "discrete, 1 feature": (optax_mi.ksg_discrete, points(1)),
    "discrete, 40": (optax_mi.ksg_discrete, points(40)),
    "discrete, 20, max-norm": (
        partial(optax_mi.ksg_discrete, metric="chebyshev"),
        points(20),
    ),
    "ksg, 40": (partial(optax_mi.ksg, metric="euclidean"), continuous(40)),
    "ksg, algorithm 2": (partial(optax_mi.ksg, algorithm=2), continuous(3)),
    "ksg, Gaussian margins": (
        partial(optax_mi.ksg, margins="gaussian", k=[2, 3]),
        continuous(2),
    ),
    "mixed": (optax_mi.ksg_mixed, continuous(2)),
    **NAMED,
}


@pytest.mark.parametrize("name", tiers.quick(ESTIMATORS, "discrete, 40"))
def test_estimates_are_those_of_one_device(name):
    estimator, data = ESTIMATORS[name]
    spread = sharded(make_mesh(), *data)
    assert float(estimator(*spread)) == pytest.approx(float(estimator(*data)), **EXACT)


def whole(estimator, mesh):
    return estimator


def in_jit(estimator, mesh):
    """The axis is named, or known by its arrays where it is explicit."""
    if mesh.are_all_axes_explicit:
        return jax.jit(estimator)
    return jax.jit(partial(estimator, axis_name="points"))


def in_shard_map(estimator, mesh, check_vma=True, local=False):
    over_points = PartitionSpec("points")
    return jax.jit(
        jax.shard_map(
            partial(estimator, axis_name="points"),
            mesh=mesh,
            in_specs=over_points,
            out_specs=over_points if local else PartitionSpec(),
            check_vma=check_vma,
        )
    )


WAYS = {
    "whole": (whole, AxisType.Auto),
    "whole, explicit axis": (whole, AxisType.Explicit),
    "jit": (in_jit, AxisType.Auto),
    "jit, explicit axis": (in_jit, AxisType.Explicit),
    "shard_map": (in_shard_map, AxisType.Auto),
    "shard_map, unchecked": (partial(in_shard_map, check_vma=False), AxisType.Auto),
}


@pytest.mark.parametrize("name", tiers.quick(WAYS, "shard_map"))
def test_every_way_to_spread_points_gives_the_same(name, monkeypatch):
    way, kind = WAYS[name]
    data, mesh = points(40), make_mesh(kind)
    rounds = []
    pass_round = collectives._pass_round
    jax.clear_caches()  # a program that is known would pass nothing round again
    monkeypatch.setattr(
        collectives, "_pass_round", lambda *a: rounds.append(a) or pass_round(*a)
    )
    with jax.set_mesh(mesh):
        mi = way(optax_mi.ksg_discrete, mesh)(*sharded(mesh, *data))
    assert rounds
    assert float(mi) == pytest.approx(float(optax_mi.ksg_discrete(*data)), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_the_axis_may_be_one_of_shard_map(name):
    (estimator, data), mesh = NAMED[name], make_mesh()
    found = in_shard_map(estimator, mesh)(*sharded(mesh, *data))
    assert float(found) == pytest.approx(float(estimator(*data)), **EXACT)


LOCAL = {
    "discrete": (optax_mi.ksg_discrete, points(40)),
    "discrete, 1 feature": (optax_mi.ksg_discrete, points(1)),
    "ksg": (optax_mi.ksg, continuous(3)),
    "conditional, classes": ESTIMATORS["conditional, classes"],
}


@pytest.mark.parametrize("name", tiers.quick(LOCAL, "discrete"))
def test_terms_lie_where_their_points_do(name):
    (estimator, data), mesh = LOCAL[name], make_mesh()
    local = partial(estimator, local=True)
    spread = sharded(mesh, *data)
    for found in (
        local(*spread),
        in_shard_map(local, mesh, local=True)(*spread),
    ):
        assert found.sharding.is_equivalent_to(spread[0].sharding, ndim=1)
        np.testing.assert_allclose(found, local(*data), rtol=0, atol=2e-6)


@pytest.mark.slow
def test_many_points_of_few_features_are_searched_as_on_one_device(monkeypatch):
    monkeypatch.setattr(
        "optax_mi._estimators._neighbours.boxes.applies", lambda n, features, ks: n == N
    )
    data, mesh = continuous(2), make_mesh()
    estimate, spread = in_shard_map(optax_mi.ksg, mesh), sharded(mesh, *data)
    assert "collective_permute" not in estimate.lower(*spread).as_text()
    assert float(estimate(*spread)) == pytest.approx(
        float(optax_mi.ksg(*data)), **EXACT
    )


@pytest.mark.slow
def test_points_may_lie_along_several_axes():
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
    x, labels = points(40)
    expected = pytest.approx(float(optax_mi.ksg_discrete(x, labels)), **EXACT)
    for spec in (PartitionSpec(("a", "b")), PartitionSpec("a", "b")):
        spread = jax.device_put(jnp.asarray(x), NamedSharding(mesh, spec))
        assert float(optax_mi.ksg_discrete(spread, labels)) == expected


@pytest.mark.slow
def test_layers_are_spread_together():
    x, labels = points(40)
    layers, mesh = {"a": x[:, :1], "b": x}, make_mesh()
    expected = optax_mi.estimate_mi(layers, labels)
    spread = dict(zip(layers, sharded(mesh, *layers.values()), strict=True))
    estimates = optax_mi.estimate_mi(spread, labels)  # the labels are elsewhere
    for name, mi in expected.items():
        assert float(estimates[name]) == pytest.approx(float(mi), **EXACT)


@pytest.mark.parametrize("of", [optax_mi.label_entropy, optax_mi.usable_points])
def test_the_labels_of_all_devices_are_counted(of):
    _, labels = points(10)
    labels[::4] = np.arange(100, 100 + len(labels[::4]))  # each a class of its own
    mesh = make_mesh()
    for found in (
        of(*sharded(mesh, labels)),
        in_shard_map(of, mesh)(*sharded(mesh, labels)),
    ):
        assert float(found) == pytest.approx(float(of(labels)), **EXACT)


def test_a_bad_number_on_one_device_is_known_to_all():
    x, labels = points(40)
    x[-1, 3] = np.inf
    assert np.isnan(optax_mi.ksg_discrete(*sharded(make_mesh(), x, labels)))


@pytest.mark.slow
def test_no_device_holds_all_points():
    n, d = 4096 * DEVICES, 40
    mesh = make_mesh()
    over_points = NamedSharding(mesh, PartitionSpec("points"))
    x = jax.ShapeDtypeStruct((n, d), jnp.float32, sharding=over_points)
    labels = jax.ShapeDtypeStruct((n,), jnp.int32, sharding=over_points)
    estimate = in_shard_map(optax_mi.ksg_discrete, mesh)
    program = estimate.lower(x, labels).compile().as_text() or ""
    assert "collective-permute" in program
    shapes = {
        tuple(map(int, dims.split(",")))
        for dims in re.findall(r"[a-z]+[0-9]+\[([0-9,]+)\]", program)
    }
    assert max(np.prod(s) for s in shapes if d in s) <= (n // DEVICES) * d
    block = 1024
    assert max(np.prod(s) for s in shapes) == block * n


def test_an_axis_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"`axis_name` .* got 'rows'; none is"):
        optax_mi.ksg_discrete(*points(10), axis_name="rows")
    with (
        jax.set_mesh(make_mesh()),
        pytest.raises(ValueError, match=r"there are \['points'\]"),
    ):
        optax_mi.ksg_discrete(*points(10), axis_name="rows")


def test_points_must_be_divisible_among_the_devices():
    with (
        jax.set_mesh(make_mesh()),
        pytest.raises(ValueError, match=r"divide the 100 samples, got 'points', of 8"),
    ):
        optax_mi.ksg_discrete(*points(10, n=100), axis_name="points")


@pytest.mark.slow
def test_few_points_of_each_device_are_enough():
    data = points(40, n=2 * DEVICES)
    mi = optax_mi.ksg_discrete(*sharded(make_mesh(), *data), k=3)
    assert float(mi) == pytest.approx(float(optax_mi.ksg_discrete(*data)), **EXACT)


def test_what_the_page_says_runs():
    x, labels = points(1)
    names = {"jax": jax, "optax_mi": optax_mi, "partial": partial}
    names |= {"x": x, "labels": labels.astype(np.int32)}
    expected = float(optax_mi.ksg_discrete(x, labels))
    for block in pages.programs("scaling.md"):
        exec(block, names)
        assert float(names["mi"]) == pytest.approx(expected, **EXACT)
    assert float(names["estimate"](names["x"], names["labels"])) == pytest.approx(
        expected, **EXACT
    )
