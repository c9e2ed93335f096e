"""A made-up data set for the small network of tests, which is right about all of its images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from tests.artifact.networks import SHAPE, tiny
from trpexport.datasets.base import Dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit, Split

HOW = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return images whose neighbouring pixels are alike, as those of real images are."""
    noise = np.random.default_rng(seed).standard_normal((count, *SHAPE[1:]))
    smooth = noise.cumsum(2).cumsum(3) * 8 + 128
    return smooth.clip(0, 255).astype(np.uint8)


def made_dataset(**images: NDArray[np.uint8]) -> Dataset:
    """Return a data set of images by split, with the labels that the network gives them."""

    def reader(values: NDArray[np.uint8]) -> Callable[[], Split]:
        def read() -> Split:
            with torch.no_grad():
                labels = tiny()(torch.from_numpy(HOW.normalise(values))).argmax(1).numpy()
            return ArraySplit(values, labels.astype(np.int64))

        return read

    readers = {name: reader(values) for name, values in images.items()}
    return Dataset("made:/some/where/up", tuple("abcde"), 3, HOW, readers)


BOTH = made_dataset(train=pixels(24), test=pixels(16, seed=1))
