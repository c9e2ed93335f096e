"""What all cells of a sweep have in common: a network, data, and how they are made and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trpexport import bundle
from trpexport.artifact.settings import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_budget import ByBudget
from trpexport.conversion import Labelled
from trpexport.judge.metrics import METRICS, Metric
from trpexport.latency import stopwatch
from trpexport.latency.stopwatch import Conditions
from trpexport.pipeline import Decomposable
from trpexport.requests import told
from trpexport.sweeps.cells import Cell


@dataclass(frozen=True)
class Work:
    """What all cells of a sweep have in common.

    Attributes:
        source: the checkpoint or ONNX file.
        data: what is calibrated on.
        labelled: what networks are judged on; None for nothing.
        settings: how they are exported; precisions, baseline and place are the sweep's.
        selection: further arguments of :class:`~trpexport.ByBudget`: which layers, which ranks.
        cache: folder where the tables are kept that cells share; None for nowhere.
        conditions: under which files are timed; None to time nothing.
        seconds: least time that each file is timed for.
    """

    source: Decomposable
    data: CalibrationData
    labelled: Labelled | None = None
    settings: ExportSettings = field(default_factory=ExportSettings)
    selection: Mapping[str, Any] = field(default_factory=dict)
    cache: str | Path | None = None
    conditions: Conditions | None = None
    seconds: float = 2.0

    def check(self, cells: tuple[Cell, ...]) -> None:
        """Refuse what can't be for any cell, before any work is done.

        Raises:
            TrpexportError: a scheme, a target or a precision can't be had.
        """
        for cell in cells:
            self.chooser(cell).check()
        precisions = tuple(dict.fromkeys(cell.precision for cell in cells))
        replace(self.settings, precisions=precisions).check(has_images=True)
        if self.conditions is not None:
            stopwatch.LocalStopwatch(self.conditions).check()

    def chooser(self, cell: Cell) -> ByBudget:
        """Return what chooses schemes and ranks for a cell."""
        how = dict(self.selection)
        return ByBudget(macs=cell.target, scheme=cell.scheme, cache=self.cache, **how)

    def request(self, content: str) -> dict[str, Any]:
        """Return what tells sweeps from each other whose cells can't stand side by side.

        Args:
            content: hash of the file that the network is in.
        """
        return {
            "network": {**told(self.source), "path": content},
            "calibration": told(self.data),
            "way to judge": self._judge_facts(),
            "choice of layers": told(self.selection),
            "way to export": told(replace(self.settings, replace=False)),
        }

    def timed(self, cell: Cell, place: Path) -> dict[str, Any]:
        """Time a cell's file in turns with the original network.

        Raises:
            TrpexportError: one can't be run.
        """
        assert self.conditions is not None
        watch = stopwatch.LocalStopwatch(self.conditions)
        files = [place / bundle.BASELINE, place / bundle.variant_name(cell.precision)]
        original, found = watch.race(files, self.seconds)
        return {
            "seconds": found.seconds,
            "original": original.seconds,
            "speedup": found.speedup.to_json(),
            "device": watch.facts()["device"].get("CPU"),
            "conditions": self.conditions.to_json(),
        }

    @property
    def metric(self) -> Metric | None:
        """What networks are judged by; None for nothing."""
        if self.labelled is None:
            return None
        return METRICS["top1"] if self.labelled.metric is None else self.labelled.metric

    def _judge_facts(self) -> dict[str, Any] | None:
        """Return what tells one way to judge from another: a metric by its name."""
        if self.labelled is None or self.metric is None:
            return None
        return {**told(replace(self.labelled, metric=None)), "metric": self.metric.name}
