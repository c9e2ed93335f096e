"""How far the outputs of two networks differ, and how far they may."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trpexport.errors import ModelError
from trpexport.tensors import Array, Arrays, shape_text


@dataclass(frozen=True)
class Tolerance:
    """How far two networks that compute the same may differ.

    Both limits are relative to the RMS of the reference output, not to each element: an element
    near zero turns a rounding error into a huge relative one (66 % at an absolute difference of
    4.8e-7 in microsoft/onnxruntime#18946). Where single values stand far above the RMS, as in a
    softmax over thousands of classes, rounding is in proportion to them. Float32 rounds at 6e-8;
    sums of thousands of products in another order, through tens of layers, differ by some 1e-6 of
    the RMS in single elements. The defaults leave two to three decimal digits above that and lie
    well below what a wrong layer does.

    Attributes:
        max_error: limit of :attr:`Comparison.max_error`.
        rms_error: limit of :attr:`Comparison.rms_error`.
        agreement: least :attr:`Comparison.agreement`. Rounding decides near ties alone.
    """

    max_error: float = 1e-3
    rms_error: float = 1e-4
    agreement: float = 0.999

    @classmethod
    def of(cls, max_error: float) -> Tolerance:
        """Return the tolerance whose limits are in the same proportions as the default's."""
        return cls(max_error, max_error / 10, max(0.0, 1 - max_error))


FLOAT32 = Tolerance()
# Outputs whose squares vary by a smaller share of their sum over images do not vary.
_CONSTANT = 1e-12
# Share of the largest value that single differences are held against where it is above the RMS.
_PEAK = 0.1


@dataclass(frozen=True)
class Comparison:
    """How a candidate's output differs from the reference, over all inputs.

    Where either holds a NaN or an infinity, both errors are infinite and the cosine is NaN.
    Where the reference is all zeros, the errors are 0 if the candidate is too, else infinite.

    Attributes:
        inputs: number of images (first dimensions) that were compared.
        max_error: largest absolute difference, over the RMS of the reference, or over a tenth of
            its largest value where that is more.
        rms_error: RMS of the difference, over the RMS of the reference.
        cosine: cosine of the angle between the two outputs, each as one long vector.
        top1_agreement: share of rows with the largest entry in the same place; None unless the
            output is a matrix with two or more columns.
        agreement: share of equal entries where the output is whole numbers or truth values, such
            as places of maxima, whose differences mean nothing; None for floats.
        variation_error: RMS of the difference, over the variation of the reference: its RMS about
            its mean over all images, as in calibration; over its RMS where nothing varies.
        varies: whether the reference differs between any two images, so that something is told by
            it; None for whole numbers, and where there are no two.
    """

    inputs: int
    max_error: float
    rms_error: float
    cosine: float
    top1_agreement: float | None
    agreement: float | None = None
    variation_error: float = math.nan
    varies: bool | None = None

    def is_equivalent(self, tolerance: Tolerance = FLOAT32) -> bool:
        """Whether both errors, or the agreement of whole numbers, keep within ``tolerance``."""
        if self.agreement is not None:
            return self.agreement >= tolerance.agreement
        return self.max_error <= tolerance.max_error and self.rms_error <= tolerance.rms_error

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data; what is not a finite number becomes None."""
        return {
            key: value if value is not None and math.isfinite(value) else None
            for key, value in asdict(self).items()
        }

    def __str__(self) -> str:
        inputs = f"{self.inputs} input{'s' if self.inputs != 1 else ''}"
        if self.agreement is not None:
            return f"{self.agreement:.2%} of the values agree, {inputs}"
        text = (
            f"max error {self.max_error:.2g}, RMS error {self.rms_error:.2g} of the output's RMS, "
            f"cosine {self.cosine:.7f}"
        )
        if self.top1_agreement is not None:
            text += f", top-1 agreement {self.top1_agreement:.2%}"
        return f"{text}, {inputs}"


class Comparer:
    """Compares an output batch by batch; sums are kept in float64, arrays are not kept."""

    def __init__(self) -> None:
        self._inputs = 0
        self._elements = 0
        self._largest = 0.0
        self._peak = 0.0  # of the reference
        self._difference_squares = 0.0
        self._reference_squares = 0.0
        self._candidate_squares = 0.0
        self._products = 0.0
        self._agreeing_rows: int | None = 0
        self._agreeing: int | None = 0
        self._total: Array | None = None  # over images, element by element
        self._counts_images = True
        self._first: Array | None = None  # image, of the reference
        self._varies = False

    def update(self, reference: Array, candidate: Array) -> None:
        """Take in one batch of outputs.

        Args:
            reference: what the output should be; the first dimension counts images.
            candidate: what it is, of the same shape.

        Raises:
            ModelError: the shapes differ, or one is of floats and the other is not.
        """
        if reference.shape != candidate.shape or reference.dtype.kind != candidate.dtype.kind:
            raise ModelError(
                f"the outputs can't be compared: {reference.dtype}[{shape_text(reference.shape)}] "
                f"and {candidate.dtype}[{shape_text(candidate.shape)}]"
            )
        if reference.size == 0:
            return
        a, b = reference.astype(np.float64), candidate.astype(np.float64)
        if reference.dtype.kind == "f":
            self._agreeing = None
        elif self._agreeing is not None:
            self._agreeing += int((reference == candidate).sum())
        # NaN, infinity and overflow end up in the sums of squares, where result() meets them.
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(a - b)
            self._largest = float(np.maximum(self._largest, difference.max()))
            self._peak = float(np.maximum(self._peak, np.abs(a).max()))
            self._difference_squares += float(np.square(difference).sum())
            self._reference_squares += float(np.square(a).sum())
            self._candidate_squares += float(np.square(b).sum())
            self._products += float((a * b).sum())
            self._add_total(a)
        self._follow(a)
        self._inputs += len(a) if a.ndim else 1
        self._elements += a.size
        self._count_rows(a, b)

    def result(self) -> Comparison:
        """Return the comparison over everything so far.

        Raises:
            ModelError: nothing was compared.
        """
        if not self._elements:
            raise ModelError("nothing was compared: give at least one input")
        finite = math.isfinite(self._reference_squares + self._candidate_squares)
        reference = math.sqrt(self._reference_squares) if finite else math.nan
        candidate = math.sqrt(self._candidate_squares) if finite else math.nan
        scale = max(reference / math.sqrt(self._elements), _PEAK * self._peak)
        top1 = None if self._agreeing_rows is None else self._agreeing_rows / self._inputs
        return Comparison(
            inputs=self._inputs,
            max_error=_relative(self._largest, scale),
            rms_error=_relative(math.sqrt(self._difference_squares), reference),
            cosine=self._cosine(reference, candidate),
            top1_agreement=top1,
            agreement=None if self._agreeing is None else self._agreeing / self._elements,
            variation_error=_relative(
                math.sqrt(self._difference_squares), self._variation(reference)
            ),
            varies=self._varies if self._agreeing is None and self._inputs > 1 else None,
        )

    def _variation(self, reference: float) -> float:
        """Return the norm of the reference about its mean over images, or its norm."""
        if math.isnan(reference):
            return reference
        if self._total is None or not self._counts_images:
            return reference
        square = self._reference_squares - float(np.square(self._total).sum()) / self._inputs
        # All images the same: there is no variation to compare with.
        return math.sqrt(square) if square > _CONSTANT * self._reference_squares else reference

    def _follow(self, a: Array) -> None:
        """Go on to look for two images that differ; those of another size tell nothing."""
        images = a if a.ndim else a[None]
        if self._first is None:
            self._first = images[0].copy()
        if not self._varies and images.shape[1:] == self._first.shape:
            self._varies = bool((images != self._first).any())

    def _add_total(self, a: Array) -> None:
        """Add up over images; outputs of another size from batch to batch do not count them."""
        if not a.ndim or (self._total is not None and self._total.shape != a.shape[1:]):
            self._counts_images = False
        elif self._counts_images:
            self._total = a.sum(0) if self._total is None else self._total + a.sum(0)

    def _count_rows(self, a: Array, b: Array) -> None:
        if self._agreeing_rows is None or a.ndim != 2 or a.shape[1] < 2:
            self._agreeing_rows = None
            return
        # argmax takes the first NaN for the largest, so that two broken rows would agree.
        sound = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        self._agreeing_rows += int((sound & (a.argmax(axis=1) == b.argmax(axis=1))).sum())

    def _cosine(self, reference: float, candidate: float) -> float:
        if reference and candidate:
            return float(np.clip(self._products / reference / candidate, -1, 1))
        return 1.0 if reference == candidate else 0.0


class OutputComparer:
    """Compares all outputs of two networks, each by its name, batch by batch."""

    def __init__(self) -> None:
        self._comparers: dict[str, Comparer] = {}

    def update(self, reference: Arrays, candidate: Arrays) -> None:
        """Take in one batch of outputs of both networks for the same inputs.

        Raises:
            ModelError: the names, shapes or types differ.
        """
        self._comparers = self._comparers or {name: Comparer() for name in reference}
        if not self._comparers.keys() == reference.keys() == candidate.keys():
            raise ModelError(
                f"the outputs can't be compared: {', '.join(reference) or 'none'} "
                f"and {', '.join(candidate) or 'none'}"
            )
        for name, comparer in self._comparers.items():
            comparer.update(reference[name], candidate[name])

    def result(self) -> dict[str, Comparison]:
        """Return one comparison an output, in the reference's order.

        Raises:
            ModelError: nothing was compared.
        """
        if not self._comparers:
            raise ModelError("nothing was compared: give at least one input")
        return {name: comparer.result() for name, comparer in self._comparers.items()}


def note_on_still(outputs: Mapping[str, Comparison], inputs: str) -> str | None:
    """Return what to say of outputs that are the same for every image; None where there are none.

    Args:
        outputs: comparisons by output.
        inputs: what they were compared on.
    """
    still = [name for name, found in outputs.items() if found.varies is False]
    if not still:
        return None
    return (
        f"{', '.join(still)} {'does' if len(still) == 1 else 'do'} not vary over {inputs}, so "
        "comparing it says little: give inputs of the kind that it was trained on"
    )


def compare_outputs(batches: Iterable[tuple[Arrays, Arrays]]) -> dict[str, Comparison]:
    """Compare the outputs of two networks over batches, each output by its name.

    Args:
        batches: (reference outputs, candidate outputs) of the same inputs, one pair a batch.

    Raises:
        ModelError: the names, shapes or types differ, or there is nothing to compare.
    """
    comparer = OutputComparer()
    for reference, candidate in batches:
        comparer.update(reference, candidate)
    return comparer.result()


def _relative(error: float, reference: float) -> float:
    """Return ``error / reference``; 0 for no error at all, infinity where it has no value."""
    if math.isnan(reference):
        return math.inf
    if error == 0:
        return 0.0
    return error / reference if reference else math.inf
