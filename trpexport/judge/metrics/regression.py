"""``rmse`` and ``mae``: how far numbers are from what they should be, in their own unit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trpexport.judge.metrics.base import METRICS, Finish, RatioMetric, Terms, misfit
from trpexport.tensors import Array


def error_terms(
    name: str,
    loss: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    finish: Finish,
    predictions: Array,
    targets: Array,
) -> Terms:
    """Return the summed loss of each sample's numbers, and how many numbers these are.

    Args:
        name: of the metric, for messages.
        loss: what is made of each difference.
        finish: what is made of the mean.
        predictions: (samples, ...).
        targets: as many numbers.

    Raises:
        DataError: they are not.
    """
    shapes = [tuple(n for n in array.shape[1:] if n != 1) for array in (predictions, targets)]
    if shapes[0] != shapes[1] or len(predictions) != len(targets):
        raise misfit(name, predictions, targets, "give as many numbers of each, in the same shape")
    rows = len(targets)
    differences = predictions.reshape(rows, -1).astype(np.float64) - targets.reshape(rows, -1)
    sums = loss(differences).sum(axis=1, keepdims=True)
    return Terms(sums, np.full_like(sums, differences.shape[1]), finish)


METRICS.register(
    "rmse",
    RatioMetric(
        "rmse",
        "root of the mean squared error",
        partial(error_terms, "rmse", np.square, np.sqrt),
        is_share=False,
        lower_is_better=True,
    ),
)
METRICS.register(
    "mae",
    RatioMetric(
        "mae",
        "mean absolute error",
        partial(error_terms, "mae", np.abs, np.asarray),
        is_share=False,
        lower_is_better=True,
    ),
)
