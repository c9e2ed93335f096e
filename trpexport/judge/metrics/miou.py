"""``miou``: intersection over union of what was segmented, the mean over classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import DataError
from trpexport.judge.metrics.base import METRICS, RatioMetric, Terms, misfit
from trpexport.tensors import Array

VOID = 255  # a label that is none, as in Pascal VOC and Cityscapes; so is what is below 0


def miou_terms(predictions: Array, targets: Array) -> Terms:
    """Return the intersections and unions of each sample, by class; void pixels do not count.

    Intersections and unions are summed over all samples before they are divided, as in Pascal VOC
    and Cityscapes. A class that neither is there nor is seen does not count.

    Args:
        predictions: scores (samples, classes, *size); or of one channel, foreground above 0, or
            above 0.5 where all are from 0 to 1; or whole numbers (samples, *size), the classes.
        targets: classes (samples, *size), or (samples, 1, *size).

    Raises:
        DataError: they do not fit each other.
    """
    if targets.dtype.kind == "b":
        targets = targets.astype(np.uint8)
    found, classes = _classes(predictions)
    if targets.ndim == found.ndim + 1 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if found.shape != targets.shape or targets.ndim < 2 or targets.dtype.kind not in "iu":
        raise misfit(
            "miou",
            predictions,
            targets,
            "give scores n x classes x height x width, and as targets the classes, n x height x "
            "width, of the same size",
        )
    rows = len(targets)
    truth, found = targets.reshape(rows, -1).astype(np.int64), found.reshape(rows, -1)
    is_void = (truth < 0) | (truth == VOID)
    if classes is None:
        classes = int(max(found.max(initial=0), truth.max(initial=0, where=~is_void))) + 1
    if truth.max(initial=0, where=~is_void) >= classes:
        raise DataError(
            f"targets have the class {truth.max(where=~is_void, initial=0)}, the network tells "
            f"{classes} apart: number them from 0, with {VOID} for void"
        )
    is_seen = ~is_void
    both = _counts(truth, is_seen & (found == truth), classes)
    union = _counts(truth, is_seen, classes) + _counts(found, is_seen, classes) - both
    return Terms(both, union)


def _classes(predictions: Array) -> tuple[NDArray[np.int64], int | None]:
    """Return the class of each pixel, and how many classes there are where scores say it."""
    if predictions.dtype.kind != "f":
        has_channel = predictions.ndim > 3 and predictions.shape[1] == 1
        return (predictions[:, 0] if has_channel else predictions).astype(np.int64), None
    if not np.isfinite(predictions).all():
        raise DataError("the network puts out NaN or infinity: miou can't tell its classes")
    if predictions.ndim > 2 and predictions.shape[1] == 1:
        scores = predictions[:, 0]
        are_probabilities = scores.min(initial=0) >= 0 and scores.max(initial=0) <= 1
        return (scores > (0.5 if are_probabilities else 0)).astype(np.int64), 2
    return predictions.argmax(axis=1), predictions.shape[1]


def _counts(
    labels: NDArray[np.int64], counted: NDArray[np.bool_], classes: int
) -> NDArray[np.float64]:
    """Return how many of the counted pixels have each class, (samples, classes)."""
    rows = len(labels)
    place = np.arange(rows)[:, None] * classes + labels
    counts = np.bincount(place[counted], minlength=rows * classes)
    return counts.reshape(rows, classes).astype(np.float64)


METRICS.register(
    "miou", RatioMetric("miou", "mean intersection over union of segmented classes", miou_terms)
)
