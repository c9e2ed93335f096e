"""Unlabelled inputs of a network: checked, in batches, some of them held out."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import DataError

# So few that malloc keeps a batch's activations and hands them out again: beyond 32 MB it asks the
# system for clean pages each time.
_BATCH_ELEMENTS = 1_000_000
_HELD_OUT = 4  # one sample in so many


@dataclass(frozen=True)
class Samples:
    """Inputs of a network, as they come from its preprocessing.

    Attributes:
        values: (samples, *input shape), float32; may be a memory map.
        max_batch: how many the network takes at a time.
    """

    values: NDArray[np.float32]
    max_batch: int = 64

    def __len__(self) -> int:
        return len(self.values)

    @property
    def batch_size(self) -> int:
        """Samples in each batch but the last."""
        return max(1, min(self.max_batch, _BATCH_ELEMENTS // prod(self.values.shape[1:])))

    @property
    def batches(self) -> int:
        """Number of batches."""
        return (len(self.values) + self.batch_size - 1) // self.batch_size

    def batch(self, index: int) -> NDArray[np.float32]:
        """Return one batch."""
        start = index * self.batch_size
        return np.ascontiguousarray(self.values[start : start + self.batch_size])

    def held_out(self, index: int) -> NDArray[np.bool_]:
        """Return which samples of a batch are held out, (samples,)."""
        start = index * self.batch_size
        return self._is_held_out[start : start + self.batch_size]

    def first(self, count: int) -> Samples:
        """Return the ``count`` samples whose content comes first, whatever their order."""
        each = sorted(range(len(self.values)), key=lambda i: zlib.crc32(self.values[i].tobytes()))
        return replace(self, values=np.stack([self.values[i] for i in each[:count]]))

    @cached_property
    def _is_held_out(self) -> NDArray[np.bool_]:
        # By content: whatever the order, and equal samples are on the same side.
        return np.array([zlib.crc32(value.tobytes()) % _HELD_OUT == 0 for value in self.values])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the samples, whatever their order."""
        each = sorted(hashlib.sha256(value.tobytes()).digest() for value in self.values)
        return hashlib.sha256(b"".join(each)).hexdigest()


def checked_samples(images: Any, input_shape: Sequence[int]) -> Samples:
    """Check that images fit a network.

    Args:
        images: (images, channels, *size), normalised as for the network: an array, or a tensor.
        input_shape: shape of the network's input, batch first.

    Raises:
        DataError: there are none, their shape is wrong, or they hold NaN or infinity.
    """
    values: NDArray[Any] = (
        images.detach().cpu().numpy() if hasattr(images, "detach") else np.asarray(images)
    )
    wanted = "x".join(map(str, input_shape[1:]))
    if values.ndim != len(input_shape) or values.shape[1:] != tuple(input_shape[1:]):
        found = "x".join(map(str, values.shape))
        raise DataError(
            f"calibration images of shape {found} do not fit the network, which takes "
            f"images of {wanted}: give them as N x {wanted}"
        )
    if not len(values):
        raise DataError("there are no calibration images: give at least one, better 512")
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(
            f"calibration images are of type {values.dtype}: normalise them as the network's "
            "training did, to float32"
        )
    if values.dtype != np.float32:
        values = values.astype(np.float32)
    if not all(np.isfinite(image).all() for image in values):
        raise DataError("a calibration image holds NaN or infinity: leave it out")
    return Samples(values)
