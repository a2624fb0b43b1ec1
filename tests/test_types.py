"""The shapes in annotations are those of what is called: beartype looks at them.

For that jaxtyping rewrites the package as it is imported. What it is to look at runs in
a process of its own, in the functions here whose names begin with `check`.
"""

import ast
import contextlib
import importlib
import itertools
import pathlib
import subprocess
import sys
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import matplotlib as mpl
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from matplotlib import pyplot as plt

import optax_mi
from optax_mi import plots

HERE = pathlib.Path(__file__)
ROOT = pathlib.Path(optax_mi.__file__).parent

# As PEP 484 has it, an integer will do where a float is asked for.
BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"


@pytest.mark.e2e
def test_arrays_are_of_the_annotated_shapes():
    options = [f"--jaxtyping-packages=optax_mi,{BEARTYPE}", "-q"]
    options += ["-o", "python_functions=check_*", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-1000:]


def public(owner):
    """The public functions, methods and properties of a module or class."""
    for name, value in vars(owner).items():
        value = getattr(value, "__func__", value)  # of a class method
        own = getattr(value, "__module__", "").startswith("optax_mi")
        if not name.startswith("_") and (isinstance(value, property) or own):
            yield name


def test_everything_public_is_called():
    called = {
        node.attr
        for function in ast.parse(HERE.read_text()).body
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
    }
    names = {name for o in (optax_mi, optax_mi.MIHistory, plots) for name in public(o)}
    assert len(names) > 40
    types = {
        "Bounds",
        "MIInterval",
        "NeuralEstimate",
        "Policy",
        "Probe",
        "Positions",
        "SampleSizeCurve",
        "MIDynamicLRState",
    }
    assert names - types - {"Estimator", "LRRangeTest"} <= called


def annotations(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for given in ast.walk(node.args):
                if isinstance(given, ast.arg) and given.arg not in ("self", "cls"):
                    yield given.lineno, given.annotation
            yield node.lineno, node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.lineno, node.annotation


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_everything_is_annotated_with_what_there_is(path):
    """What cannot be evaluated jaxtyping passes over in silence."""
    names = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(names))
    for line, annotation in annotations(ast.parse(path.read_text())):
        assert annotation is not None, f"{path}:{line}"
        eval(ast.unparse(annotation), dict(vars(module)))


# From here on: what runs in the other process. Most of it is traced and no more, which
# is all that a check of shapes takes.

N = 48
RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, N)
X = (RNG.normal(size=(N, 4)) + CLASSES[:, None]).astype(np.float32)
WIDE = RNG.normal(size=(N, 20)).astype(np.float32)
KEY = jax.random.key(0)
SHORT = {"steps": 5, "batch_size": 8}

POINTS = {
    "one feature": X[:, 0].astype(np.float64),
    "images": X.reshape(N, 2, 2),
    "wide": WIDE,
    "bfloat16": jnp.asarray(X, jnp.bfloat16),
    "float16": X.astype(np.float16),
    "integers": np.round(4 * X).astype(np.int64),
    "booleans": jnp.asarray(X > 0),
}
OF_CLASSES = {
    "ksg_discrete": optax_mi.ksg_discrete,
    "bounds": partial(optax_mi.pairwise_distance_bounds, noise=1),
    "estimate_mi": lambda x, c: optax_mi.estimate_mi({"x": x, "wide": WIDE}, c),
    "own": lambda x, c: optax_mi.estimate_mi(
        {"x": x}, c, estimator=lambda x, _: x.mean()
    ),
}
OF_POINTS = {
    "ksg": partial(optax_mi.ksg, k=[2, 3]),
    "ksg 2": partial(optax_mi.ksg, algorithm=2, margins="gaussian"),
    "ksg euclidean": partial(optax_mi.ksg, metric="euclidean"),
    "ksg_mixed": optax_mi.ksg_mixed,
    "conditional_ksg": lambda x, y: optax_mi.ksg_conditional(x, y, WIDE),
    "kl_entropy": lambda x, _: optax_mi.knn_entropy(x),
    "mine": lambda x, y: optax_mi.mine(KEY, x, y, **SHORT),
    "info_nce": lambda x, y: optax_mi.info_nce(jax.random.PRNGKey(0), x, y, **SHORT),
    "estimate_mi": lambda x, y: optax_mi.estimate_mi({"x": x}, y),
}
EVERY = [
    *[
        pytest.param(f, CLASSES, id=f"{name} (classes)")
        for name, f in OF_CLASSES.items()
    ],
    *[pytest.param(f, X[:, :1] ** 2, id=name) for name, f in OF_POINTS.items()],
]


