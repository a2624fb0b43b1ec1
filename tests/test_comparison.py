"""The cells of docs/comparison.md that a program can check."""

import functools
import operator
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest
import tiers
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

import optax_mi
from tests.benchmarks.controllers import greedy

contrib = optax.contrib
PAGE = (pages.DOCS / "comparison.md").read_text(encoding="utf-8")


def table(heading):
    """{the first column, or each name in it: the other cells} of one table."""
    _, _, rest = PAGE.partition("\n" + heading)
    lines = rest.split("\n\n", 1)[0].splitlines()[2:]
    rows = {}
    for line in lines:
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows |= dict.fromkeys(re.findall(r"`(.*?)`", first) or [first], cells)
    return rows


with_results = pytest.mark.skipif(
    not (pages.DOCS / "results").exists(), reason="the sdist leaves them out"
)

SIGNALS = table("| method | what sets the rate")
COSTS = table("| method | extra forward passes")
REACHED = table("| | rate | final accuracy")
REGRETS = table("| | mean regret, 24 pairs")


def norm_ratio(_, grads, updates):
    return optax.tree.norm(updates) / optax.tree.norm(grads)


def searched_rate(state, *_):
    return state[-1].learning_rate


def scheduled(schedule):
    return optax.sgd(schedule), norm_ratio


# What makes each, and the rate of a step from its state, gradients and updates.
METHODS = {
    "warmup_constant_schedule": lambda: scheduled(
        optax.warmup_constant_schedule(0.0, 0.02, 20)
    ),
    "warmup_cosine_decay_schedule": lambda: scheduled(
        optax.warmup_cosine_decay_schedule(0.0, 0.02, 20, 80)
    ),
    "cosine_onecycle_schedule": lambda: scheduled(
        optax.cosine_onecycle_schedule(80, 0.02)
    ),
    "inject_hyperparams": lambda: (
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.02),
        norm_ratio,
    ),
    "contrib.reduce_on_plateau": lambda: (
        optax.chain(optax.sgd(0.02), contrib.reduce_on_plateau(patience=3)),
        lambda state, *_: state[-1].scale,
    ),
    # Our copy of its rule: the class itself is for PyTorch.
    "transformers.GreedyLR": lambda: (
        optax.chain(
            optax.sgd(1.0),
            greedy.follow(greedy.Rule(1e-3, 0.05, 0.01, 0.9, patience=0, window=5)),
        ),
        searched_rate,
    ),
    "polyak_sgd": lambda: (optax.polyak_sgd(), norm_ratio),
    "contrib.momo": lambda: (
        contrib.momo(),
        lambda state, _, updates: norm_ratio(None, state.exp_avg, updates),
    ),
    "contrib.momo_adam": lambda: (contrib.momo_adam(), norm_ratio),
    "scale_by_backtracking_linesearch": lambda: (
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(30)),
        searched_rate,
    ),
    "scale_by_zoom_linesearch": lambda: (
        optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(30)),
        searched_rate,
    ),
    "contrib.prodigy": lambda: (
        contrib.prodigy(),
        lambda state, *_: state.estim_lr,
    ),
    "contrib.dadapt_adamw": lambda: (
        contrib.dadapt_adamw(),
        lambda state, *_: state.estim_lr,
    ),
    "contrib.dog": lambda: (contrib.dog(), norm_ratio),
    "contrib.dowg": lambda: (contrib.dowg(), norm_ratio),
    "contrib.cocob": lambda: (contrib.cocob(), norm_ratio),
    "contrib.mechanize": lambda: (
        contrib.mechanize(optax.sgd(1.0)),
        lambda state, *_: state.s.sum(),
    ),
    "contrib.schedule_free": lambda: (
        contrib.schedule_free_sgd(0.02, warmup_steps=20),
        lambda state, *_: state.max_lr,
    ),
    "scale_by_trust_ratio": lambda: (
        optax.chain(optax.scale_by_trust_ratio(), optax.sgd(0.02)),
        lambda _, grads, updates: norm_ratio(None, grads["dense"], updates["dense"]),
    ),
    "optax_mi.mi_dynamic_lr": lambda: (
        optax.chain(
            optax.sgd(1.0),
            optax_mi.mi_dynamic_lr(
                1e-4, 0.02, reference=2.0, policy=optax_mi.reference_policy()
            ),
        ),
        norm_ratio,
    ),
    "optax_mi.layerwise_mi_dynamic_lr": lambda: (
        optax.chain(
            optax.sgd(1.0),
            optax_mi.layerwise_mi_dynamic_lr(
                "auto", 1e-4, 0.02, reference=2.0, policy=optax_mi.reference_policy()
            ),
        ),
        lambda _, grads, updates: norm_ratio(None, grads["dense"], updates["dense"]),
    ),
}
SEARCHES = [name for name in METHODS if name.endswith("linesearch")]
OPTAX = [
    name for name in METHODS if not name.startswith(("optax_mi.", "transformers."))
]

