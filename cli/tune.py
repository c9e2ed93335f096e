"""``trpexport tune``: a network that is fast where it will run, by measured time."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import measuring as m
from . import options as opt
from .alignment import RankMultiple, multiple
from .console import progress, show, show_json, written
from .dry_run import DryRun, dry_run
from .endings import commands_of, ending, proposed, refused
from .eval import (
    JUDGING,
    PREPARING,
    Data,
    DataPreprocessing,
    LowerIsBetter,
    Mean,
    OfMetric,
    Resize,
    Size,
    Std,
    calibration,
    expectation,
    kept_preprocessing,
    real_inputs,
)
from .idle import REFINING, Idle, at_most_one, is_given, refuse_idle, refuse_typed
from .interrupts import heed, standing, stop, tell, tell_written
from .limits import MaxError
from .refining import Refine, RefineImages
from .refining import refinement as refinement_of
from .report import ReportTo, write_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trpexport.artifact.build import BundleReport, ExportSettings
    from trpexport.latency.stopwatch import Conditions, Stopwatch

_RAY = (
    Idle(("device",), beside="ray"),
    Idle(("device_label",), without="ray"),
    Idle(("host",), beside="device_label"),
)
_LIMITS = ("min_speedup", "max_latency", "max_error", "max_drop", "pareto")
_TABLE_ONLY = "show_table"
_FIRST = 1.25  # the speed-up that a front begins with
_UNITS = {"us": 1e-6, "ms": 1e-3, "": 1e-3, "s": 1.0}


def tune(
    context: typer.Context,
    network: Annotated[
        Path | None,
        typer.Argument(
            metavar="NETWORK", help="A .pth, .th, .pt, .tar, .safetensors or .onnx file."
        ),
    ] = None,
    calib: opt.Calib = None,
    min_speedup: opt.MinSpeedup = None,
    max_latency: opt.MaxLatency = None,
    max_error: MaxError = None,
    max_drop: opt.MaxDrop = None,
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto", help="Write a bundle for each of several speed-ups, from 1.25x on."
        ),
    ] = False,
    scheme: opt.Scheme = "auto",
    out: opt.Out = None,
    provider: m.Provider = "cpu",
    provider_option: m.ProviderOption = None,
    threads: m.Threads = "1",
    batch: m.Batch = None,
    host: m.Host = None,
    python: m.Python = "python3",
    precision: opt.Precision = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    rank_multiple: RankMultiple = "auto",
    arch: opt.Arch = None,
    expect: opt.Expect = None,
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    images: opt.Images = None,
    seed: opt.Seed = 0,
    cache: opt.Cache = None,
    refine: Refine = None,
    refine_images: RefineImages = None,
    device: opt.Device = "auto",
    ray: m.Ray = None,
    device_label: Annotated[str | None, m.DEVICE_LABEL] = None,
    data: Data = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    output: opt.Outputs = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    opset: opt.Opset = 18,
    dynamic_batch: opt.DynamicBatch = False,
    dynamic: opt.Dynamic = None,
    verify_seconds: opt.VerifySeconds = 20.0,
    inputs: opt.Inputs = None,
    show_table: Annotated[
        bool, typer.Option("--show-table", help="Only show the layer times measured so far.")
    ] = False,
    force: opt.Force = False,
    is_dry: DryRun = False,
    report: ReportTo = None,
    as_json: opt.Json = False,
) -> None:
    """Choose schemes and ranks by measured time, and write the fastest network within a limit.

    Times each layer with every scheme and rank, inside the network, on this machine or on --host;
    the times are kept. With --precision int8 layers are timed in int8, with fp32,int8 in fp32 (the
    first one named); errors and drops are always those of the float32 file. With --precision free
    each layer gets float32 or int8, and the limit holds for that network. The chosen network is
    calibrated, verified, and measured against the original, which the bundle holds as well. Exit
    code 3: the network does not get faster, or the limit can't be met; nothing is written then.

    With --ray, the machines of a cluster calibrate several candidates, and points of --pareto, at
    the same time. Only this machine needs the network and the images. Times are those of this
    machine or of --host, as ever, or with --device-label of the nodes of the cluster that have it.

    Example:
        trpexport tune network.pth --calib cifar10:DIR --min-speedup 1.5
    """
    from trpexport.files import cache_folder

    if show_table:
        _show_table(context, cache_folder(cache), as_json=as_json)
        return
    if network is None:
        raise TrpexportError("there is nothing to tune: name a checkpoint or an ONNX file")
    tell_written(out)
    from trpexport.choose.by_latency import ByLatency
    from trpexport.latency.stopwatch import Conditions
    from trpexport.networks.torch.devices import device_named
    from trpexport.pareto import pareto as tune_front
    from trpexport.pipeline import default_directory
    from trpexport.runtime.providers import parse_provider_options
    from trpexport.tuning import Tuning

    precise, others = _freely(precision)
    at_most_one(context, *_LIMITS)
    refuse_idle(
        context,
        Idle(JUDGING, without="max_drop"),
        Idle(("python",), without="host"),
        *_RAY,
        REFINING,
    )
    _check_complete(context, calib)
    how = (mean, std, size, resize, data_preprocessing)
    fitted = calibration(calib, images, seed, how, data)
    assert fitted is not None
    labelled = expectation(expect, *how)
    array = real_inputs(inputs, how)
    source = opt.source(context, network, arch, model, input_shape, unsafe_pickle, labelled)
    settings = opt.settings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        legacy=False,
        simplify=None,
        seconds=verify_seconds,
        force=force,
        precision=others,
        baseline=True,
        preprocessing=kept_preprocessing(how, fitted, array, labelled),
    )
    kept = cache_folder(cache)
    chooser = ByLatency(
        cache=kept,
        speedup=_FIRST if pareto else min_speedup,
        seconds=None if max_latency is None else _seconds(max_latency),
        error=max_error,
        drop=max_drop,
        scheme=scheme,
        rank_multiple=multiple(rank_multiple),
        provider=provider,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        metric=metric,
        lower_is_better=metric_lower_is_better,
    )
    options = parse_provider_options(provider_option or ())
    refinement = refinement_of(refine, cache, refine_images, device)
    out = out or default_directory(network, "pareto" if pareto else chooser.label)
    if is_dry:
        chooser.check()
        device_named(device)
        dry_run(
            context, source, scheme, chooser, out, data=fitted, refinement=refinement,
            has_target=True,
        )  # fmt: skip
        return
    stands = standing(None if pareto else out, cache=kept)
    tell(lambda: (_incomplete(out) if pareto else "") or stands())
    with refused(context, as_json=as_json), progress(None if pareto else heed) as stages:
        conditions = Conditions(provider, options, m.number_of_threads(threads), batch)
        timed = replace(chooser, stopwatch=_stopwatch(conditions, host, python, stages.say))
        tuning = Tuning(
            timed if ray is None else timed.on_cluster(ray, stages.say, device_label),
            settings,
            output or (),
            array,
            refinement,
            precise or _tuned_for(settings),
            device if ray is None else "cpu",
        )
        if pareto:
            found = tune_front(tuning, source, fitted, out, stages)
        else:
            result = tuning(source, fitted, out, stages)
            if stages.is_cut_short:
                stop(_best_so_far(result))
    if pareto:
        _show_front(*found, report, as_json=as_json)
    else:
        _show(context, result, report, as_json=as_json)


def _check_complete(context: typer.Context, calib: str | None) -> None:
    """Refuse a command that does not say what to aim at, or by which images.

    Raises:
        TrpexportError: it does not.
    """
    if not any(is_given(context, name) for name in _LIMITS):
        raise TrpexportError(
            "nobody says how fast or how near the network must be: give --min-speedup, "
            "--max-latency, --max-error, --max-drop or --pareto"
        )
    if calib is None:
        refuse_idle(context, Idle(PREPARING, without="expect"))
        raise TrpexportError("ranks are chosen by output error on images: give --calib")


def _freely(precision: list[str] | None) -> tuple[str | None, list[str]]:
    """Return whether each layer is to get a precision of its own, and what is written besides.

    Raises:
        TrpexportError: it is to, and ranks are to be fast in something else.
    """
    from trpexport.tuning import FREE

    first, *others = opt.names(precision) or ("",)
    if FREE in others:
        raise TrpexportError(
            f"--precision names what is tuned for first: type {FREE},{first}, or leave {FREE} out"
        )
    return (FREE, others) if first == FREE else (None, precision or [])


def _tuned_for(settings: ExportSettings) -> str:
    """Return the precision in which ranks are to be fast: the first that was named."""
    from trpexport.bundle import FLOAT32

    return next(iter(settings.precisions), FLOAT32)


def _best_so_far(result: BundleReport) -> str:
    """Say what stands of a search that was interrupted."""
    from trpexport.report.views.latency import tuned_file

    speedup = tuned_file(result.data["latency"])["speedup"]["mid"]
    return (
        f"the best so far, {speedup:.2f}x, stands in {result.path}; the same command goes on and "
        "replaces it"
    )


def _incomplete(out: Path) -> str:
    """Say what stands of a front that was interrupted; nothing where nothing does."""
    from trpexport.pareto import front

    stand = [str(place) for place in front(out)]
    if not stand:
        return ""
    verb = "stands" if len(stand) == 1 else "stand"
    return f"the front is incomplete: {', '.join(stand)} {verb}, the same command goes on there"


def _show(
    context: typer.Context, result: BundleReport, page: Path | None, *, as_json: bool
) -> None:
    from trpexport.report.views.bundle import bundle_view
    from trpexport.report.views.calibration import calibration_view
    from trpexport.report.views.latency import latency_view
    from trpexport.report.views.plan import plan_view

    if as_json:
        steps = commands_of(proposed(context, result.data, result.path))
        show_json({"bundle": str(result.path), **result.data, "next": steps})
    else:
        show(
            *plan_view(result.plan),
            *calibration_view(result.data),
            *bundle_view(result.data),
            *latency_view(result.data),
            *written(result.path),
            *ending(context, result.data, result.path),
        )
    write_report(page, result.path)


def _show_front(
    place: Path, points: Sequence[BundleReport], page: Path | None, *, as_json: bool
) -> None:
    from trpexport.report.views.latency import pareto_view

    found = [{"bundle": str(point.path), **point.data} for point in points]
    if as_json:
        show_json({"directory": str(place), "bundles": found})
    else:
        show(*pareto_view(found))
    write_report(page, *(point.path for point in points))


def _stopwatch(
    conditions: Conditions, host: str | None, python: str, say: Callable[[str], None]
) -> Stopwatch:
    from trpexport.latency.stopwatch import LocalStopwatch, RemoteStopwatch

    if host is None:
        return LocalStopwatch(conditions)
    return RemoteStopwatch(conditions, host, python=python, say=say)


def _seconds(text: str) -> float:
    """Read a time.

    Raises:
        TrpexportError: it is none.
    """
    found = re.fullmatch(r"(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>us|ms|s|)", text)
    if found is None:
        raise TrpexportError(f"--max-latency {text!r} is no time: give one as in 5ms, 800us, 0.1s")
    return float(found["number"]) * _UNITS[found["unit"]]


def _show_table(context: typer.Context, folder: Path | None, *, as_json: bool) -> None:
    typed = [name for name in context.params if name not in (_TABLE_ONLY, "cache", "as_json")]
    refuse_typed(context, typed, "beside --show-table")
    from trpexport.latency.store import Store
    from trpexport.report.views.latency import table_view

    with Store(folder) as store:
        found = store.contents()
    if as_json:
        show_json({"conditions": found})
    else:
        show(*table_view(found))
