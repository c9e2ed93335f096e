"""How much worse a file is than the float32 one, by a metric, on labelled samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trpexport.datasets.base import Dataset
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError
from trpexport.judge.examples import opened
from trpexport.judge.metrics import METRICS, Metric
from trpexport.judge.scoring import score


class FileJudge:
    """Says how much worse than the float32 file another one is, on the same samples.

    Args:
        file: the float32 file.
        data: labelled images, or raw tensors with targets.
        metric: judges; None counts images whose class is right.
        how: which samples, and how they become input, as for
            :func:`trpexport.judge.examples.opened`.

    Raises:
        DataError: the samples do not fit the network, or it has no value of the metric.
        ModelError: it can't be run.
    """

    def __init__(
        self, file: Path, data: Dataset | TensorSet, metric: Metric | None = None, **how: Any
    ) -> None:
        self._data = data
        self._how = how
        self.metric = METRICS["top1"] if metric is None else metric
        self._before = self._value(file)
        if not math.isfinite(self._before):
            raise DataError(
                f"{self.metric.name} of the float32 file is {self._before} on {data.name}: a drop "
                "of that can't be told",
                parameters=("metric", "data"),
            )

    @property
    def unit(self) -> str:
        """Unit of a drop and what it is of, for messages."""
        return f"points of {self.metric.name}" if self.metric.is_share else f"of {self.metric.name}"

    def __call__(self, file: Path) -> float:
        """Return how much worse a file is, below 0 where it is better; NaN where it has no value.

        In points of a share, else in the metric's own unit.
        """
        change = self._value(file) - self._before
        scale = 100.0 if self.metric.is_share else 1.0
        return change * (1 if self.metric.lower_is_better else -1) * scale

    def _value(self, file: Path) -> float:
        return score(*opened([file], self._data, **self._how), self.metric).models[0].value
