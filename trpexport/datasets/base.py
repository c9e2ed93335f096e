"""What a data set is: named classes, and splits of images with labels. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError


class Split(ABC):
    """Images with labels, in a fixed order.

    Attributes:
        labels: class numbers, (n,), int64.
    """

    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (height, width, channels).

        Raises:
            DataError: the image can't be decoded.
        """

    def arrays(self) -> NDArray[np.uint8] | None:
        """Return all images at once, (n, channels, height, width); None where sizes differ.

        A split that lies in files keeps what it decoded, as long as that is not large.

        Raises:
            DataError: an image can't be decoded.
        """
        return None

    def in_memory(self) -> NDArray[np.uint8] | None:
        """Return what :meth:`arrays` does if that is there already, else None."""
        return None


@dataclass(frozen=True)
class ArraySplit(Split):
    """Images in memory.

    Attributes:
        images: (n, channels, height, width).
        labels: (n,).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (height, width, channels)."""
        return np.ascontiguousarray(self.images[index].transpose(1, 2, 0))

    def arrays(self) -> NDArray[np.uint8]:
        """Return all images, (n, channels, height, width)."""
        return self.images

    def in_memory(self) -> NDArray[np.uint8]:
        """Return all images, (n, channels, height, width)."""
        return self.images


@dataclass(frozen=True)
class Dataset:
    """A data set whose splits are read when they are asked for.

    Attributes:
        name: what the user typed, as in ``cifar10:DIR``.
        classes: class names, in the order of the labels.
        channels: 1 or 3.
        preprocessing: how its images become input, unless a checkpoint says otherwise.
        readers: reads a split, by name: ``train`` and ``test``, or ``test`` alone.
        mirror: whether an image's mirror image is of the same class; not so for digits.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    preprocessing: Preprocessing
    readers: Mapping[str, Callable[[], Split]]
    mirror: bool = True

    def split(self, name: str) -> Split:
        """Read a split.

        Raises:
            DataError: there is no such split, or its files are missing or damaged.
        """
        if name not in self.readers:
            raise DataError(f"{self.name} has no {name} images, only {', '.join(self.readers)}")
        return self.readers[name]()


@dataclass(frozen=True)
class Reader:
    """A kind of data set, as the registry holds it.

    Attributes:
        usage: what a user types, as in ``cifar10:DIR``.
        summary: what it is, in a few words.
        open: opens it from the text after the colon, None where there is none; raises a DataError
            where its files are missing. It reads no more than it takes to know the classes.
    """

    usage: str
    summary: str
    open: Callable[[str | None], Dataset]
