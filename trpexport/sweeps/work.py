"""What is done for one cell of a sweep: a bundle, what it saves, what it loses, how fast it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trpexport import bundle
from trpexport.artifact.settings import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_budget import ByBudget
from trpexport.compare import compare_outputs
from trpexport.conversion import Conversion, Labelled, size_of
from trpexport.datasets.calibration import public_name
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import OutputError
from trpexport.files import read_json, sha256_of
from trpexport.inputs import images_of, rows
from trpexport.judge.examples import opened
from trpexport.judge.metrics import METRICS, Metric
from trpexport.judge.scoring import loss_between, score
from trpexport.latency import stopwatch
from trpexport.latency.stopwatch import Conditions
from trpexport.pipeline import Decomposable, decompose_to_bundle
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.stages import Stages
from trpexport.sweeps.cells import Cell
from trpexport.tensors import Arrays
from trpexport.tuning import told

_BATCH = 32  # images that are compared at a time


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
            self._chooser(cell).check()
        precisions = tuple(dict.fromkeys(cell.precision for cell in cells))
        replace(self.settings, precisions=precisions).check(has_images=True)
        if self.conditions is not None:
            stopwatch.LocalStopwatch(self.conditions).check()

    def request(self) -> dict[str, Any]:
        """Return what tells sweeps from each other whose cells can't stand side by side.

        Raises:
            TrpexportError: the file can't be read.
        """
        try:
            content = sha256_of(self.source.path)
        except OSError as error:
            raise OutputError(f"can't read {self.source.path}: {error.strerror or error}") from None
        return {
            "network": {**told(self.source), "path": content},
            "calibration": told(self.data),
            "way to judge": self._judge_facts(),
            "choice of layers": told(self.selection),
            "way to export": told(replace(self.settings, replace=False)),
        }

    def made(self, cell: Cell, place: Path, stages: Stages) -> dict[str, Any]:
        """Make a cell's file in its bundle; return what it saves and loses.

        Args:
            cell: the cell; where it is not in float32, the bundle stands already.
            place: the bundle's directory, which is replaced.
            stages: times and announces the stages.

        Raises:
            TrpexportError: the target can't be met, or a step fails.
        """
        if cell.precision == bundle.FLOAT32:
            settings = replace(self.settings, baseline=True, replace=True, precisions=())
            chooser = self._chooser(cell)
            decompose_to_bundle(
                self.source, chooser, place, self.data, settings=settings, stages=stages
            )
        else:
            settings = replace(self.settings, replace=True, precisions=(cell.precision,))
            Conversion(settings, self.data)(place, None, stages)
        with stages("compare with the original"):
            return self._facts(place, cell.precision)

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

    def _chooser(self, cell: Cell) -> ByBudget:
        how = dict(self.selection)
        return ByBudget(macs=cell.target, scheme=cell.scheme, cache=self.cache, **how)

    def _facts(self, place: Path, precision: str) -> dict[str, Any]:
        report = read_json(place / bundle.REPORT)
        original, file = place / bundle.BASELINE, place / bundle.variant_name(precision)
        macs, parameters = report["macs"], report["parameters"]
        split, inputs = self._held_out
        return {
            "macs": {"before": macs["before"], "after": macs["after"]},
            "uncounted": sorted(macs["uncounted"]),
            "parameters": {"before": parameters["before"], "after": parameters["after"]},
            "bytes": {"before": size_of(original), "after": size_of(file)},
            "error": {
                "value": _error(original, file, inputs),
                **{"images": images_of(inputs), "split": split},
            },
            "judged": self._judged(original, file),
        }

    @cached_property
    def _held_out(self) -> tuple[str, Arrays]:
        """What errors are measured on: inputs that nothing is fitted to, if there are any."""
        ready = self.source.ready(self.data, stages=Stages())
        assert ready.images is not None
        split, inputs = ready.images.held_out()
        if not images_of(inputs):
            split, inputs = "those fitted to", ready.images.inputs
        return split, ready.network.inputs.named(inputs, "held-out images")

    def _judged(self, original: Path, file: Path) -> dict[str, Any] | None:
        """Return how good a file is beside the original one, on the same samples."""
        labelled, metric = self.labelled, self.metric
        if labelled is None or metric is None:
            return None
        how: dict[str, Any] = {"limit": labelled.limit, "preprocessing": labelled.preprocessing}
        if not isinstance(labelled.data, TensorSet):
            how["split"] = labelled.split
        before, after = score(*opened([original, file], labelled.data, **how), metric).models
        loss = loss_between(before, after)
        low, high = (None, None) if isinstance(loss, float) else loss.interval()
        return {
            "metric": metric.name,
            "is_share": metric.is_share,
            **{"before": before.value, "after": after.value},
            "loss": loss if isinstance(loss, float) else loss.estimate,
            **{"low": low, "high": high},
            **{"images": after.samples, "split": after.split, "data": public_name(after.data)},
        }


def _error(original: Path, file: Path, inputs: Arrays) -> float | None:
    """Return the error of the worst output, RMS relative to its variation; None where none is."""
    one, other = open_session(original), open_session(file)
    pairs = []
    for start in range(0, images_of(inputs), _BATCH):
        some = rows(inputs, slice(start, start + _BATCH))
        pairs.append((run_in_batches(one, some), run_in_batches(other, some)))
    found = [output.variation_error for output in compare_outputs(pairs).values()]
    return max(found) if all(map(math.isfinite, found)) else None
