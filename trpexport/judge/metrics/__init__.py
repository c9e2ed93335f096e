"""Metrics: one file each, found by being in this folder; and anybody's own. No torch."""

from __future__ import annotations

import importlib
import pkgutil

from trpexport.errors import TrpexportError
from trpexport.judge.metrics.base import METRICS, Metric, Outcome, Tally
from trpexport.judge.metrics.own import OwnMetric

__all__ = ["METRICS", "Metric", "Outcome", "OwnMetric", "Tally", "find_metric"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def find_metric(text: str, *, lower_is_better: bool = False) -> Metric:
    """Return the metric of a name, or of ``package.module:function``.

    Args:
        text: the name; a function or class is imported, from the current directory too.
        lower_is_better: of one's own, whether a smaller number is the better one.

    Raises:
        TrpexportError: there is no such metric, or it can't be used.
    """
    if ":" in text:
        return OwnMetric.imported(text, lower_is_better=lower_is_better)
    metric = METRICS[text]
    if lower_is_better and not metric.lower_is_better:
        raise TrpexportError(
            f"of {text} more is better: leave that out", parameters=("metric_lower_is_better",)
        )
    return metric
