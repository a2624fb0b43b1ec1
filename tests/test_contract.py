"""Optax's own tests of what an optimizer must be, run on ours."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import optax
import pytest
from absl.testing import parameterized
from optax import contrib

import optax_mi


def measured(tx, every=100):
    """Gives a transformation a new measurement now and then, as a training loop would.

    The suite gives none. These grow towards the reference: the rate rises to its
    maximum, and falls when they have saturated.
    """

    def init(params):
        return jnp.zeros((), jnp.int32), tx.init(params)

    def update(updates, state, params=None, **extra_args):
        count, inner = state
        mi = jnp.where(count % every == 0, 2 - 1 / (1 + count / every), jnp.nan)
        updates, inner = tx.update(updates, inner, params, mi=mi, **extra_args)
        return updates, (optax.safe_increment(count), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def by_leaf(params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path), params
    )


def mi_wrapper(base, lr_min, lr_max):
    rate = optax_mi.mi_dynamic_lr(
        lr_min, lr_max, reference=2.0, policy=optax_mi.reference_policy()
    )
    return optax.chain(base, measured(rate))


def layerwise_mi_wrapper(base, lr_min, lr_max):
    rates = optax_mi.layerwise_mi_dynamic_lr(
        by_leaf, lr_min, lr_max, reference=2.0, policy=optax_mi.reference_policy()
    )
    return optax.chain(base, measured(rates))


def mi_sgd(learning_rate: optax.ScalarOrSchedule, lr_min, lr_max):
    return mi_wrapper(optax.sgd(learning_rate), lr_min, lr_max)


def mi_adam(learning_rate: optax.ScalarOrSchedule, lr_min, lr_max):
    return mi_wrapper(optax.adam(learning_rate), lr_min, lr_max)


def layerwise_mi_adam(learning_rate: optax.ScalarOrSchedule, lr_min, lr_max):
    return layerwise_mi_wrapper(optax.adam(learning_rate), lr_min, lr_max)


SGD_BOUNDS = {"lr_min": 5e-4, "lr_max": 1e-3}  # above 2e-3 sgd diverges on Rosenbrock
ADAM_BOUNDS = {"lr_min": 1e-3, "lr_max": 1e-2}


def own(factory, bounds):
    return {
        "opt_name": factory.__name__,
        "opt_kwargs": {"learning_rate": 1.0, **bounds},
        "wrapper_name": None,
        "wrapper_kwargs": None,
    }


def around(base, wrapper, bounds):
    return {
        "opt_name": base,
        "opt_kwargs": {"learning_rate": 1.0},
        "wrapper_name": wrapper.__name__,
        "wrapper_kwargs": bounds,
    }


# Some of the tests leave wrappers out and others the schedules of optimizers.
FUNCTIONS = [mi_sgd, mi_adam, layerwise_mi_adam, mi_wrapper, layerwise_mi_wrapper]
QUICK = [
    own(mi_sgd, SGD_BOUNDS),
    around("sgd", layerwise_mi_wrapper, SGD_BOUNDS),
]
SLOW = [
    own(mi_adam, ADAM_BOUNDS),
    own(layerwise_mi_adam, ADAM_BOUNDS),
    around("sgd", mi_wrapper, SGD_BOUNDS),
]


def suite_with(entries):
    """Optax's suite with our entries in the place of its own, and how many tests."""
    spec = importlib.util.find_spec("optax.contrib._common_test")
    if spec is None or spec.loader is None:
        pytest.skip("this Optax ships no suite", allow_module_level=True)
    module, counts = importlib.util.module_from_spec(spec), []
    product = parameterized.product

    def product_of_ours(table, **grid):
        assert {"opt_name", "opt_kwargs"} <= set(table[0])
        counts.append(len(entries) * math.prod(map(len, grid.values())))
        return product(entries, **grid)

    with pytest.MonkeyPatch.context() as patch:
        # They bind their tables when they are decorated.
        patch.setattr(parameterized, "product", product_of_ours)
        spec.loader.exec_module(module)
    return module, counts


@pytest.fixture(autouse=True, scope="module")
def _found_in_contrib():
    with pytest.MonkeyPatch.context() as patch:
        for function in FUNCTIONS:
            patch.setattr(contrib, function.__name__, function, raising=False)
        yield


def contract(entries):
    """The suite's tests of these entries, none of which may be skipped."""
    suite, counts = suite_with(entries)

    class Contract(suite.ContribTest):
        def skipTest(self, reason):  # noqa: N802
            self.fail(f"skipped: {reason}")

    tests = [name for name in dir(Contract) if name.startswith("test")]
    assert len(counts) >= 7
    # With Optax 0.2.6 in several variants each.
    assert len(tests) >= sum(counts) >= 16 * len(entries)
    return Contract


class TestContract(contract(QUICK)):
    pass


@pytest.mark.slow
class TestContractOfTheOthers(contract(SLOW)):
    pass