@pytest.mark.parametrize(("call", "y"), EVERY)
def check_a_plain_call_and_one_in_scan(call, y):
    jax.eval_shape(lambda: call(X, y))
    x, y = jnp.stack([X, -X]), jnp.stack([y, y])
    jax.eval_shape(lambda *of: jax.lax.map(lambda pair: call(*pair), of), x, y)


# What vmap adds is the tracer that a function is given; the rest is long to trace.
@pytest.mark.parametrize("call", OF_CLASSES.values(), ids=OF_CLASSES)
def check_a_call_in_vmap(call):
    jax.eval_shape(jax.vmap(call), jnp.stack([X, -X]), jnp.stack([CLASSES, CLASSES]))


@pytest.mark.parametrize("points", POINTS.values(), ids=POINTS)
def check_points_of_any_kind(points):
    floats = points.dtype.kind not in "ib"

    def calls():
        optax_mi.ksg_discrete(points, CLASSES)
        optax_mi.ksg(points, X)
        optax_mi.estimate_mi({"x": points}, points if floats else points[:, 0])

    jax.eval_shape(calls)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.bool_])
def check_classes_of_any_kind(dtype):
    classes = CLASSES.astype(dtype)

    def calls():
        for c in (classes, jnp.asarray(classes)):
            optax_mi.label_entropy(c)
            optax_mi.usable_points(c)
            optax_mi.plug_in_mi(c, CLASSES, miller_madow=True)
            optax_mi.ksg_discrete(X, c)

    jax.eval_shape(calls)


@pytest.mark.parametrize("features", [1, 2, 3])
def check_a_search_in_few_dimensions(features, monkeypatch):
    from optax_mi._estimators._neighbours import boxes

    for table in ("MIN_POINTS", "MIN_POINTS_ALONE"):
        least = dict.fromkeys(getattr(boxes, table), 1)
        monkeypatch.setattr(boxes, table, least)
    x = RNG.normal(size=(200, features)).astype(np.float32)

    def calls():
        optax_mi.ksg_discrete(x, np.arange(200) % 3)
        optax_mi.ksg(x, x[:, 0])
        optax_mi.knn_entropy(x)

    jax.eval_shape(calls)


def check_without_jit():
    with jax.disable_jit():
        optax_mi.ksg_discrete(X[:4], CLASSES[:4])


def check_double_precision(x64):
    x = jnp.asarray(X, float)
    jax.eval_shape(lambda: optax_mi.ksg_discrete(x, CLASSES))
    jax.eval_shape(lambda: optax_mi.ksg(x, WIDE.astype(float), metric="euclidean"))
    jax.eval_shape(lambda: optax_mi.plug_in_mi(CLASSES, CLASSES))
    tx = optax_mi.mi_dynamic_lr(
        0.1, 0.2, reference=1, policy=optax_mi.reference_policy()
    )
    tx.update(jnp.ones(3), tx.init(jnp.ones(3)), mi=1.0)


def check_a_gradient_beside_an_estimate():
    def loss(x):
        return jnp.sum(x) + optax_mi.ksg(x, X) + optax_mi.ksg_discrete(x, CLASSES)

    jax.eval_shape(jax.grad(loss), jnp.asarray(X))


@pytest.mark.parametrize("d", [1, 20])
def check_points_on_several_devices(d):
    rows = PartitionSpec("points")
    mesh = jax.make_mesh((8,), ("points",), axis_types=(AxisType.Explicit,))
    arrays = jax.device_put((WIDE[:, :d], X, CLASSES), NamedSharding(mesh, rows))

    def estimate(x, y, classes, **options):
        return (
            optax_mi.ksg(x, y, **options),
            optax_mi.ksg_mixed(x, y, **options),
            optax_mi.ksg_discrete(x, classes, **options),
            optax_mi.estimate_mi({"x": x}, classes, **options),
            optax_mi.label_entropy(classes, **options),
            optax_mi.usable_points(classes, **options),
        )

    jax.eval_shape(estimate, *arrays)
    own = partial(estimate, axis_name="points")
    on_devices = jax.shard_map(own, mesh=mesh, in_specs=rows, out_specs=PartitionSpec())
    jax.eval_shape(on_devices, *arrays)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(8)(x))
        self.sow("intermediates", "rounded", jnp.round(hidden).astype(jnp.int32))
        return nn.Dense(3, dtype=jnp.bfloat16)(hidden)


