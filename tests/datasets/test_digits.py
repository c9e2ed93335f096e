"""The digits of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from trpexport.datasets import open_dataset
from trpexport.errors import DataError


def test_the_split_is_the_same_for_ever() -> None:
    dataset = open_dataset("digits")
    train, test = dataset.split("train"), dataset.split("test")
    assert np.bincount(train.labels).tolist() == [142, 145, 141, 146, 144, 145, 144, 143, 139, 144]
    assert np.bincount(test.labels).tolist() == [36, 37, 36, 37, 37, 37, 37, 36, 35, 36]
    assert test.labels[:10].tolist() == [8, 2, 8, 0, 1, 2, 3, 4, 5, 6]  # as measured once


def test_pixels_are_scaled_to_255() -> None:
    image = open_dataset("digits").split("train").image(0)[..., 0]
    # The first digit of the file, whose pixels are 0..16.
    np.testing.assert_array_equal(image, np.rint(load_digits().images[0] * 255 / 16))


def test_the_mean_is_measured() -> None:
    dataset = open_dataset("digits")
    images = dataset.split("train").arrays()
    assert images is not None
    normalised = dataset.preprocessing.normalise(images)
    assert abs(normalised.mean()) < 1e-3
    assert abs(normalised.std() - 1) < 1e-3


def test_they_have_no_path() -> None:
    with pytest.raises(DataError, match="write digits, not digits:x"):
        open_dataset("digits:x")
