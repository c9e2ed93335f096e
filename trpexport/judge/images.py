"""Which images of a data set networks are judged on. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.base import Dataset
    from trpexport.datasets.preprocessing import Preprocessing
    from trpexport.datasets.splits import Split


@dataclass(frozen=True)
class Images:
    """The images to evaluate on.

    Attributes:
        data: the data set as the user typed it.
        name: which split of it.
        split: its images.
        classes: class names, in the order of the labels.
        indices: which of the images, (n,), in the order in which they are run.
        channels: of the images.
    """

    data: str
    name: str
    split: Split
    classes: tuple[str, ...]
    indices: NDArray[np.int64]
    channels: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """The classes of the images, (n,)."""
        return np.asarray(self.split.labels)[self.indices]

    def remarks(self, how: Preprocessing) -> tuple[str, ...]:
        """Return what was done to those that were read, a few words each, besides resizing."""
        converted = how.conversion(self.channels)
        return (*(() if converted is None else (converted,)), *self.split.remarks())


def choose_images(
    dataset: Dataset | TensorSet,
    name: str = "test",
    limit: int | None = None,
    *,
    labelled: bool = True,
) -> Images:
    """Return the images of a split, or some of them, spread evenly over it.

    Evenly spaced ones, not the first, since many data sets are sorted by class.

    Args:
        dataset: the data set.
        name: which split.
        limit: the number of images; None, or a number beyond what there is, takes all.
        labelled: whether their classes are needed.

    Raises:
        DataError: the split can't be read or is empty, or the limit is below 1.
    """
    if isinstance(dataset, TensorSet):
        raise DataError(f"{dataset.name} holds raw tensors, images with classes are needed here")
    spread_evenly(1, limit)  # a wrong limit is said before images are read
    split = dataset.split(name) if labelled else dataset.images(name)
    if not len(split):
        raise DataError(f"{dataset.name} has no {name} images")
    indices = spread_evenly(len(split), limit)
    return Images(dataset.name, name, split, dataset.classes, indices, dataset.channels)


def spread_evenly(total: int, limit: int | None = None) -> NDArray[np.int64]:
    """Return the numbers of ``limit`` of ``total`` samples, evenly spaced; of all where it is None.

    Raises:
        DataError: the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise DataError(
            f"a limit of {limit} leaves no images: give 1 or more", parameters=("limit",)
        )
    count = total if limit is None else min(limit, total)
    return np.arange(count, dtype=np.int64) * total // count
