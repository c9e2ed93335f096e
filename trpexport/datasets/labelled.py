"""Images and labels that came from separate places: do they belong together?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.locations import damaged
from trpexport.datasets.splits import ArraySplit
from trpexport.tensors import Array, Arrays


class LabelledSamples(Protocol):
    """Inputs of a network, and what it should make of them."""

    @property
    def data(self) -> str:
        """The data as the user typed them."""

    @property
    def name(self) -> str:
        """Which part of them, for the reader."""

    @property
    def classes(self) -> int | None:
        """Number of classes of the data; None where they have none."""

    def batches(self) -> Iterator[tuple[Array | Arrays, Array | Arrays]]:
        """Yield inputs, by name or of the only one, and targets, of one output or of several."""


class LabelledImages(Protocol):
    """Images whose classes are known."""

    @property
    def name(self) -> str:
        """Which part of the data they are, for the reader."""

    @property
    def classes(self) -> int:
        """Number of classes of the data."""

    def batches(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield inputs of the network and their classes."""


def checked_labels(
    labels: NDArray[Any], count: int, classes: int, source: object
) -> NDArray[np.int64]:
    """Return labels as int64, (n,), once they fit the images and the classes.

    Args:
        labels: class numbers.
        count: number of images.
        classes: number of classes.
        source: where they come from, for the message.

    Raises:
        DataError: there are no images, another number of labels, or a label out of range.
    """
    if count == 0:
        raise damaged(source, "it holds no images")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise damaged(source, f"its labels are {labels.dtype} of shape {labels.shape}")
    if len(labels) != count:
        raise damaged(source, f"it holds {count} images and {len(labels)} labels")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise damaged(
            source,
            f"image {wrong[0]} has the label {labels[wrong[0]]}, and there are {classes} classes",
        )
    return labels.astype(np.int64)


def array_split(
    images: NDArray[Any], labels: NDArray[Any], classes: int, source: object
) -> ArraySplit:
    """Return images, (n, channels, height, width), with their labels, (n,), once these fit."""
    count = len(images) if images.size else 0  # images of no pixels are none
    return ArraySplit(images, checked_labels(labels, count, classes, source))
