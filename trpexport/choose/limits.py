"""The one limit that a choice is held to."""

from __future__ import annotations

import math
from collections.abc import Mapping

from trpexport.errors import PlanError
from trpexport.judge.metrics import Metric


def only_limit(limits: Mapping[str, float | None], message: str) -> tuple[str, float]:
    """Return the kind and the value of the one limit that was given.

    Args:
        limits: by kind, None where it was not given.
        message: what to say where there is not one.

    Raises:
        PlanError: there is not one.
    """
    given = [(kind, limit) for kind, limit in limits.items() if limit is not None]
    if len(given) != 1:
        raise PlanError(message)
    return given[0]


def check_drop(limit: float, metric: Metric | None) -> None:
    """Refuse a drop that can't be.

    Args:
        limit: what may be lost, in points of a share.
        metric: what of; None for images whose class is right.

    Raises:
        PlanError: it is out of range.
    """
    in_points = metric is None or metric.is_share
    if not 0 <= limit < (100 if in_points else math.inf):
        unit, below = (" points", "to below 100") if in_points else ("", "on")
        raise PlanError(f"a drop of {limit:g}{unit} is out of range: from 0 {below}")
