"""``trpexport decompose``: a network to a verified bundle of low-rank factors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import options as opt
from .alignment import Provider, RankMultiple, multiple
from .console import progress, show, show_json, written
from .dry_run import DryRun, dry_run
from .endings import ending, refused
from .eval import (
    JUDGING,
    PREPARING,
    DataPreprocessing,
    JudgedBy,
    LowerIsBetter,
    Mean,
    OfMetric,
    Resize,
    Size,
    Std,
    calibration,
    expectation,
)
from .interrupts import tell_written
from .limits import MaxError, MinAgreement, agreement
from .refining import Refine
from .refining import refinement as refinement_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from trpexport.choose.base import Chooser

Share = float | None

_TARGETS = ("target_macs", "target_params", "target_error", "max_drop")
_CHOOSING = ("scheme", "criterion", "include", "exclude", "stride_1_only", "rank_multiple")
_PLANNED = opt.Idle((*_CHOOSING, "provider"), beside="plan")
_CALIBRATING = ("calib_images", "calib_seed", "calib_cache", "output", "refine")
_JUDGING = opt.Idle(JUDGING, without="max_drop")
_IDLE = (_PLANNED, _JUDGING, opt.Idle((*_CALIBRATING, *PREPARING), without="calib"))
_IDLE_WITH_LABELS = (_PLANNED, _JUDGING, opt.Idle(_CALIBRATING, without="calib"))


def decompose(
    context: typer.Context,
    checkpoint: opt.NetworkFile,
    scheme: Annotated[
        str,
        typer.Option(
            help="channel, spatial, input-channel, decoupling or tucker2; auto, with a target, "
            "chooses for each layer."
        ),
    ] = "spatial",
    criterion: Annotated[
        str | None,
        typer.Option(
            help="How ranks are chosen, NAME:VALUE; value:0.05 by default, a wrong name lists all."
        ),
    ] = None,
    out: opt.Out = None,
    plan: Annotated[
        Path | None, typer.Option(help="An edited plan.json, which then decides on every layer.")
    ] = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    stride_1_only: opt.Stride1Only = False,
    keep_expensive: Annotated[
        bool,
        typer.Option("--keep-expensive", help="Rewrite layers even where that costs more MACs."),
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
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Add the original network, for bench to compare with."),
    ] = False,
    calib: Annotated[
        str | None,
        typer.Option(help="Fit the factors to unlabelled images, as in cifar10:DIR."),
    ] = None,
    calib_images: Annotated[int, typer.Option(min=1, help="How many of them.")] = 512,
    calib_seed: Annotated[int, typer.Option(min=0, help="Which of them.")] = 0,
    target_macs: Annotated[
        Share, typer.Option(help="Choose ranks to keep this share of the MACs, as in 0.5.")
    ] = None,
    target_params: Annotated[Share, typer.Option(help="Likewise of the parameters.")] = None,
    target_error: Annotated[
        Share, typer.Option(help="Save what this output error on the images allows, as in 0.05.")
    ] = None,
    max_drop: Annotated[
        Share,
        typer.Option(
            help="Save what this drop of top-1 allows, in points; of --metric, points of top5 and "
            "miou, else its own unit. Needs labels."
        ),
    ] = None,
    data: JudgedBy = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    output: Annotated[
        list[str] | None,
        typer.Option(help="Only outputs whose name matches this glob count as error. Repeatable."),
    ] = None,
    rank_multiple: RankMultiple = "auto",
    provider: Provider = None,
    calib_cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of sensitivity tables, and of what --refine goes on "
            "from; else the user's cache."
        ),
    ] = None,
    refine: Refine = None,
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
    as_json: opt.Json = False,
) -> None:
    """Decompose a checkpoint or an ONNX file, verify the result, and write it as ONNX.

    Writes a directory: model.onnx, model.safetensors (of a checkpoint), plan.json, golden.npz,
    report.json and manifest.json. A layer is rewritten only where that makes it cheaper. Exit code
    3: no layer gets cheaper, and a table shows what would, or a target or limit can't be met; 4:
    the verification failed. Nothing is written then. With --calib, images become input as the
    checkpoint says, else as --mean, --std, --size and --resize do.
    """
    tell_written(out)  # what comes now takes its time
    from trpexport.choose.by_plan import ByPlan
    from trpexport.choose.selection import Selection
    from trpexport.pipeline import decompose_to_bundle, default_directory
    from trpexport.report.views.bundle import bundle_view
    from trpexport.report.views.calibration import calibration_view
    from trpexport.report.views.plan import plan_view

    opt.at_most_one(context, *_TARGETS)
    target = _target(macs=target_macs, params=target_params, error=target_error, drop=max_drop)
    _check_target(context, target, calib)
    opt.refuse_idle(context, *(_IDLE_WITH_LABELS if expect else _IDLE), opt.CHECKING)
    how = (mean, std, size, resize, data_preprocessing)
    images = calibration(calib, calib_images, calib_seed, how, data)
    selection = {
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "stride_1_only": stride_1_only,
        "rank_multiple": multiple(rank_multiple),
        "provider": provider,
    }
    chooser: Chooser
    if target is not None:
        _refuse_beside_a_target(criterion, plan, keep_expensive)
        judging = {"metric": metric, "lower_is_better": metric_lower_is_better}
        chooser = _budget(target, scheme, calib_cache, {**selection, **judging})
    elif plan is not None:
        chooser = ByPlan(plan, keep_expensive=keep_expensive)
    else:
        chooser = _criterion(scheme, criterion, keep_expensive, selection)
    refinement = refinement_of(refine, calib_cache)
    out = out or default_directory(checkpoint, chooser.label)
    tell_written(out)
    labelled = expectation(expect, *how)
    source = opt.source(context, checkpoint, arch, model, input_shape, unsafe_pickle, labelled)
    settings = opt.settings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        legacy=legacy_exporter,
        simplify=simplify,
        seconds=verify_seconds,
        force=force,
        baseline=baseline,
        precision=precision,
        max_error=max_error,
        min_agreement=agreement(min_agreement),
        formats=opt.names(formats),
        target_ort=target_ort,
        check_target=check,
    )
    array = opt.read_inputs(inputs)
    if is_dry:
        chooser.check()
        settings.check(has_images=images is not None)
        dry_run(
            context,
            source,
            scheme,
            Selection(include=include or (), exclude=exclude or (), stride_1_only=stride_1_only),
            out,
            images=None if images is None else images.count,
            has_target=target is not None,
        )
        return
    with refused(context, as_json=as_json), progress() as stages:
        result = decompose_to_bundle(
            source,
            chooser,
            out,
            images,
            outputs=output or (),
            refinement=refinement,
            settings=settings,
            inputs=array,
            stages=stages,
        )
    if as_json:
        show_json({"bundle": str(result.path), **result.data})
    else:
        show(
            *plan_view(result.plan),
            *calibration_view(result.data),
            *bundle_view(result.data),
            *written(result.path),
            *ending(context, result.data, result.path),
        )


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


def _check_target(
    context: typer.Context, target: tuple[str, float] | None, calib: str | None
) -> None:
    """Refuse options that only serve a target, and a target that nothing says how to meet."""
    if target is None:
        if not opt.is_typed(context, "refine"):
            opt.refuse_typed(
                context, ("calib_cache",), "without a target", add="one, as in --target-macs 0.5"
            )
    elif calib is None:
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
    from trpexport.files import cache_folder

    kind, limit = target
    limits: dict[str, Any] = {kind: limit}
    return ByBudget(
        **limits,
        scheme=scheme,
        cache=cache_folder(cache),
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
