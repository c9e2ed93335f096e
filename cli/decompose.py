"""``trpexport decompose``: a network to a verified bundle of low-rank factors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import options as opt
from .alignment import RankMultiple
from .alignment import selection as selection_of
from .console import progress, show, show_json, written
from .dry_run import DryRun, dry_run
from .endings import commands_of, ending, proposed, refused
from .eval import (
    JUDGING,
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
from .idle import CHECKING, REFINING, Idle, at_most_one, refuse_idle
from .interrupts import tell_written
from .limits import MaxError, MinAgreement, agreement
from .measuring import Provider
from .refining import Refine, RefineImages
from .refining import refinement as refinement_of
from .report import ReportTo, write_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from trpexport.choose.base import Chooser

_TARGETS = ("target_macs", "target_params", "target_error", "max_drop")
_CHOOSING = ("scheme", "criterion", "include", "exclude", "stride_1_only", "rank_multiple")
_PLANNED = Idle((*_CHOOSING, "provider"), beside="plan")
_CALIBRATING = ("images", "seed", "cache", "output", "refine", "device")
_JUDGING = Idle(JUDGING, without="max_drop")
_IDLE = (_PLANNED, _JUDGING, REFINING, Idle(_CALIBRATING, without="calib"))


def decompose(
    context: typer.Context,
    checkpoint: opt.NetworkFile,
    scheme: opt.Scheme = "spatial",
    criterion: opt.Criterion = None,
    out: opt.Out = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Take scheme and rank of every layer from an edited plan.json."),
    ] = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    stride_1_only: opt.Stride1Only = False,
    keep_expensive: Annotated[
        bool,
        typer.Option("--keep-expensive", help="Also rewrite layers where that costs more MACs."),
    ] = False,
    arch: opt.Arch = None,
    expect: opt.Expect = None,
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    opset: opt.Opset = 18,
    dynamic_batch: opt.DynamicBatch = False,
    dynamic: opt.Dynamic = None,
    legacy_exporter: opt.LegacyExporter = False,
    simplify: opt.Simplify = None,
    add_baseline: Annotated[
        bool,
        typer.Option(
            "--add-baseline", help="Add the original network to the bundle, to compare with."
        ),
    ] = False,
    calib: opt.Calib = None,
    images: opt.Images = None,
    seed: opt.Seed = 0,
    target_macs: opt.TargetMacs = None,
    target_params: Annotated[
        float | None, typer.Option(help="Share of the parameters to keep, as in 0.4.")
    ] = None,
    target_error: opt.TargetError = None,
    max_drop: opt.MaxDrop = None,
    data: Data = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    output: opt.Outputs = None,
    rank_multiple: RankMultiple = "auto",
    provider: Provider = "cpu",
    cache: opt.Cache = None,
    refine: Refine = None,
    refine_images: RefineImages = None,
    device: opt.Device = "auto",
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    precision: opt.Precision = None,
    max_error: MaxError = None,
    min_agreement: MinAgreement = None,
    formats: opt.Format = None,
    target_ort: opt.TargetOrt = None,
    check: opt.Check = False,
    verify_seconds: opt.VerifySeconds = 20.0,
    inputs: opt.Inputs = None,
    force: opt.Force = False,
    is_dry: DryRun = False,
    report: ReportTo = None,
    as_json: opt.Json = False,
) -> None:
    """Decompose a checkpoint or an ONNX file, verify the result, and write it as ONNX.

    Writes a directory (a bundle) with model.onnx, model.safetensors (for a checkpoint), plan.json,
    golden.npz, report.json and manifest.json. A layer is rewritten only where that makes it
    cheaper. Exit code 3: no layer gets cheaper (a table shows what would help), or a target or
    limit can't be met; 4: the verification failed. Nothing is written in these cases.

    Images are prepared as the checkpoint says, or by --mean, --std, --size and --resize, which the
    bundle then stores. Arrays of floats are used as they are.

    Example:
        trpexport decompose network.pth --criterion energy:0.9
        trpexport decompose network.onnx --calib imagefolder:DIR --target-macs 0.5
    """
    tell_written(out)  # what comes now takes its time
    from trpexport.choose.by_plan import ByPlan
    from trpexport.choose.selection import Selection
    from trpexport.files import cache_folder
    from trpexport.networks.torch.devices import device_named
    from trpexport.pipeline import decompose_to_bundle, default_directory
    from trpexport.report.views.bundle import bundle_view
    from trpexport.report.views.calibration import calibration_view
    from trpexport.report.views.plan import plan_view

    at_most_one(context, *_TARGETS)
    target = _target(macs=target_macs, params=target_params, error=target_error, drop=max_drop)
    _check_target(target, calib)
    refuse_idle(context, *_IDLE, CHECKING)
    how = (mean, std, size, resize, data_preprocessing)
    fitted = calibration(calib, images, seed, how, data)
    kept = None if fitted is None else cache_folder(cache)
    selection = selection_of(context, include, exclude, stride_1_only, rank_multiple, provider)
    chooser: Chooser
    if target is not None:
        _refuse_beside_a_target(criterion, plan, keep_expensive)
        judging = {"metric": metric, "lower_is_better": metric_lower_is_better}
        chooser = _budget(target, scheme, kept, {**selection, **judging})
    elif plan is not None:
        chooser = ByPlan(plan, keep_expensive=keep_expensive, cache=kept)
    else:
        chooser = _criterion(scheme, criterion, keep_expensive, {**selection, "cache": kept})
    refinement = refinement_of(refine, cache, refine_images, device)
    out = out or default_directory(checkpoint, chooser.label)
    tell_written(out, cache=kept)
    labelled = expectation(expect, *how)
    array = real_inputs(inputs, how)
    source = opt.source(context, checkpoint, arch, model, input_shape, unsafe_pickle, labelled)
    settings = opt.settings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        legacy=legacy_exporter,
        simplify=simplify,
        seconds=verify_seconds,
        force=force,
        baseline=add_baseline,
        precision=precision,
        max_error=max_error,
        min_agreement=agreement(min_agreement),
        formats=opt.names(formats),
        target_ort=target_ort,
        check_target=check,
        preprocessing=kept_preprocessing(how, fitted, array, labelled),
    )
    if is_dry:
        chooser.check()
        device_named(device)
        settings.check(has_images=fitted is not None)
        dry_run(
            context,
            source,
            scheme,
            Selection(include=include or (), exclude=exclude or (), stride_1_only=stride_1_only),
            out,
            data=fitted,
            refinement=refinement,
            inputs=chooser.inputs,
            has_target=target is not None,
        )
        return
    with refused(context, as_json=as_json), progress() as stages:
        result = decompose_to_bundle(
            source,
            chooser,
            out,
            fitted,
            outputs=output or (),
            refinement=refinement,
            device=device,
            settings=settings,
            inputs=array,
            stages=stages,
        )
    if as_json:
        steps = commands_of(proposed(context, result.data, result.path))
        show_json({"bundle": str(result.path), **result.data, "next": steps})
    else:
        show(
            *plan_view(result.plan),
            *calibration_view(result.data),
            *bundle_view(result.data),
            *written(result.path),
            *ending(context, result.data, result.path),
        )
    write_report(report, result.path)


def _target(
    *, macs: float | None, params: float | None, error: float | None, drop: float | None
) -> tuple[str, float] | None:
    """Return the target that was typed and its limit, or None.

    Raises:
        TrpexportError: it is out of range.
    """
    limits = {"macs": macs, "parameters": params, "error": error, "drop": drop}
    typed = [(kind, limit) for kind, limit in limits.items() if limit is not None]
    if not typed:
        return None
    ((kind, limit),) = typed
    if kind == "drop" and not 0 <= limit < math.inf:
        raise TrpexportError(f"--max-drop {limit:g} is out of range: give 0 or more")
    if kind != "drop" and not 0 < limit < 1:
        name = "params" if kind == "parameters" else kind
        raise TrpexportError(
            f"--target-{name} {limit:g} is out of range: it must be between 0 and 1"
        )
    return kind, limit


def _refuse_beside_a_target(criterion: str | None, plan: Path | None, keep_expensive: bool) -> None:
    for name, given in (
        ("--criterion", criterion is not None),
        ("--plan", plan is not None),
        ("--keep-expensive", keep_expensive),
    ):
        if given:
            raise TrpexportError(f"{name} and a target exclude each other: give one of them")


def _check_target(target: tuple[str, float] | None, calib: str | None) -> None:
    """Refuse a target that nothing says how to meet."""
    if target is not None and calib is None:
        raise TrpexportError(
            "a target is met by output error on images: give some, as in --calib cifar10:DIR"
        )


def _budget(
    target: tuple[str, float],
    scheme: str,
    cache: Path | None,
    others: Mapping[str, Any],
) -> Chooser:
    from trpexport.choose.by_budget import ByBudget

    kind, limit = target
    limits: dict[str, Any] = {kind: limit}
    return ByBudget(
        **limits,
        scheme=scheme,
        cache=cache,
        **others,
    )


def _criterion(
    scheme: str, criterion: str | None, keep_expensive: bool, selection: Mapping[str, Any]
) -> Chooser:
    from trpexport.choose.by_criterion import ByCriterion
    from trpexport.lowrank.criteria import DEFAULT

    if scheme == "auto":
        raise TrpexportError(
            "--scheme auto chooses by output error: give images and a target, as in "
            "--calib cifar10:DIR --target-macs 0.5"
        )
    return ByCriterion(scheme, criterion or DEFAULT, keep_expensive=keep_expensive, **selection)
