"""Image data sets as arrays: digits (bundled with scikit-learn), MNIST, CIFAR-10."""

import importlib.util
import logging
import os
from typing import Any, NamedTuple

import numpy as np

NAMES = ("digits", "mnist", "cifar10")
FORMAT = "array_record"  # the one that tfds reads without TensorFlow
INSTALL = "install what the examples need with: python -m pip install -e '.[examples]'"


# What is trained where nothing is said: minutes on a CPU.
_REDUCED = {"epochs": 20, "train_size": 12_000, "batch_size": 100}
USUAL = {
    "digits": {"epochs": 40, "train_size": None, "batch_size": 16},
    "mnist": _REDUCED,
    "cifar10": _REDUCED,
}


class DataError(Exception):
    """A data set cannot be had; the message says in one sentence what to do."""


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

    MNIST and CIFAR-10 are read with TensorFlow Datasets, without TensorFlow: from
    `data_dir` where it is given, and otherwise downloaded to the usual place (which
    needs TensorFlow, once, to prepare what was downloaded).
    """
    if name not in NAMES:
        raise DataError(f"No data set {name!r}; choose one of {', '.join(NAMES)}.")
    data = _digits() if name == "digits" else _tfds(name, data_dir)
    available = len(data.train_x)
    if train_size is not None and not 1 <= train_size <= available:
        raise DataError(
            f"{name} has {available} training examples; choose a training size from 1 "
            f"to {available}, not {train_size}."
        )
    return data._replace(
        train_x=data.train_x[:train_size], train_y=data.train_y[:train_size]
    )


def hold_out(dataset: Dataset, parts: int = 10) -> Dataset:
    """The data set with the last of so many parts of its training examples held out."""
    n = len(dataset.train_x) - len(dataset.train_x) // parts
    x, y = dataset.train_x, dataset.train_y
    return dataset._replace(train_x=x[:n], train_y=y[:n], held_out=(x[n:], y[n:]))


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DataError(f"digits needs scikit-learn; {INSTALL}") from error
    images, labels = load_digits(return_X_y=True)
    x, y = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16, labels.astype(np.int32)
    options: Any = {"test_size": 360, "random_state": 0, "stratify": y}
    train, test = train_test_split(np.arange(len(y)), **options)
    return Dataset("digits", x[train], y[train], x[test], y[test])


def _tfds(name: str, data_dir: str | None) -> Dataset:
    os.environ.setdefault("TFDS_DISABLE_DOWNLOAD_PROGRESS", "1")
    try:
        import array_record  # noqa: F401  (what tfds reads these files with)
        import PIL  # noqa: F401  (what it decodes images with)
        import tensorflow_datasets as tfds
    except ImportError as error:
        needed = "tensorflow-datasets, array_record and pillow"
        raise DataError(f"{name} needs {needed}; {INSTALL}") from error
    # tfds logs through absl that OpenCV would decode faster than pillow.
    logging.getLogger("absl").setLevel(logging.ERROR)
    if data_dir is not None and not os.path.isdir(os.path.join(data_dir, name)):
        raise DataError(
            f"There is no {name} in the data directory {data_dir!r} (it should hold a "
            f"folder {name!r} as TensorFlow Datasets writes it); name another with "
            "DATA_DIR=..., or leave it out to download."
        )
    if data_dir is None and not _can_prepare(tfds.builder(name, file_format=FORMAT)):
        raise DataError(
            f"{name} is not here yet, and tensorflow-datasets prepares a download with "
            "TensorFlow (reading needs none): install tensorflow once, or name a "
            f"folder that already holds {name} with DATA_DIR=..."
        )
    options: Any = {"data_dir": data_dir, "download": data_dir is None}
    try:
        train = _arrays(tfds.data_source(name, split="train", **options))
        test = _arrays(tfds.data_source(name, split="test", **options))
    except Exception as error:  # tfds raises whatever its many back ends raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        where = f"read from {data_dir!r}" if data_dir else "downloaded"
        raise DataError(
            f"{name} could not be {where} ({reason}); give a folder that holds it in "
            "the layout of TensorFlow Datasets with DATA_DIR=..."
        ) from error
    return Dataset(name, *train, *test)


def _can_prepare(builder: Any) -> bool:
    return builder.is_prepared() or importlib.util.find_spec("tensorflow") is not None


def _arrays(source: Any) -> tuple[np.ndarray, np.ndarray]:
    examples = source.__getitems__(range(len(source)))
    images = np.stack([example["image"] for example in examples])
    labels = np.array([example["label"] for example in examples], np.int32)
    return images.astype(np.float32) / 255, labels
