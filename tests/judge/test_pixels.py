"""Hashes of images that are made here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.splits import ArraySplit, Split
from trpexport.judge.pixels import HashedSplit

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), np.uint8)
LABELS = np.zeros(5, np.int64)


class Files(Split):
    """Images that are decoded one by one, and how often each was."""

    def __init__(self) -> None:
        self.labels = LABELS
        self.decoded = [0] * len(IMAGES)

    def image(self, index: int) -> NDArray[np.uint8]:
        self.decoded[index] += 1
        image: NDArray[np.uint8] = IMAGES[index].transpose(1, 2, 0)
        return image


@pytest.mark.parametrize("resize", [None, 4])
def test_files_hold_the_same_pixels_as_arrays_and_are_decoded_once(resize: int | None) -> None:
    files = Files()
    hashed, indices = HashedSplit(files), np.array([4, 0, 2])
    how = Preprocessing((0.5,) * 3, (1.0,) * 3, resize=resize)
    prepared = how.prepare_split(hashed, indices)
    in_memory = HashedSplit(ArraySplit(IMAGES, LABELS))
    assert np.array_equal(prepared, how.prepare_split(in_memory, indices))
    assert hashed.sha256(indices) == in_memory.sha256(indices)
    assert files.decoded == [1, 0, 1, 0, 1]


def test_another_pixel_order_or_shape_is_another_hash() -> None:
    same = HashedSplit(ArraySplit(IMAGES, LABELS)).sha256([0, 1])
    changed = IMAGES.copy()
    changed[1, 2, 3, 5] ^= 1
    turned = IMAGES.transpose(0, 2, 3, 1).reshape(5, 6, 4, 3).transpose(0, 3, 1, 2)
    assert turned[0].transpose(1, 2, 0).tobytes() == IMAGES[0].transpose(1, 2, 0).tobytes()
    others = {
        HashedSplit(ArraySplit(changed, LABELS)).sha256([0, 1]),
        HashedSplit(ArraySplit(turned, LABELS)).sha256([0, 1]),
        HashedSplit(ArraySplit(IMAGES, LABELS)).sha256([1, 0]),
        HashedSplit(ArraySplit(IMAGES, LABELS)).sha256([0]),
    }
    assert len(others) == 4 and same not in others
    assert HashedSplit(ArraySplit(changed, LABELS)).sha256([0]) == HashedSplit(
        ArraySplit(IMAGES, LABELS)
    ).sha256([0])