def check_policies_with_a_memory():
    def update(step, memory):
        return optax_mi.PolicyAnswer(step.lr_max, keep=step.mi > memory), step.mi

    pair = optax_mi.PolicyWithMemory(lambda: jnp.zeros(()), update)
    params = {"w": jnp.ones(3)}
    for policy in (
        pair,
        optax_mi.decay_policy(),
        optax_mi.warmup_stable_decay_policy(),
    ):
        tx = optax_mi.mi_dynamic_lr(0.1, 0.2, policy=policy, reference=1)
        state = optax_mi.record_mi(tx.init(params), 0.5)
        tx.update(params, state, params, mi=1.0, value=0.5)
    optax_mi.measurement_steps(10)(jnp.arange(3))


def check_training_in_linen():
    model, params = Linen(), {"params": Linen().init(KEY, X)["params"]}
    probe = optax_mi.sample_probe(KEY, X, CLASSES, size=40)
    reference = optax_mi.reference_mi(probe)
    tx = optax.chain(
        optax.sgd(1.0),
        optax_mi.layerwise_mi_dynamic_lr(
            "auto", 0.01, 0.1, policy=optax_mi.reference_policy()
        ),
    )
    history = optax_mi.MIHistory()

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def measure(params):
        layers = optax_mi.capture_activations(
            model, params, probe.inputs, max_features=4
        )
        return optax_mi.estimate_mi(layers, probe.outcomes)

    traced = jax.eval_shape(measure, params)
    mi = {name: jnp.ones(nats.shape, nats.dtype) for name, nats in traced.items()}

    opt_state = tx.init(params)
    for epoch in range(3):
        params, opt_state = step(params, opt_state)
        opt_state = optax_mi.record_mi(opt_state, mi, reference)
        opt_state = optax_mi.track_value_only(opt_state, 2)
        history.record(opt_state, epoch=epoch, mi=mi, loss=jnp.sum(reference))
    assert set(optax_mi.learning_rates(opt_state)) == {"Dense_0", "Dense_1"}


def check_a_history(tmp_path):
    history = optax_mi.MIHistory()
    for epoch, layer in itertools.product(range(2), ("conv", "dense")):
        history.add(epoch=epoch, layer=layer, learning_rate=0.1, mi=1.0, accuracy=0.5)
    assert history.layers == ["conv", "dense"]
    history.column("mi", "conv")
    history.scalars()
    history.to_table()
    with contextlib.suppress(ImportError):  # where pandas is missing
        history.to_pandas()
    history.to_csv(tmp_path / "history.csv")
    history.to_json(tmp_path / "history.json")
    optax_mi.MIHistory.from_json(tmp_path / "history.json")
    history.append_jsonl(tmp_path / "history.jsonl", "a run", seed=0)
    optax_mi.MIHistory.from_jsonl(tmp_path / "history.jsonl")
    history.to_tensorboard(tmp_path)


def check_plots_of_what_was_measured():
    history = optax_mi.MIHistory()
    for epoch in range(2):
        history.add(epoch=epoch, learning_rate=0.1, mi=1.0, accuracy=0.5, reference=2)
    w = jnp.ones(3)
    swept = optax_mi.lr_range_test(
        lambda w, batch, rate: (w - rate * batch, jnp.sum(w)),
        *(w, itertools.repeat(w), jnp.mean),
        steps=25,
    )
    curve = optax_mi.sample_size_curve(
        *(KEY, X, CLASSES, (20, 30), 2), estimator=lambda x, _: x.mean()
    )
    with mpl.rc_context({"backend": "agg"}):
        _, axes = plots.training({"one": history, "seeds": [history, history]})
        plots.training(history, ax=axes)
        plots.layers(history, kinds={"": "output"})
        plots.sample_size({"mean": curve})
        plots.information_plane({"": [1.0, 2.0]}, {"": np.ones(2)})
        plots.range_test(swept)
        plt.close("all")


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.output = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.relu(self.hidden(x)))


