"""How large an error may be on other images of the same kind, told by those at hand."""

from __future__ import annotations

import math

import numpy as np

from trpexport.judge.paired import normal_quantile
from trpexport.tensors import Array

CONFIDENCE = 0.95


def spread(errors: Array, sizes: Array) -> float:
    """Return the relative standard error of a ratio of two sums over images.

    That is of the linearised ratio estimator (Cochran, "Sampling Techniques", 1977, chapter 6): an
    image counts by how far its error is from what its size would have it be. 0 of a single image.

    Args:
        errors: of each image, not negative.
        sizes: what they are held against, of each image.
    """
    count, total, size = len(errors), float(errors.sum()), float(sizes.sum())
    if count < 2 or not total:
        return 0.0
    shares = sizes / size if size else np.full(count, 1 / count)
    deviations = errors / total - shares
    return math.sqrt(float(np.square(deviations).sum()) * count / (count - 1))


def student_quantile(probability: float, freedom: int) -> float:
    """Return a quantile of Student's t, by Cornish and Fisher's expansion about the normal one.

    It is 12 % short of the 0.95 quantile for one degree of freedom, and less than 2 % from two on.
    """
    z = normal_quantile(probability)
    corrections = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum((one / freedom**power for power, one in enumerate(corrections, 1)), 0.0)


def bound_factor(errors: Array, sizes: Array, *, is_root: bool) -> float:
    """Return by how much a ratio of sums may be larger on other images, at a confidence of 95 %.

    Ratios of squares are skewed, so the interval is one of their logarithm.

    Args:
        errors: of each image, not negative.
        sizes: what they are held against, of each image.
        is_root: whether the root of the ratio is what counts.
    """
    if len(errors) < 2:
        return 1.0
    power = student_quantile(CONFIDENCE, len(errors) - 1) * spread(errors, sizes)
    return math.exp(power / 2 if is_root else power)
