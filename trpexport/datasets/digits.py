"""Handwritten digits of 8x8 pixels, which come with scikit-learn: no files needed."""

from __future__ import annotations

from functools import partial

import numpy as np

from trpexport.datasets.base import Dataset, Reader
from trpexport.datasets.packages import require
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.registry import DATASETS
from trpexport.datasets.splits import ArraySplit
from trpexport.errors import DataError

_CLASSES = 10
_DARKEST = 16  # pixels are 0..16
# Measured over the training images.
_PREPROCESSING = Preprocessing((0.3054,), (0.3753,))


def open_digits(location: str | None) -> Dataset:
    """Open the 1,797 digits of ``sklearn.datasets.load_digits``; pixels are scaled to 0..255.

    The split is fixed: of each class, in the order of the file, the first 80 % are for training
    and the rest, 364 in all, for testing. People wrote the digits one after the other, so that
    most of those who wrote the test images wrote no training image.

    Raises:
        DataError: a path was given.
        MissingDependencyError: scikit-learn is not installed.
    """
    if location is not None:
        raise DataError(
            f"digits come with scikit-learn, without a path: write digits, not digits:{location}"
        )
    require("sklearn.datasets", "scikit-learn", "the data set digits")
    return Dataset(
        name="digits",
        classes=tuple(map(str, range(_CLASSES))),
        channels=1,
        preprocessing=_PREPROCESSING,
        readers={name: partial(_read, name) for name in ("train", "test")},
    )


def _read(split: str) -> ArraySplit:
    digits = require("sklearn.datasets", "scikit-learn", "the data set digits").load_digits()
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), bool)
    for label in range(_CLASSES):
        of_class = np.flatnonzero(labels == label)
        is_test[of_class[len(of_class) * 4 // 5 :]] = True
    chosen = is_test if split == "test" else ~is_test
    images = np.rint(digits.images[chosen] * (255 / _DARKEST)).astype(np.uint8)
    return ArraySplit(images[:, np.newaxis], labels[chosen])


DATASETS.register("digits", Reader("digits", "8x8 digits of scikit-learn", open_digits))
