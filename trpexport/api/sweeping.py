"""Many ways to make one network smaller, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.api.networks import Images
    from trpexport.artifact.settings import ExportSettings
    from trpexport.datasets import Preprocessing
    from trpexport.inputs import InputsLike
    from trpexport.judge.metrics import Metric
    from trpexport.latency.stopwatch import Conditions
    from trpexport.sweeps.results import SweepResult

Announce = Callable[[str], None]
_CALIBRATED = 512
_HELD_OUT = 256  # samples of an iterable besides
_VERIFY_SECONDS = 1.0  # of each cell


def sweep(
    model: str | Path,
    images: Images,
    out: str | Path,
    *,
    schemes: Sequence[str] = ("spatial",),
    targets: Sequence[float] = (0.7, 0.6, 0.5, 0.4, 0.3),
    precisions: Sequence[str] = ("fp32",),
    data: Images | None = None,
    split: str = "test",
    limit: int | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    bench: Conditions | None = None,
    min_time: float = 2.0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rank_multiple: int | str = "auto",
    count: int = _CALIBRATED,
    preprocessing: Preprocessing | None = None,
    settings: ExportSettings | None = None,
    cache: str | Path | None = None,
    inputs: InputsLike | None = None,
    arch: str | None = None,
    factory: str | None = None,
    jobs: int = 1,
    ray: str | None = None,
    device_label: str = "trpexport_device",
    announce: Announce | None = None,
) -> SweepResult:
    """Make a network smaller in many ways, and say what each saves and loses.

    What came of a cell is written down as it ends, so that the same call goes on where it was
    stopped. One that fails is written down with the reason, and the others go on.

    Args:
        model: the path of a checkpoint or of an ONNX file.
        images: unlabelled images to calibrate on, as :func:`trpexport.decompose` takes them.
        out: the directory of journal, results and bundles.
        schemes: what layers are written as; ``"auto"`` chooses for each.
        targets: shares of the MACs to keep.
        precisions: in which each is written.
        data: labelled images that each is judged on; None to judge by the error of outputs alone.
        split: which of these images.
        limit: how many of these; None for all.
        metric: by what, as for :func:`trpexport.evaluate`; None for top-1.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
        bench: under which conditions each is timed beside the original; None for no times.
        min_time: least number of seconds that each is timed for.
        include: globs of the layers that may be cut; all where there are none.
        exclude: globs of layers that stay.
        rank_multiple: ranks are multiples of it; ``"auto"`` for the processor's.
        count: how many images to calibrate on.
        preprocessing: how images become input; as the checkpoint says where it is None.
        settings: how each is exported, and how long it is verified, a second where it is None.
        cache: folder where tables are kept; in ``out`` where it is None.
        inputs: shapes of the inputs; as the checkpoint or the file says where it is None.
        arch: the checkpoint's architecture, where it can't be recognised.
        factory: ``package.module:factory`` that makes the checkpoint's network.
        jobs: how many cells are made at a time, each in a process of its own; what is handed over
            must be picklable then.
        ray: address of a Ray cluster that works on the cells; ``"auto"`` for the one that runs
            here; None for this machine alone.
        device_label: the resource of the cluster's nodes that are the device to time on.
        announce: called with a line on each step.

    Raises:
        OutputError: ``out`` holds something else, or a sweep of something else.
        TrpexportError: the network or the images can't be used.
    """
    from dataclasses import replace

    from trpexport.api.tuning import source_of
    from trpexport.artifact.settings import ExportSettings
    from trpexport.calibration_data import CalibrationData
    from trpexport.conversion import Labelled
    from trpexport.datasets.given import data_from
    from trpexport.inputs import Inputs
    from trpexport.judge.examples import find_judge, usual_metric
    from trpexport.stages import Stages
    from trpexport.sweeps.cells import grid
    from trpexport.sweeps.crew import Crew
    from trpexport.sweeps.on_ray import OnRay
    from trpexport.sweeps.sweep import Sweep
    from trpexport.sweeps.work import Work

    known = None if inputs is None else Inputs.of(inputs)
    drawn = data_from(images, known, limit=count + _HELD_OUT)
    labelled = None
    if data is not None:
        judged = data_from(data, known, limit=limit)
        by = find_judge(judged.name, usual_metric(judged, metric), lower_is_better=lower_is_better)
        labelled = Labelled(judged, split, limit, preprocessing, by)
    how = settings or ExportSettings(verify_seconds=_VERIFY_SECONDS)
    work = Work(
        source_of(model, inputs, arch, factory),
        CalibrationData(drawn, count, preprocessing=preprocessing),
        labelled,
        replace(how, preprocessing=how.preprocessing or preprocessing),
        {"include": include, "exclude": exclude, "rank_multiple": rank_multiple},
        Path(out) / "tables" if cache is None else cache,
        bench,
        min_time,
    )
    runner = Crew(jobs) if ray is None else OnRay(ray, device_label)
    return Sweep(work, grid(schemes, targets, precisions), runner)(Path(out), Stages(announce))
