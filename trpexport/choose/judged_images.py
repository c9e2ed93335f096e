"""Images to calibrate on, and labelled ones of another data set to judge by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trpexport.choose.base import CalibrationImages
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import (
    MOST_LABELLED,
    DatasetImages,
    LabelledPixels,
    LabelledTensors,
    spread,
)
from trpexport.datasets.labelled import LabelledSamples
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError
from trpexport.inputs import Inputs, rows
from trpexport.tensors import Array, Arrays


@dataclass(frozen=True)
class JudgedImages:
    """Images to calibrate on, whose labelled samples come from elsewhere.

    Attributes:
        images: those to calibrate on.
        samples: those to judge by.
    """

    images: CalibrationImages
    samples: LabelledSamples

    @property
    def inputs(self) -> Array | Arrays:
        """Inputs of the network to calibrate on."""
        return self.images.inputs

    @property
    def notes(self) -> Sequence[str]:
        """What the reader of a report should know of them."""
        return self.images.notes

    def facts(self) -> dict[str, Any]:
        """Return where they come from, JSON-ready."""
        return self.images.facts()

    def held_out(self) -> tuple[str, Array | Arrays]:
        """Return what inputs that are not calibrated on are, and they."""
        return self.images.held_out()

    def to_train_on(self, count: int) -> Array | Arrays:
        """Return at most ``count`` inputs to train on, none of them among the samples."""
        given = self.images.to_train_on(count)
        judged = {digest for some, _ in self.samples.batches() for digest in _digests(some)}
        left: Array | Arrays = rows(given, [one not in judged for one in _digests(given)])
        return left

    def unseen(self) -> Array | Arrays:
        """Return inputs to verify on."""
        return self.images.unseen()

    def labelled(self) -> LabelledSamples:
        """Return the samples to judge by."""
        return self.samples


def judged_by(
    images: CalibrationImages,
    data: Dataset | TensorSet,
    inputs: Inputs,
    preprocessing: Preprocessing | None,
    seed: int = 0,
) -> CalibrationImages:
    """Return images to calibrate on with the labelled samples of another data set.

    Its test images, else those of its only split; those that are calibrated on as well are left
    out.

    Args:
        images: those to calibrate on.
        data: the other data set.
        inputs: the network's.
        preprocessing: how images become input; raw tensors are it already.
        seed: which samples of many.

    Raises:
        DataError: there are no labels, they do not fit the network, or all samples are calibrated
            on.
    """
    samples: LabelledPixels | LabelledTensors
    if isinstance(data, TensorSet):
        which = spread(len(data), min(MOST_LABELLED, len(data)), seed)
        given = rows(data.given(inputs), which)
        samples = LabelledTensors(data.name, "labelled", given, data.target(which))
    else:
        assert preprocessing is not None
        shape = inputs.first.shape
        samples = DatasetImages(data, preprocessing, shape, count=0, seed=seed).labelled()
    seen = set(_digests(images.inputs))
    found = [_digests(some) for some, _ in samples.batches()]
    left = np.flatnonzero([digest not in seen for batch in found for digest in batch])
    if not len(left):
        raise DataError(
            f"{data.name} holds no labelled samples besides those to calibrate on, whose labels "
            "could be gone by: give others",
            parameters=("data",),
        )
    return JudgedImages(images, samples.taken(left))


def _digests(inputs: Array | Arrays) -> list[bytes]:
    """Return what tells each sample from others, by its values."""
    arrays = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, Mapping) else [inputs]
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in sample)).digest()
        for sample in zip(*arrays, strict=True)
    ]