PARAMS = {"dense": {"w": jnp.ones(8)}, "bias": {"b": jnp.zeros(())}}
STEPS = 80
# Batches whose curvature changes every twenty steps.
X = jax.random.normal(jax.random.key(0), (STEPS, 16, 8))
X *= jnp.where(jnp.arange(STEPS) % 40 < 20, 0.5, 2.0)[:, None, None]
Y = X @ jnp.arange(1.0, 9.0) + jax.random.normal(jax.random.key(1), (STEPS, 16))
# Information that grows, and then does not.
MI = jnp.minimum(jnp.arange(STEPS), 40) / 40 + 0.5


def loss(params, x, y):
    return jnp.mean((x @ params["dense"]["w"] + params["bias"]["b"] - y) ** 2)


def training(name, tx, rate):
    """A compiled scan from parameters to each step's rate and line search."""
    tx = optax.with_extra_args_support(tx)

    def step(carry, batch):
        params, state = carry
        x, y, mi = batch
        value, grads = jax.value_and_grad(loss)(params, x, y)
        extra = {"value": value, "mi": mi}
        if name in SEARCHES:
            extra = {"value": value, "grad": grads, "value_fn": loss, "x": x, "y": y}
        updates, state = tx.update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        searched = state[-1].info.num_linesearch_steps if name in SEARCHES else 0
        return (params, state), (rate(state, grads, updates), searched)

    def run(params):
        return jax.lax.scan(step, (params, tx.init(params)), (X, Y, MI))[1]

    return jax.jit(run)


@functools.cache
def trained(name):
    rates, searched = training(name, *METHODS[name]())(PARAMS)
    return np.asarray(rates), np.asarray(searched)


def test_every_method_has_its_rows():
    assert set(SIGNALS) - {"lars", "lamb"} == set(COSTS) == set(METHODS)


def test_the_page_names_what_exists():
    for name in ["lars", "lamb", *OPTAX]:
        assert callable(operator.attrgetter(name)(optax))
    for name in re.findall(r"`(optax(?:_mi)?)\.([\w.]+)`", PAGE):
        package = {"optax": optax, "optax_mi": optax_mi}[name[0]]
        assert callable(operator.attrgetter(name[1])(package))


# One of each kind.
QUICK = (
    "warmup_cosine_decay_schedule",
    "contrib.reduce_on_plateau",
    "contrib.cocob",
    "scale_by_backtracking_linesearch",
    "optax_mi.layerwise_mi_dynamic_lr",
)


@pytest.mark.parametrize("name", tiers.quick(METHODS, *QUICK))
def test_the_rate_moves_as_the_page_says(name):
    rates, _ = trained(name)
    steps = np.diff(rates)
    up, down = (steps > 1e-4 * rates[:-1]).any(), (steps < -1e-4 * rates[:-1]).any()
    said = SIGNALS[name][3]
    expected = {
        "both ways": (True, True),
        "down only": (False, True),
        "up only; a schedule on top can lower it": (True, False),
        "up, then constant": (True, False),
        "constant after the warm-up": (True, False),
        "up, then down": (True, True),
        "as you write it": (False, False),  # nobody wrote
    }
    assert (up, down) == expected[said]


