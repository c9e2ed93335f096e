"""Whether images are the same ones, told by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from trpexport.datasets.splits import Split


class HashedSplit(Split):
    """A split that hashes its images as they are read, so that none is decoded twice for that.

    The pixels are those of the data set, before any network's preprocessing: networks of
    different input sizes see the same images.

    Args:
        split: the images.
    """

    def __init__(self, split: Split) -> None:
        self.labels = split.labels
        self._split = split
        self._hashes: dict[int, bytes] = {}

    def image(self, index: int) -> NDArray[Any]:
        """Return one image, (height, width, channels)."""
        image = self._split.image(index)
        if index not in self._hashes:
            shape = "x".join(map(str, image.shape)).encode()
            self._hashes[index] = hashlib.sha256(shape + b":" + image.tobytes()).digest()
        return image

    def remarks(self) -> tuple[str, ...]:
        """Return what was done to images on reading them."""
        return self._split.remarks()

    def in_memory(self) -> NDArray[Any] | None:
        """Return all images if they are in memory already, (n, channels, height, width)."""
        return self._split.in_memory()

    def sha256(self, indices: Iterable[int]) -> str:
        """Return the hash of some images in their order.

        Raises:
            DataError: an image can't be decoded.
        """
        total = hashlib.sha256()
        for index in map(int, indices):
            if index not in self._hashes:
                self.image(index)
            total.update(self._hashes[index])
        return total.hexdigest()
