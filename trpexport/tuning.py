"""From a network to a bundle that is as fast as was asked for, measured on the file itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.choose.by_latency import ByLatency
from trpexport.conversion import Conversion
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import NothingToDoError
from trpexport.files import read_json, write_json
from trpexport.latency.stopwatch import Timed
from trpexport.pipeline import (
    CalibrationData,
    Decomposable,
    decompose_to_bundle,
    default_directory,
)
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays

# Least time that each finished file is timed for, in turns with the original one.
_SECONDS = 2.0
LATENCY = "latency"


@dataclass(frozen=True)
class Tuning:
    """How a network is made fast.

    Attributes:
        chooser: the limit, and the device.
        settings: how it is exported; the original network always goes into the bundle as well.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        inputs: real inputs to verify on.
    """

    chooser: ByLatency
    settings: ExportSettings
    outputs: Sequence[str] = ()
    inputs: Array | Arrays | None = None

    def __call__(
        self,
        source: Decomposable,
        data: CalibrationData,
        out: Path | None = None,
        stages: Stages | None = None,
    ) -> BundleReport:
        """Read a network, choose, verify, export, measure: all of it or nothing.

        Args:
            source: the checkpoint or ONNX file.
            data: what to calibrate on.
            out: the bundle's directory; a name after the file where it is None.
            stages: times and announces the stages.

        Raises:
            NothingToDoError: the network can't be made faster, or the limit can't be met; nothing
                is written.
            TrpexportError: as the steps themselves.
        """
        stages = stages or Stages()
        out = out or default_directory(source.path, self.chooser.label)
        settings = replace(self.settings, baseline=True, replace=False)
        with bundle.reserved(out, replace=self.settings.replace), TemporaryDirectory() as folder:
            place = Path(folder) / "tuned"
            report = decompose_to_bundle(
                source,
                self.chooser,
                place,
                data,
                outputs=self.outputs,
                settings=settings,
                inputs=self.inputs,
                stages=stages,
            )
            others = self._originals(place, data, Path(folder), stages)
            with stages("time the files"):
                facts = self._measured(place, others, report.data)
            content = {**read_json(place / bundle.REPORT), LATENCY: facts}
            manifest = bundle.read_manifest(place)
            write_json(place / bundle.REPORT, content)
            kept = {k: v for k, v in manifest.items() if k not in ("schema_version", "files")}
            bundle.write_manifest(place, kept)
            _deliver(place, out, replace=self.settings.replace)
        return BundleReport(out, report.plan, content)

    def _originals(
        self, place: Path, data: CalibrationData, folder: Path, stages: Stages
    ) -> dict[str, Path]:
        """Write the original network in the other precisions: what low rank has to beat there."""
        names = [name for name in self.settings.precisions if name != bundle.FLOAT32]
        if not names:
            return {}
        told = bundle.read_manifest(place).get("preprocessing")
        if told is not None and data.preprocessing is None:
            data = replace(data, preprocessing=Preprocessing.from_json(told, str(place)))
        convert = Conversion(replace(self.settings, precisions=names, replace=False), data)
        return dict(convert(place / bundle.BASELINE, folder / "originals", stages).paths)

    def _measured(
        self, place: Path, originals: Mapping[str, Path], report: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return how fast the files of a bundle are, beside what was chosen by.

        Args:
            place: the bundle.
            originals: the original network in other precisions.
            report: the content of the bundle's report.

        Raises:
            NothingToDoError: none is measurably faster than the original network.
        """
        manifest = bundle.read_manifest(place)
        names = [bundle.FLOAT32, *manifest.get("variants", {})]
        files = [place / bundle.variant_name(name) for name in names]
        race = self.chooser.timekeeper.race
        original, *found = race([place / bundle.BASELINE, *files, *originals.values()], _SECONDS)
        timed, others = found[: len(files)], found[len(files) :]
        if all(one.speedup.verdict != "faster" for one in timed):
            shown = ", ".join(f"{one.speedup.mid:.2f}x" for one in timed)
            raise NothingToDoError(
                f"the finished network is not measurably faster than the original: {shown}"
            )
        wanted = self.chooser.wanted(original.seconds)
        best = max(one.speedup.high for one in timed)
        if best < wanted:
            raise NothingToDoError(
                f"the finished network is {best:.2f}x as fast at best, and {wanted:.2f}x is asked "
                "for: ask for a little more, so that the choice aims higher"
            )
        fastest = min(zip(names, timed, strict=True), key=lambda pair: pair[1].seconds)[0]
        return {
            **report["calibration"][LATENCY],
            "seconds": original.seconds,
            "files": {name: _facts(one) for name, one in zip(names, timed, strict=True)},
            "originals": {name: _facts(one) for name, one in zip(originals, others, strict=True)},
            "fastest": fastest,
        }


# Speed-ups of a Pareto front, as long as they can be met.
_SPEEDUPS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)


def pareto(
    tuning: Tuning,
    source: Decomposable,
    data: CalibrationData,
    out: Path | None = None,
    stages: Stages | None = None,
) -> tuple[Path, list[BundleReport]]:
    """Tune a network to one speed-up after another, until none further can be met.

    Args:
        tuning: how; its chooser's limit does not count.
        source: the checkpoint or ONNX file.
        data: what to calibrate on.
        out: the directory that gets a bundle for each; a name after the file where it is None.
        stages: times and announces the stages.

    Returns:
        The directory, and a report for each bundle in it, the slowest first.

    Raises:
        NothingToDoError: not even the least speed-up can be met; nothing is written.
        TrpexportError: as the steps themselves.
    """
    out = out or default_directory(source.path, "pareto")
    stages = stages or Stages()
    reports: list[BundleReport] = []
    for speedup in _SPEEDUPS:
        chooser = replace(tuning.chooser, speedup=speedup, seconds=None, error=None, drop=None)
        stages.say(f"tune to {speedup:g}x")
        try:
            job = replace(tuning, chooser=chooser)
            reports.append(job(source, data, out / f"{speedup:g}x", stages))
        except NothingToDoError as error:
            if not reports:
                raise
            stages.say(str(error))
            break
    return out, reports


def _facts(timed: Timed) -> dict[str, Any]:
    return {"seconds": timed.seconds, "speedup": timed.speedup.to_json()}


def _deliver(place: Path, out: Path, *, replace: bool) -> None:
    """Put a finished bundle into its place, whole or not at all."""
    with bundle.staged_directory(out, replace=replace) as staging:
        for file in place.iterdir():
            shutil.copyfile(file, staging / file.name)
