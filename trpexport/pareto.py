"""Bundles of several speed-ups, of which each loses least."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trpexport import bundle
from trpexport.artifact.build import BundleReport
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import AlreadyFastError
from trpexport.errors import NothingToDoError
from trpexport.files import read_json
from trpexport.pipeline import Decomposable, default_directory
from trpexport.plan import read_plan
from trpexport.stages import Stages
from trpexport.tuning import Tuning, standing

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

    A bundle that stands there already, made of the same in the same way, is not made again.

    Args:
        tuning: how; its chooser's limit does not count.
        source: the checkpoint or ONNX file.
        data: what to calibrate on.
        out: the directory that gets a bundle for each; a name after the file where it is None.
        stages: times and announces the stages.

    Returns:
        The directory, and a report for each bundle in it, the slowest first.

    Raises:
        NothingToDoError: not even the least speed-up can be met, or all are without ranks; nothing
            is written.
        TrpexportError: as the steps themselves.
    """
    out = out or default_directory(source.path, "pareto")
    stages = stages or Stages()
    reports: list[BundleReport] = []
    met: AlreadyFastError | None = None
    for speedup in _SPEEDUPS:
        chooser = replace(tuning.chooser, speedup=speedup, seconds=None, error=None, drop=None)
        job, place = replace(tuning, chooser=chooser), out / f"{speedup:g}x"
        if not job.settings.replace and standing(place, job.request(source, data)) is not None:
            stages.say(f"{place} stands already")
            reports.append(
                BundleReport(
                    place, read_plan(place / bundle.PLAN), read_json(place / bundle.REPORT)
                )
            )
            continue
        stages.say(f"tune to {speedup:g}x")
        try:
            reports.append(job(source, data, place, stages))
        except AlreadyFastError as error:
            met = error
            stages.say(str(error))
        except NothingToDoError as error:
            if not reports:
                raise
            stages.say(str(error))
            break
    if met is not None and not reports:
        raise met
    return out, reports


def front(out: Path) -> list[Path]:
    """Return the bundles of a Pareto front that stand in its directory, the slowest first."""
    places = [out / f"{speedup:g}x" for speedup in _SPEEDUPS]
    return [place for place in places if bundle.is_bundle(place)]