@pytest.mark.parametrize("name", OPTAX)
def test_update_needs_what_the_page_says(name):
    tx = optax.with_extra_args_support(METHODS[name]()[0])
    state = tx.init(PARAMS)
    grads = jax.grad(loss)(PARAMS, X[0], Y[0])
    given = {
        "params": PARAMS,
        "value": jnp.ones(()),
        "grad": grads,
        "value_fn": lambda params: loss(params, X[0], Y[0]),
    }

    def traced(arguments):
        jax.eval_shape(lambda: tx.update(grads, state, **arguments))

    traced(given)
    needed = set()
    for argument in given:
        try:
            traced({key: v for key, v in given.items() if key != argument})
        except (TypeError, ValueError, IndexError):
            needed.add(argument)
    said = re.findall(r"`(\w+)=?`", SIGNALS[name][1])
    assert needed == set(said)


@pytest.mark.parametrize("name", METHODS)
def test_states_hold_as_many_copies_as_the_page_says(name):
    params = {"dense": {"w": jnp.ones((50, 40))}, "other": {"w": jnp.ones((40, 25))}}
    state = jax.eval_shape(METHODS[name]()[0].init, params)
    size = sum(leaf.size for leaf in jax.tree.leaves(state))
    copies, besides = divmod(size, 3000)
    said = re.findall(r"\d+", COSTS[name][1])
    assert copies == int(said[0])
    assert besides < 30


def test_what_a_wrapper_and_a_stored_gradient_add():
    def copies(tx):
        leaves = jax.tree.leaves(tx.init({"w": jnp.ones(1000)}))
        return sum(np.size(leaf) for leaf in leaves) // 1000

    assert copies(contrib.mechanize(optax.adam(1.0))) == 1 + copies(optax.adam(1.0))
    wrapped = optax.scale_by_rms()
    assert copies(contrib.schedule_free(wrapped, 0.1)) == 1 + copies(wrapped)
    search = optax.scale_by_backtracking_linesearch(10, store_grad=True)
    assert copies(search) == 1


@pytest.mark.parametrize("name", OPTAX)
def test_partition_takes_what_the_page_says(name):
    method = METHODS[name]
    tx = optax.partition(
        {"dense": method()[0], "bias": method()[0]}, {"dense": "dense", "bias": "bias"}
    )
    said = COSTS[name][3]
    if said == "no":
        with pytest.raises(ValueError, match="pytree|named tuple"):
            training(name, tx, norm_ratio).trace(PARAMS)
    else:
        assert said.startswith(("`partition`", "for each"))
        training(name, tx, norm_ratio).trace(PARAMS)


@pytest.mark.parametrize("name", tiers.quick(METHODS, *QUICK))
def test_line_searches_alone_evaluate_the_loss_beside_training(name):
    _, searched = trained(name)
    assert (searched.min() >= 1) == COSTS[name][0].startswith("one or more a step")


@with_results
def test_accuracies_are_those_of_the_results():
    results = (pages.DOCS / "results/README.md").read_text(encoding="utf-8")
    assert len(REACHED) == 13
    for method, (rate, accuracy) in REACHED.items():
        chosen = re.escape(rate.removeprefix("tuned")) if "tuned" in rate else ""
        row = rf"\| {method}( \(.*?\))?{chosen} \| {re.escape(accuracy)} \|"
        assert re.search(row, results)


@with_results
def test_regrets_are_those_of_the_controllers_table():
    page = (pages.DOCS / "results/controllers.md").read_text(encoding="utf-8")
    rows = {}
    for line in page.splitlines():
        first, *cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        rows.setdefault(first, cells)
    names = rows["task"]
    means, everywhere, lost = (
        dict(zip(names, rows[row], strict=True))
        for row in ("mean, in points alone", "mean", "seeds lost")
    )
    assert len(REGRETS) == 11
    for method, cells in REGRETS.items():
        name = method.removeprefix("the ").removesuffix(", tuned")
        assert cells == [means[name], everywhere[name], lost[name]]


