"""How far the outputs of two networks are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from torch import Tensor

from trpexport.errors import DataError
from trpexport.networks.base import Traversal

Outputs = Mapping[str, Tensor]


def distance(expected: Traversal, actual: Traversal, batches: int) -> dict[str, float]:
    """Return how far apart each output of two networks is, as :func:`output_errors` has it."""
    return output_errors(map(expected.outputs, range(batches)), map(actual.outputs, range(batches)))


def output_errors(expected: Iterable[Outputs], actual: Iterable[Outputs]) -> dict[str, float]:
    """Return the RMS difference of each output, relative to how much the expected one varies.

    Outputs are not joined: a large one, or one that nothing changes, hides no error of another.

    Args:
        expected: outputs by name, (images, elements) each, batch after batch.
        actual: the others, in the same batches.

    Returns:
        By output: the root of the mean square of the difference, over that of the expected output
        about its mean over all images.

    Raises:
        DataError: there are NaN or infinity among them, or other outputs or numbers of elements.
    """
    sums: dict[str, _Sums] = {}
    for wanted, given in zip(expected, actual, strict=True):
        if wanted.keys() != given.keys():
            raise DataError(
                f"the network puts out {', '.join(wanted)}, and {', '.join(given)} once layers are "
                "rewritten: outputs that come and go can't be compared"
            )
        for name, output in wanted.items():
            sums.setdefault(name, _Sums()).add(output, given[name])
    return {name: some.distance() for name, some in sums.items()}


def variations(outputs: Iterable[Outputs]) -> dict[str, float]:
    """Return how much each output varies over images: what an error of it is told relative to.

    Args:
        outputs: by name, (images, elements) each, batch after batch.

    Returns:
        By output the sum of squares about its mean over all images, over their number; of its
        squares where it does not vary.

    Raises:
        DataError: there are NaN or infinity among them.
    """
    sums: dict[str, _Sums] = {}
    for batch in outputs:
        for name, output in batch.items():
            sums.setdefault(name, _Sums()).add(output, output)
    return {name: some.variation() / some.count for name, some in sums.items()}


def worst(errors: Mapping[str, float]) -> float:
    """Return the largest error of any output: the one that counts."""
    return max(errors.values(), default=0.0)


class _Sums:
    """Sums of squares over the batches of one output."""

    def __init__(self) -> None:
        self._difference = 0.0
        self._power = 0.0
        self._total: Tensor | None = None
        self.count = 0

    def add(self, wanted: Tensor, given: Tensor) -> None:
        """Take in one batch, (images, elements)."""
        if wanted.shape != given.shape:
            raise DataError(
                f"the network puts out {wanted.shape[1]} numbers an image, and {given.shape[1]} "
                "once layers are rewritten: outputs of a size of their own can't be compared"
            )
        self._difference += float((given - wanted).square().sum())
        self._power += float(wanted.square().sum())
        self._total = wanted.sum(0) if self._total is None else self._total + wanted.sum(0)
        self.count += len(wanted)

    def variation(self) -> float:
        """Return the sum of squares of what was wanted, about its mean over images if it varies."""
        assert self._total is not None
        if not math.isfinite(self._power):
            raise DataError(
                "the network gives NaN or infinity on calibration images: check how they are "
                "normalised"
            )
        variation = self._power - float(self._total.square().sum()) / self.count
        # All images the same: there is no variation to compare with.
        return variation if variation > 1e-12 * self._power else self._power

    def distance(self) -> float:
        """Return the RMS difference, relative to the variation of what was wanted."""
        scale = self.variation()
        if not math.isfinite(self._difference):
            raise DataError(
                "the network gives NaN or infinity on calibration images once layers are "
                "rewritten: leave some of them out, or more of their rank"
            )
        return (self._difference / scale) ** 0.5 if scale else float(self._difference > 0)
