"""Bundles of several speed-ups, of which each loses least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from trpexport import bundle
from trpexport.artifact.build import BundleReport
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import AlreadyFastError
from trpexport.choose.on_ray import connected_to
from trpexport.errors import NothingToDoError
from trpexport.files import read_json
from trpexport.pipeline import Decomposable, default_directory
from trpexport.plan import read_plan
from trpexport.relay import Relay
from trpexport.stages import Stages
from trpexport.tuning import Tuning, standing

# Speed-ups of a Pareto front, as long as they can be met.
_SPEEDUPS = (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)

_Say = Callable[[str], None]
_Make = Callable[[Tuning, float, Stages], BundleReport]


def pareto(
    tuning: Tuning,
    source: Decomposable,
    data: CalibrationData,
    out: Path | None = None,
    stages: Stages | None = None,
) -> tuple[Path, list[BundleReport]]:
    """Tune a network to one speed-up after another, until none further can be met.

    A bundle that stands there already, made of the same in the same way, is not made again. Where
    a cluster calibrates, all speed-ups are begun at once, each that can be met is kept.

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

    def make(how: Tuning, speedup: float, stages: Stages) -> BundleReport:
        chooser = replace(how.chooser, speedup=speedup, seconds=None, error=None, drop=None)
        return _made(replace(how, chooser=chooser), source, data, out / f"{speedup:g}x", stages)

    with _attempts(tuning, make, stages) as (say, attempts):
        for attempt in attempts:
            try:
                reports.append(attempt())
            except AlreadyFastError as error:
                met = error
                say(str(error))
            except NothingToDoError as error:
                if not reports:
                    raise
                say(str(error))
                if tuning.chooser.cluster is None:
                    break
    if met is not None and not reports:
        raise met
    return out, reports


@contextmanager
def _attempts(
    tuning: Tuning, make: _Make, stages: Stages
) -> Iterator[tuple[_Say, list[Callable[[], BundleReport]]]]:
    """Yield what says a line, and for each speed-up what makes a bundle, or waits for it.

    Args:
        tuning: how.
        make: makes a bundle.
        stages: times and announces the stages.
    """
    cluster = tuning.chooser.cluster
    if cluster is None:
        yield stages.say, [partial(make, tuning, speedup, stages) for speedup in _SPEEDUPS]
        return
    relay = Relay()
    say, remark = (partial(relay.say, each) for each in (stages.say, stages.remark))
    cluster = replace(cluster, jobs=len(_SPEEDUPS), waiting=relay.waiting)
    tuning = replace(tuning, chooser=replace(tuning.chooser, cluster=cluster))
    with connected_to(cluster):
        jobs = [
            partial(make, tuning, speedup, Stages(named(say), remark=named(remark)))
            for speedup in _SPEEDUPS
            for named in (partial(_named, f"{speedup:g}x"),)
        ]
        with relay.running(jobs) as attempts:
            yield say, attempts


def _named(name: str, say: _Say) -> _Say:
    """Return what says a line with a name before it."""
    return lambda line: say(f"{name}: {line}")


def _made(
    job: Tuning, source: Decomposable, data: CalibrationData, place: Path, stages: Stages
) -> BundleReport:
    """Return the bundle of a speed-up: that which stands, or a new one.

    Raises:
        NothingToDoError: it can't be met.
        TrpexportError: as the steps themselves.
    """
    if not job.settings.replace and standing(place, job.request(source, data)) is not None:
        stages.say(f"{place} stands already")
        plan, report = read_plan(place / bundle.PLAN), read_json(place / bundle.REPORT)
        return BundleReport(place, plan, report)
    stages.say(f"tune to {job.chooser.speedup:g}x")
    return job(source, data, place, stages)


def front(out: Path) -> list[Path]:
    """Return the bundles of a Pareto front that stand in its directory, the slowest first."""
    places = [out / f"{speedup:g}x" for speedup in _SPEEDUPS]
    return [place for place in places if bundle.is_bundle(place)]
