"""Image data sets as arrays: digits (bundled with scikit-learn), MNIST, CIFAR-10."""

import importlib.util
import logging
import os
from typing import Any, NamedTuple

import numpy as np

INSTALL = "install what the examples need with: python -m pip install -e '.[examples]'"
# By data set, the defaults of the programs: minutes on a CPU.
_REDUCED = {"epochs": 20, "train_size": 12_000, "batch_size": 100}
_DIGITS = {"epochs": 40, "train_size": None, "batch_size": 16}
USUAL = {"digits": _DIGITS, "mnist": _REDUCED, "cifar10": _REDUCED}
NAMES = tuple(USUAL)
_ELSEWHERE = "name a folder of TensorFlow Datasets that holds it with DATA_DIR=..."


class DataError(SystemExit):
    """A data set cannot be loaded; a program ends with what to do, in one sentence."""


class Dataset(NamedTuple):
    """Images as float32 in [0, 1], shape [n, height, width, channels], and classes."""

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    held_out: tuple[np.ndarray, ...] = ()  # images and classes


def load(
    name: str, data_dir: str | None = None, train_size: int | None = None
) -> Dataset:
    """Loads a data set, its first `train_size` training examples if that is given.

    TensorFlow Datasets reads MNIST and CIFAR-10 from `data_dir`, or downloads them.
    Only to prepare a download does it need TensorFlow.
    """
    if name not in NAMES:
        raise DataError(f"No data set {name!r}; choose one of {', '.join(NAMES)}.")
    try:
        data = _digits() if name == "digits" else _tfds(name, data_dir)
    except ImportError as error:
        raise DataError(f"{name} cannot be read ({error}); {INSTALL}") from error
    n = len(data.train_x)
    if train_size is not None and not 1 <= train_size <= n:
        told = f"choose a training size from 1 to {n}, not {train_size}."
        raise DataError(f"{name} has {n} training examples; {told}")
    x, y = data.train_x[:train_size], data.train_y[:train_size]
    return data._replace(train_x=x, train_y=y)


def hold_out(dataset: Dataset, parts: int = 10) -> Dataset:
    """Holds out the last of so many parts of the training examples."""
    x, y = dataset.train_x, dataset.train_y
    n = len(x) - len(x) // parts
    return dataset._replace(train_x=x[:n], train_y=y[:n], held_out=(x[n:], y[n:]))


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    x, y = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16, labels.astype(np.int32)
    options: Any = {"test_size": 360, "random_state": 0, "stratify": y}
    train, test = train_test_split(np.arange(len(y)), **options)
    return Dataset("digits", x[train], y[train], x[test], y[test])


def _tfds(name: str, data_dir: str | None) -> Dataset:
    os.environ.setdefault("TFDS_DISABLE_DOWNLOAD_PROGRESS", "1")
    import array_record  # noqa: F401  (what tfds reads these files with)
    import PIL  # noqa: F401  (what it decodes images with)
    import tensorflow_datasets as tfds

    # tfds logs through absl that OpenCV would decode faster than pillow.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if data_dir is None and not _can_prepare(
        tfds.builder(name, file_format="array_record")
    ):
        raise DataError(
            f"{name} is not here yet, and tensorflow-datasets prepares a download with "
            f"TensorFlow: install tensorflow once, or {_ELSEWHERE}"
        )
    if data_dir is not None and not os.path.isdir(os.path.join(data_dir, name)):
        told = f"There is no {name} in the data directory {data_dir!r}"
        raise DataError(f"{told}; {_ELSEWHERE}, or leave it out to download.")
    options: Any = {"data_dir": data_dir, "download": data_dir is None}
    try:
        train = _arrays(tfds.data_source(name, split="train", **options))
        test = _arrays(tfds.data_source(name, split="test", **options))
    except Exception as error:  # tfds raises whatever its many back ends raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        where = f"read from {data_dir!r}" if data_dir else "downloaded"
        told = f"{name} could not be {where} ({reason})"
        raise DataError(f"{told}; {_ELSEWHERE}") from error
    return Dataset(name, *train, *test)


def _can_prepare(builder: Any) -> bool:
    return builder.is_prepared() or importlib.util.find_spec("tensorflow") is not None


def _arrays(source: Any) -> tuple[np.ndarray, np.ndarray]:
    examples = source.__getitems__(range(len(source)))
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    return images.astype(np.float32) / 255, labels
