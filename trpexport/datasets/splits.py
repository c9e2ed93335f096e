"""Images with labels, in a fixed order. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Split(ABC):
    """Images with labels, in a fixed order.

    Attributes:
        labels: class numbers, (n,), int64; -1 where there are none.
        is_labelled: whether there are.
    """

    labels: NDArray[np.int64]
    is_labelled: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> NDArray[Any]:
        """Return one image, (height, width, channels).

        Raises:
            DataError: the image can't be decoded.
        """

    def remarks(self) -> tuple[str, ...]:
        """Return what was done to images on reading them, a few words each, as far as is known."""
        return ()

    def arrays(self) -> NDArray[Any] | None:
        """Return all images at once, (n, channels, height, width); None where sizes differ.

        A split that lies in files keeps what it decoded, as long as that is not large.

        Raises:
            DataError: an image can't be decoded.
        """
        return None

    def in_memory(self) -> NDArray[Any] | None:
        """Return what :meth:`arrays` does if that is there already, else None."""
        return None


class Subset(Split):
    """Some images of a split.

    Args:
        split: the split.
        which: their numbers, (n,).
    """

    def __init__(self, split: Split, which: NDArray[np.int64]) -> None:
        self.labels = split.labels[which]
        self.is_labelled = split.is_labelled
        self._split, self._which = split, which

    def image(self, index: int) -> NDArray[Any]:
        """Return one image, (height, width, channels)."""
        return self._split.image(int(self._which[index]))

    def remarks(self) -> tuple[str, ...]:
        """Return what was done to images on reading them."""
        return self._split.remarks()

    def arrays(self) -> NDArray[Any] | None:
        """Return all of them at once, (n, channels, height, width); None where sizes differ."""
        images = self._split.arrays()
        return None if images is None else images[self._which]

    def in_memory(self) -> NDArray[Any] | None:
        """Return what :meth:`arrays` does if that is there already, else None."""
        images = self._split.in_memory()
        return None if images is None else images[self._which]


@dataclass(frozen=True)
class ArraySplit(Split):
    """Images in memory.

    Attributes:
        images: (n, channels, height, width).
        labels: (n,).
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    is_labelled: bool = True

    def image(self, index: int) -> NDArray[Any]:
        """Return one image, (height, width, channels)."""
        return np.ascontiguousarray(self.images[index].transpose(1, 2, 0))

    def arrays(self) -> NDArray[Any]:
        """Return all images, (n, channels, height, width)."""
        return self.images

    def in_memory(self) -> NDArray[Any]:
        """Return all images, (n, channels, height, width)."""
        return self.images
