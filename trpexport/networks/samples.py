"""Unlabelled inputs of a network: checked, in batches, some of them held out."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import DataError
from trpexport.inputs import Inputs, InputsLike, images_of, rows
from trpexport.tensors import Array, Arrays

# So few that malloc keeps a batch's activations and hands them out again: beyond 32 MB it asks the
# system for clean pages each time.
_BATCH_ELEMENTS = 1_000_000
_ACTIVATION_BYTES = 32 << 20
_HELD_OUT = 4  # one sample in so many


@dataclass(frozen=True)
class Samples:
    """Inputs of a network, as they come from its preprocessing.

    Attributes:
        values: by input (samples, *shape of one); floats are float32; may be memory maps.
        max_batch: how many the network takes at a time.
    """

    values: Arrays
    max_batch: int = 64

    def __len__(self) -> int:
        return images_of(self.values)

    @property
    def usual_batch(self) -> int:
        """Samples in each batch, by their size alone."""
        elements = sum(prod(array.shape[1:]) for array in self.values.values())
        return int(max(1, _BATCH_ELEMENTS // elements))

    @property
    def batch_size(self) -> int:
        """Samples in each batch but the last."""
        return min(self.max_batch, self.usual_batch)

    @property
    def batches(self) -> int:
        """Number of batches."""
        return (len(self) + self.batch_size - 1) // self.batch_size

    def batch(self, index: int) -> dict[str, Array]:
        """Return one batch, by input: a copy, which a network may work on in place."""
        return {name: np.array(a[self._of(index)]) for name, a in self.values.items()}

    def held_out(self, index: int) -> NDArray[np.bool_]:
        """Return which samples of a batch are held out, (samples,)."""
        # By content: whatever the order, and equal samples are on the same side.
        return np.equal(self._checksums[self._of(index)] % _HELD_OUT, 0)

    def phases(self, index: int) -> NDArray[np.float64]:
        """Return a number from 0 to below 1 for each sample of a batch, (samples,).

        They are as good as random, but a matter of the content: whatever the order.
        """
        return np.ldexp((self._checksums[self._of(index)] // _HELD_OUT).astype(np.float64), -30)

    def first(self, count: int) -> Samples:
        """Return the ``count`` samples whose content comes first, whatever their order."""
        each = np.argsort(self._checksums, kind="stable")
        return replace(self, values=rows(self.values, each[:count]))

    def with_outputs_of(self, largest: int) -> Samples:
        """Return them in batches of which no layer of a network puts out more than malloc keeps.

        Args:
            largest: bytes that a layer puts out for one sample, at most.
        """
        most = max(1, _ACTIVATION_BYTES // max(1, largest))
        return replace(self, max_batch=min(most, self.max_batch))

    def whole_batches(self, batch: int) -> Samples:
        """Return as many of them as make whole batches of ``batch``."""
        some = slice(len(self) // batch * batch)
        return replace(self, values=rows(self.values, some), max_batch=batch)

    def _of(self, index: int) -> slice:
        return slice(index * self.batch_size, (index + 1) * self.batch_size)

    def _contents(self) -> Iterator[bytes]:
        """Yield what each sample holds, all its inputs together."""
        for index in range(len(self)):
            yield b"".join(array[index].tobytes() for array in self.values.values())

    @cached_property
    def _checksums(self) -> NDArray[np.int64]:
        """CRC-32 of each sample, (samples,)."""
        return np.array([zlib.crc32(content) for content in self._contents()], np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the samples, whatever their order."""
        each = sorted(hashlib.sha256(content).digest() for content in self._contents())
        return hashlib.sha256(b"".join(each)).hexdigest()


def checked_samples(given: Any, inputs: InputsLike) -> Samples:
    """Check that images fit a network.

    Args:
        given: (images, channels, *size), normalised as for the network: an array, or a tensor; by
            name where the network has several inputs.
        inputs: what the network takes.

    Raises:
        DataError: there are none, their shape is wrong, or they hold NaN or infinity.
    """
    inputs = Inputs.of(inputs)
    arrays = (
        {name: plain_array(x) for name, x in given.items()}
        if isinstance(given, Mapping)
        else plain_array(given)
    )
    named = inputs.named(arrays, "calibration images")
    if not images_of(named):
        raise DataError("there are no calibration images: give at least one, better 512")
    return Samples({name: _checked(array, inputs[name].dtype) for name, array in named.items()})


def plain_array(values: Any) -> Array:
    """Return an array, or a tensor of PyTorch as one."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _checked(values: Array, dtype: str | None) -> Array:
    """Return values of one input in its type.

    Raises:
        DataError: they are of another kind, or hold NaN or infinity.
    """
    if dtype is not None:
        return values.astype(dtype, copy=False)
    if not np.issubdtype(values.dtype, np.floating):
        raise DataError(
            f"calibration images are of type {values.dtype}: normalise them as the network's "
            "training did, to float32"
        )
    values = values.astype(np.float32, copy=False)
    if not all(np.isfinite(image).all() for image in values):
        raise DataError("a calibration image holds NaN or infinity: leave it out")
    return values