@pytest.mark.parametrize(
    ("page", "numbers"),
    [
        ("performance.md", ["1.9", "16.5", "5.7", "32.4", "0.8", "3888.0"]),
        ("accuracy.md", ["0.014", "0.015", "0.100", "0.723", "0.002", "0.107"]),
        pytest.param(
            "results/README.md",
            ["0.4 to 2.1 %", "0.04 points below", "0.11 points above"],
            marks=with_results,
        ),
    ],
)
def test_what_is_quoted_stands_there(page, numbers):
    there = (pages.DOCS / page).read_text(encoding="utf-8")
    assert all(number in there and number in PAGE for number in numbers)


N = 500  # of every sample: a shape compiles once


def gaussians(rho=0.9, seed=0):
    x, noise = np.random.default_rng(seed).normal(size=(2, N))
    return x, rho * x + np.sqrt(1 - rho**2) * noise


def classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    return rng.normal(size=(N, 1)) + 2.0 * labels[:, None], labels


def test_scikit_learn_takes_one_feature_at_a_time():
    x, y = gaussians()
    features = np.stack([x, y], axis=1)
    assert mutual_info_regression(features, y).shape == (2,)
    with pytest.raises(ValueError, match="1d array"):
        mutual_info_regression(features, features)


def test_scikit_learn_answers_in_nats():
    x, y = gaussians()
    assert mutual_info_regression(x[:, None], y)[0] == pytest.approx(0.830, abs=0.1)


def test_scikit_learn_sets_what_is_below_zero_to_zero_and_we_do_not():
    _, labels = classes()
    theirs, ours = [], []
    for x in np.random.default_rng(1).normal(size=(20, N, 1)):
        theirs.append(mutual_info_classif(x, labels)[0])
        ours.append(float(optax_mi.ksg_discrete(x, labels)))
    assert min(ours) < 0
    assert min(theirs) == 0


def test_scikit_learn_breaks_ties_by_noise_and_we_by_their_mean():
    x, labels = classes()
    x = np.round(x)

    def theirs(**options):
        return mutual_info_classif(x, labels, **options)[0]

    assert len({theirs() for _ in range(3)}) > 1
    assert len({theirs(random_state=0) for _ in range(2)}) == 1
    ours = {float(optax_mi.ksg_discrete(x, labels)) for _ in range(2)}
    assert len(ours) == 1
    assert ours.pop() == pytest.approx(theirs(), abs=0.1)


@pytest.mark.parametrize("scale", [1, 1000])
def test_labels_need_no_joint_space_in_either(scale):
    x, labels = classes()
    theirs = mutual_info_classif(scale * x, labels, random_state=0)[0]
    ours = float(optax_mi.ksg_discrete(scale * x, labels))
    assert theirs == pytest.approx(ours, abs=2e-3)
    assert ours == pytest.approx(0.6, abs=0.1)


def test_ten_symbols_read_as_many_nats_as_they_have():
    labels = np.random.default_rng(0).integers(0, 10, N)
    symbols = labels[:, None].astype(float)
    assert float(optax_mi.ksg_discrete(symbols, labels)) == pytest.approx(
        np.log(10), abs=0.02
    )
    assert mutual_info_classif(symbols, labels)[0] == pytest.approx(
        np.log(10), abs=0.02
    )


def test_both_lower_k_in_small_classes_and_leave_out_single_points():
    x, labels = classes()
    labels[:3] = 3, 3, 4
    theirs = mutual_info_classif(x, labels, random_state=0)[0]
    assert theirs == pytest.approx(float(optax_mi.ksg_discrete(x, labels)), abs=1e-2)
    assert int(optax_mi.usable_points(labels)) == N - 1
