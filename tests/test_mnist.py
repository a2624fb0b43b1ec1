"""Real MNIST: what was measured before the first line of code still holds.

The data are read from the folder that the environment variable DATA_DIR names, by
default ../shared/datasets beside the repository, and never downloaded.
"""

import os
import pathlib

import jax
import numpy as np
import pytest
import twins

import optax_mi
from examples.common import data
from examples.common.networks import SmallCNN
from examples.common.training import Phase, Task, train

ROOT = pathlib.Path(__file__).parents[1]
DATA_DIR = ROOT / os.environ.get("DATA_DIR", "../shared/datasets")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (DATA_DIR / "mnist").is_dir(), reason=f"there is no MNIST in {DATA_DIR}"
    ),
]


@pytest.fixture(scope="module")
def mnist():
    return data.load("mnist", str(DATA_DIR))


def sample(mnist, size, seed=0):
    return optax_mi.sample_probe(
        jax.random.key(seed), mnist.train_x, mnist.train_y, size=size
    )


def test_it_is_mnist(mnist):
    assert mnist.train_x.shape == (60_000, 28, 28, 1)
    assert mnist.test_x.shape == (10_000, 28, 28, 1)
    assert mnist.train_x.mean() == pytest.approx(0.1307, abs=1e-4)
    assert np.bincount(mnist.test_y)[:3].tolist() == [980, 1135, 1032]


# Mean and standard deviation over the probes of the seeds 0 to 7.
@pytest.mark.parametrize(
    ("size", "mean", "spread"),
    [(500, 1.894, 0.040), (1000, 1.989, 0.024), (2000, 2.070, 0.017)],
)
def test_the_information_of_raw_pixels_grows_with_the_sample(mnist, size, mean, spread):
    mi = float(optax_mi.reference_mi(sample(mnist, size), "input"))
    assert abs(mi - mean) < 4 * spread


def test_ties_under_the_max_norm_do_not_exceed_the_entropy(mnist):
    probe = sample(mnist, 1000)
    x, labels = np.asarray(probe.inputs), np.asarray(probe.outcomes)
    entropy = twins.label_entropy(labels)
    # On pixels the largest difference is nearly always 1, and strict counts see
    # information that cannot be there: 3.05, 3.07, 2.98 of 2.30 nats on three probes.
    assert twins.ross(x, labels, metric="chebyshev") == pytest.approx(3.05, abs=0.15)
    assert 0.5 < optax_mi.ksg_discrete(x, labels, metric="chebyshev") < entropy
    assert 1.5 < optax_mi.ksg_discrete(x, labels) < entropy


def test_a_short_run_trains_and_its_layers_stay_below_the_entropy(mnist):
    few = mnist._replace(
        train_x=mnist.train_x[:3000],
        train_y=mnist.train_y[:3000],
        test_x=mnist.test_x[:1000],
        test_y=mnist.test_y[:1000],
    )
    task = Task(SmallCNN(), few, sample(few, 1000))
    phase = Phase("dynamic", {"init_lr": 0.02})
    *_, ((history,), _) = train(task, [phase], epochs=4, batch_size=50)
    mi, rate = history.column("mi"), history.column("learning_rate")
    assert history.column("accuracy")[-1] > 0.85
    assert mi[0] < mi[-1] < history.column("reference")[0]
    assert rate[2] > rate[0]
