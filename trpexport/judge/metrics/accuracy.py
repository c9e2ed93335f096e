"""``top1`` and ``top5``: how often the right class has the largest output, or one of five."""

from __future__ import annotations

from functools import partial

import numpy as np

from trpexport.errors import DataError
from trpexport.judge.metrics.base import METRICS, RatioMetric, Terms, misfit
from trpexport.tensors import Array


def accuracy_terms(name: str, count: int, predictions: Array, targets: Array) -> Terms:
    """Return how many places of each sample are right, and how many there are.

    Args:
        name: of the metric, for messages.
        count: among how many of the largest outputs the right class has to be.
        predictions: (samples, classes, *places).
        targets: classes, (samples, *places).

    Raises:
        DataError: they do not fit each other.
    """
    places = (len(targets), int(np.prod(targets.shape[1:], dtype=int)))
    if (
        predictions.ndim < 2
        or targets.dtype.kind not in "iu"
        or len(predictions) != len(targets)
        or int(np.prod(predictions.shape[2:], dtype=int)) != places[1]
    ):
        raise misfit(
            name, predictions, targets, "give scores n x classes, and as targets the classes, n"
        )
    scores = predictions.reshape(*predictions.shape[:2], places[1]).astype(np.float64)
    classes = targets.reshape(places)
    if classes.size and not 0 <= classes.min() <= classes.max() < scores.shape[1]:
        raise DataError(
            f"targets go from {classes.min()} to {classes.max()}, the network tells "
            f"{scores.shape[1]} classes apart: number them from 0"
        )
    scores = np.where(np.isfinite(scores).all(axis=1, keepdims=True), scores, np.nan)
    # Of equal outputs the lower class comes first; what is not finite is never right.
    right = np.take_along_axis(scores, classes[:, None].astype(np.int64), axis=1)
    lower = np.arange(scores.shape[1])[None, :, None] < classes[:, None]
    before = ((scores > right) | ((scores == right) & lower)).sum(axis=1)
    hits = (before < count) & np.isfinite(right[:, 0])
    totals = np.full((len(hits), 1), float(places[1]))
    return Terms(hits.sum(axis=1, keepdims=True).astype(np.float64), totals)


for _name, _count, _summary in (
    ("top1", 1, "share of classes that are right"),
    ("top5", 5, "share of classes among the five largest outputs"),
):
    METRICS.register(_name, RatioMetric(_name, _summary, partial(accuracy_terms, _name, _count)))
