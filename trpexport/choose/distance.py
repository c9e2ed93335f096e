"""How far the outputs of two networks are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from trpexport.errors import DataError
from trpexport.networks.base import Traversal


def distance(expected: Traversal, actual: Traversal, batches: int) -> float:
    """Return the RMS difference of what two networks give, as :func:`relative_distance` has it."""
    return relative_distance(
        map(expected.outputs, range(batches)), map(actual.outputs, range(batches))
    )


def relative_distance(expected: Iterable[Tensor], actual: Iterable[Tensor]) -> float:
    """Return the RMS difference of outputs, relative to how much the expected ones vary.

    Args:
        expected: outputs (images, elements), batch after batch.
        actual: the others, in the same batches.

    Raises:
        DataError: there are NaN or infinity among them, or other numbers of elements.
    """
    difference = power = 0.0
    total: Tensor | None = None
    count = 0
    for wanted, given in zip(expected, actual, strict=True):
        if wanted.shape != given.shape:
            raise DataError(
                f"the network puts out {wanted.shape[1]} numbers an image, and {given.shape[1]} "
                "once layers are rewritten: outputs of a size of their own can't be compared"
            )
        difference += float((given - wanted).square().sum())
        power += float(wanted.square().sum())
        total = wanted.sum(0) if total is None else total + wanted.sum(0)
        count += len(wanted)
    if total is None:
        return 0.0
    if not math.isfinite(power):
        raise DataError(
            "the network gives NaN or infinity on calibration images: check how they are normalised"
        )
    if not math.isfinite(difference):
        raise DataError(
            "the network gives NaN or infinity on calibration images once layers are rewritten: "
            "leave some of them out, or more of their rank"
        )
    variation = power - float(total.square().sum()) / count
    # All images the same: there is no variation to compare with.
    scale = variation if variation > 1e-12 * power else power
    return (difference / scale) ** 0.5 if scale else float(difference > 0)