@pytest.mark.parametrize(
    "policy", [optax_mi.change_policy(np.float32(0.1)), optax_mi.reference_policy(1)]
)
def check_training_in_nnx(policy):
    model = NNX(nnx.Rngs(0))
    tx = optax.chain(
        optax.sgd(1.0), optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=policy, reference=2)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, mi):
        gradients = nnx.grad(lambda m: jnp.sum(m(X) ** 2))(model)
        optimizer.update(model, gradients, mi=mi)
        return optax_mi.capture_activations(model, None, X)

    for mi in (0.5, np.float32(1.0), jnp.array(1.5)):
        layers = step(model, optimizer, mi)
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, mi)
        optimizer.opt_state = optax_mi.record_mi(optimizer.opt_state, {"": mi})
    assert layers["hidden"].shape == (N, 8)
    optax_mi.learning_rates(optimizer.opt_state)


def check_traced_bounds():
    scheduled = optax.inject_hyperparams(optax_mi.mi_dynamic_lr, static_args="policy")
    tx = scheduled(1e-3, lambda step: 0.1 / (step + 1), reference=2.0)
    state = tx.init(jnp.ones(3))
    jax.eval_shape(partial(tx.update, mi=1.0), jnp.ones(3), state, jnp.ones(3))


def check_states_of_several_runs():
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1, policy=optax_mi.reference_policy())
    states = jax.vmap(tx.init)(jnp.ones((4, 3)))
    states = optax_mi.record_mi(states, 1.0, 2.0)
    states = optax_mi.track_value_only(states, 2)
    jax.eval_shape(jax.vmap(tx.update), jnp.ones((4, 3)), states)


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
def check_samples_and_what_is_said_of_them(key):
    optax_mi.sample_probe(key, {"x": X, "wide": [jnp.asarray(WIDE)]}, X[:, 0], 20)
    optax_mi.sample_probe(key, X, CLASSES, 20, stratify=True)
    tokens = np.tile(CLASSES[:, None], (1, 4))
    positions = optax_mi.sample_positions(key, tokens, 20, mask=tokens >= 0)
    embed = nn.Embed(20, 3)
    optax_mi.capture_activations(
        embed, embed.init(KEY, tokens), tokens, positions=positions, batch_size=7
    )
    x, y = np.tile(X, (2, 1)), np.tile(CLASSES, 2)
    interval = optax_mi.mi_with_error
    jax.eval_shape(lambda: interval(key, x, y, permutations=2))
    jax.eval_shape(lambda: interval(key, x, x[:, :1], permutations=0))
    mean = lambda x, _: x.mean()  # noqa: E731
    optax_mi.sample_size_curve(key, x, jnp.asarray(y), (20,), 2, estimator=mean)
    probe = optax_mi.sample_probe(key, jnp.asarray(X), X, 20)
    classes = probe._replace(outcomes=probe.outcomes[:, 0] > 0)
    jax.eval_shape(lambda: optax_mi.reference_mi(probe, "input"))
    jax.eval_shape(lambda: optax_mi.reference_mi(classes, "tiled"))


CAUGHT = {
    "lengths": lambda: optax_mi.ksg(X, X[1:]),
    "dtype": lambda: optax_mi.ksg_discrete(X, CLASSES.astype(float)),
    "one-hot": lambda: optax_mi.label_entropy(np.eye(3, dtype=int)),
    "complex": lambda: optax_mi.knn_entropy(X * 1j),
    "mapping": lambda: optax_mi.estimate_mi({"x": X[1:]}, CLASSES),
    "rate": lambda: optax_mi.mi_dynamic_lr(np.ones(2), 1.0),
    "key": lambda: optax_mi.sample_probe(jnp.ones(2), X, CLASSES, 20),
    "result": lambda: optax_mi.change_policy()(
        optax_mi.PolicyInput(*[jnp.ones(3)] * 7)
    ),
}


@pytest.mark.parametrize("call", CAUGHT.values(), ids=CAUGHT)
def check_what_is_wrong_is_caught(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
