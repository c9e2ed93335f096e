"""``trpexport sweep``: many ways to make one network smaller, each to what it saves and loses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import measuring as m
from . import options as opt
from .alignment import RankMultiple, selection
from .console import progress, say, show, show_json
from .drawing import Plot, draw
from .eval import (
    Data,
    DataImages,
    DataPreprocessing,
    LowerIsBetter,
    Mean,
    OfMetric,
    Resize,
    Size,
    Split,
    Std,
    calibration,
    expectation,
    kept_preprocessing,
    open_data,
    preprocessing,
)
from .idle import Idle, refuse_idle
from .interrupts import tell
from .report import ReportTo, write_report

if TYPE_CHECKING:
    from trpexport.conversion import Labelled
    from trpexport.sweeps.results import SweepResult
    from trpexport.sweeps.runners import Runner

_JUDGING = Idle(("split", "data_images", "metric", "metric_lower_is_better"), without="data")
_RAY = Idle(("device_label",), without="ray"), Idle(("jobs",), beside="ray")
_TIMING = Idle(("threads", "batch", "min_time"), without="is_benched")


def sweep(
    context: typer.Context,
    network: opt.NetworkFile,
    calib: opt.Calib = None,
    schemes: Annotated[
        str, typer.Option(help="Schemes to try, separated by commas, as in spatial,auto.")
    ] = "spatial",
    targets: Annotated[
        str,
        typer.Option(
            help="Shares of the MACs to keep: a list (0.8,0.6), a range in steps of 0.1 (0.7..0.3) "
            "or a range with its step (0.7..0.3/0.05)."
        ),
    ] = "0.7..0.3",
    precisions: Annotated[
        str, typer.Option(help="Precisions to try, separated by commas, as in fp32,int8.")
    ] = "fp32",
    out: opt.Out = None,
    data: Data = None,
    split: Split = "test",
    data_images: DataImages = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    is_benched: Annotated[
        bool,
        typer.Option(
            "--bench", help="Time each network in turns with the original, one at a time."
        ),
    ] = False,
    provider: m.Provider = "cpu",
    threads: m.Threads = "1",
    batch: m.Batch = None,
    min_time: m.MinTime = 2.0,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    stride_1_only: opt.Stride1Only = False,
    rank_multiple: RankMultiple = "auto",
    arch: opt.Arch = None,
    expect: opt.Expect = None,
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    images: opt.Images = None,
    seed: opt.Seed = 0,
    cache: opt.Cache = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    opset: opt.Opset = 18,
    dynamic_batch: opt.DynamicBatch = False,
    legacy_exporter: opt.LegacyExporter = False,
    simplify: opt.Simplify = None,
    verify_seconds: opt.VerifySeconds = 1.0,
    force: opt.Force = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many cells to make at a time on this machine; else as many as it has cores "
            "and memory for.",
        ),
    ] = None,
    ray: m.Ray = None,
    device_label: Annotated[str, m.DEVICE_LABEL] = "trpexport_device",
    plot: Plot = None,
    save: m.Save = None,
    report: ReportTo = None,
    as_json: opt.Json = False,
) -> None:
    """Decompose a network in many ways, and compare what each saves, loses, and takes in time.

    Each combination of a scheme, a share of the MACs and a precision is a cell. Results are stored
    cell by cell: the same command resumes where it was stopped, and with more targets keeps the
    cells it has. Writes a bundle for each scheme and target, sweep.json and sweep.csv (--save
    writes one of these to another file as well). If a cell fails, its error is shown in its row and
    the others go on; the command then ends with the exit code of the failure (3: a target can't be
    met; 4: a verification failed) and retries the cell the next time.

    With --ray, the machines of a cluster make the cells, several at a time. Nodes started with ray
    start --resources '{"trpexport_device": 1}' time them afterwards. Network and data must have the
    same paths on all machines.

    Example:
        trpexport sweep network.pth --targets 0.7..0.3 --calib cifar10:DIR
    """
    from trpexport.files import cache_folder
    from trpexport.latency.stopwatch import Conditions
    from trpexport.pipeline import default_directory
    from trpexport.report.documents import Record
    from trpexport.report.views.sweep import sweep_plot, sweep_view
    from trpexport.sweeps.cells import grid, parse_targets
    from trpexport.sweeps.sweep import JSON, Sweep
    from trpexport.sweeps.work import Work

    refuse_idle(context, _JUDGING, _TIMING, *_RAY)
    _check_save(save)
    how = (mean, std, size, resize, data_preprocessing)
    fitted = calibration(calib, images, seed, how)
    if fitted is None:
        raise TrpexportError(
            "each target is met by output error on images: give some, as in --calib cifar10:DIR"
        )
    labelled = expectation(expect, *how)
    kept = kept_preprocessing(how, fitted, labelled)
    settings = opt.settings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=None,
        legacy=legacy_exporter,
        simplify=simplify,
        seconds=verify_seconds,
        force=force,
        preprocessing=kept,
    )
    conditions = Conditions(provider, threads=m.number_of_threads(threads), batch=batch)
    work = Work(
        opt.source(context, network, arch, model, input_shape, unsafe_pickle, labelled),
        fitted,
        _labelled(data, split, data_images, how, metric, metric_lower_is_better),
        settings,
        selection(context, include, exclude, stride_1_only, rank_multiple, provider),
        cache_folder(cache),
        conditions if is_benched else None,
        min_time,
    )
    cells = grid(opt.names([schemes]), parse_targets(targets), opt.names([precisions]))
    out = out or default_directory(network, "sweep")
    tell(lambda: f"the cells that ended stand in {out}, the same command goes on there")
    with progress() as stages:
        found = Sweep(work, cells, _runner(ray, device_label, jobs))(out, stages)
    if as_json:
        show_json({"directory": str(out), **found.data})
    else:
        show(*sweep_view(found.data))
        say(f"Wrote {out}")
    _save(found, save)
    if plot is not None:
        draw(plot, sweep_plot(found.data), f"Sweep: {found.network}")
    write_report(report, Record(out / JSON, "sweep", found.data))
    if found.codes:
        raise typer.Exit(max(found.codes))


def _labelled(
    data: str | None,
    split: str,
    limit: int | None,
    how: tuple[str | None, str | None, str | None, int | None, bool],
    metric: str | None,
    lower_is_better: bool,
) -> Labelled | None:
    """Return what cells are judged on, as it was typed; None where it was not."""
    from trpexport.conversion import Labelled
    from trpexport.judge.examples import find_judge, usual_metric

    if data is None:
        return None
    judged = open_data(data)
    chosen = usual_metric(judged, metric)
    by = find_judge(judged.name, chosen, lower_is_better=lower_is_better)
    return Labelled(judged, split, limit, preprocessing(judged, *how, kept=True), by)


def _runner(address: str | None, label: str, jobs: int | None) -> Runner:
    """Return who works on the cells, as it was typed."""
    from trpexport.sweeps.crew import Crew, usual_size
    from trpexport.sweeps.on_ray import OnRay

    if address is not None:
        return OnRay(address, label)
    return Crew(usual_size() if jobs is None else jobs)


def _check_save(place: Path | None) -> None:
    if place is not None and place.suffix not in {".csv", ".json"}:
        raise TrpexportError(f"--save {place} must end in .csv or .json: it says what is written")


def _save(found: SweepResult, place: Path | None) -> None:
    from trpexport.files import write_atomically, write_json

    if place is None:
        return
    if place.suffix == ".csv":
        write_atomically(place, found.csv().encode())
    else:
        write_json(place, found.data)
    say(f"Wrote {place}")
