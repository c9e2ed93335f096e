"""What is done for one cell of a sweep: a bundle, what it saves, what it loses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trpexport import bundle
from trpexport.choose.base import Ready
from trpexport.choose.sensitivity import SensitivityJob
from trpexport.compare import compare_outputs
from trpexport.conversion import Conversion, size_of
from trpexport.datasets.calibration import public_name
from trpexport.datasets.tensors import TensorSet
from trpexport.files import files_of, read_json
from trpexport.inputs import images_of, rows
from trpexport.judge.examples import opened
from trpexport.judge.scoring import Score, loss_between, score
from trpexport.onnxfile.external_data import external_paths
from trpexport.pipeline import decompose_network
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.stages import Stages
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.work import Work
from trpexport.tensors import Arrays

_BATCH = 32  # images that are compared at a time


class Maker:
    """Makes the cells of a sweep in one process, which does once what they have in common.

    Args:
        work: what that is.
        ready: its network and the images.
    """

    def __init__(self, work: Work, ready: Ready) -> None:
        self.work = work
        self._ready = ready
        self._baseline: Mapping[str, bytes] | None = None
        self._original: Score | None = None

    @classmethod
    def of(cls, work: Work, stages: Stages | None = None) -> Maker:
        """Read network and images.

        Raises:
            TrpexportError: they can't be used.
        """
        return cls(work, work.source.ready(work.data, stages=stages or Stages()))

    def request(self) -> dict[str, Any]:
        """Return what tells the sweep from others, as :meth:`Work.request`."""
        return self.work.request(self._ready.source.sha256)

    def measured(self, scheme: str, stages: Stages) -> None:
        """Measure what each layer loses under a scheme, where cells will look for it.

        Raises:
            TrpexportError: no layer gets cheaper, or the images can't be used.
        """
        work, ready = self.work, self._ready
        assert ready.images is not None
        job = SensitivityJob(scheme, selection=work.selection, cache=work.cache)
        job(ready.network, ready.images, stages)

    def made(self, cell: Cell, place: Path, stages: Stages) -> dict[str, Any]:
        """Make a cell's file in its bundle; return what it saves and loses.

        Args:
            cell: the cell; where it is not in float32, the bundle stands already.
            place: the bundle's directory, which is replaced, among those of the other cells.
            stages: times and announces the stages.

        Raises:
            TrpexportError: the target can't be met, or a step fails.
        """
        work, ready = self.work, self._ready
        if cell.precision == bundle.FLOAT32:
            settings = replace(work.settings, baseline=True, replace=True, precisions=())
            with bundle.reserved(place, replace=True):
                small = decompose_network(
                    ready.network,
                    work.chooser(cell),
                    ready.images,
                    label=ready.label,
                    source=ready.source,
                    stages=stages,
                )
                small.export(place, settings=settings, baseline=self._baseline, stages=stages)
            if self._baseline is None:
                original = place / bundle.BASELINE
                self._baseline = files_of((original, *external_paths(original)))
        else:
            settings = replace(work.settings, replace=True, precisions=(cell.precision,))
            Conversion(settings, ready.images)(place, None, stages)
        with stages("compare with the original"):
            return self._facts(place, cell.precision)

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
        ready = self._ready
        assert ready.images is not None
        split, inputs = ready.images.held_out()
        if not images_of(inputs):
            split, inputs = "those fitted to", ready.images.inputs
        return split, ready.network.inputs.named(inputs, "held-out images")

    def _judged(self, original: Path, file: Path) -> dict[str, Any] | None:
        """Return how good a file is beside the original one, on the same samples."""
        labelled, metric = self.work.labelled, self.work.metric
        if labelled is None or metric is None:
            return None
        how: dict[str, Any] = {"limit": labelled.limit, "preprocessing": labelled.preprocessing}
        how["allow_spinning"] = False  # waiting threads would only take cores from other cells
        if not isinstance(labelled.data, TensorSet):
            how["split"] = labelled.split
        models, examples = opened([original, file], labelled.data, **how)
        before = self._original
        if before is None:
            (before,) = score(models[:1], examples, metric).models
            self._original = before
        (after,) = score(models[1:], examples, metric).models
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
    one, other = (open_session(path, allow_spinning=False) for path in (original, file))
    pairs = []
    for start in range(0, images_of(inputs), _BATCH):
        some = rows(inputs, slice(start, start + _BATCH))
        pairs.append((run_in_batches(one, some), run_in_batches(other, some)))
    found = [output.variation_error for output in compare_outputs(pairs).values()]
    return max(found) if all(map(math.isfinite, found)) else None
