"""``trpexport decompose``: a checkpoint to a verified bundle of low-rank pairs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trpexport.errors import TrpexportError

from . import options as opt
from .console import progress, show, show_json
from .eval import DataPreprocessing, Mean, Resize, Size, Std, open_data, preprocessing

if TYPE_CHECKING:
    from trpexport.choose.calibrating import CalibrationSettings, Target

Share = float | None


def decompose(
    checkpoint: opt.CheckpointFile,
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
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    opset: opt.Opset = 18,
    dynamic_batch: opt.DynamicBatch = False,
    legacy_exporter: opt.LegacyExporter = False,
    no_simplify: opt.NoSimplify = False,
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
        Share, typer.Option(help="Save what this drop of top-1 allows, in points; needs labels.")
    ] = None,
    rank_multiple: Annotated[
        str | None,
        typer.Option(help="With a target: ranks are multiples of N; auto for this processor."),
    ] = None,
    calib_cache: Annotated[
        Path | None, typer.Option(help="Folder of sensitivity tables; else the user's cache.")
    ] = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    verify_seconds: opt.VerifySeconds = 20.0,
    inputs: opt.Inputs = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Decompose a checkpoint's convolutions, verify the result, and export it as ONNX.

    Writes a directory: model.onnx, model.safetensors, plan.json, golden.npz, report.json and
    manifest.json. A layer is rewritten only where that makes it cheaper. Exit code 3: no layer
    gets cheaper, and a table shows what would, or a target can't be met; 4: the verification
    failed. Nothing is written then. With --calib, images become input as the checkpoint says, else
    as --mean, --std, --size and --resize do.
    """
    from trpexport.pipeline import (
        Decomposition,
        NothingCheaperError,
        decompose_checkpoint,
    )
    from trpexport.report.calibrations import calibration_table
    from trpexport.report.tables import bundle_summary, choices_table, next_command, plan_table

    calibration = _calibration(
        calib,
        _target(macs=target_macs, params=target_params, error=target_error, drop=max_drop),
        images=calib_images,
        seed=calib_seed,
        multiple=rank_multiple,
        cache=calib_cache,
        how=(mean, std, size, resize, data_preprocessing),
    )
    source = opt.source(checkpoint, arch, model, input_shape, unsafe_pickle)
    settings = opt.settings(
        opset=opset,
        dynamic=dynamic_batch,
        legacy=legacy_exporter,
        no_simplify=no_simplify,
        seconds=verify_seconds,
        force=force,
        baseline=baseline,
    )
    decomposition = Decomposition(
        scheme=scheme,
        criterion=criterion,
        plan=plan,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        stride_1_only=stride_1_only,
        keep_expensive=keep_expensive,
        calibration=calibration,
    )
    array = opt.read_inputs(inputs)
    try:
        with progress() as stages:
            result = decompose_checkpoint(
                source, decomposition, out, settings=settings, inputs=array, stages=stages
            )
    except NothingCheaperError as error:
        from trpexport.choose.survey import survey

        choices = survey(error.analysis) if error.analysis else []
        if as_json:
            show_json({"error": str(error), "choices": [vars(choice) for choice in choices]})
        elif any(choice.layers for choice in choices):
            show(*choices_table(choices, error.plan), next_command(choices, checkpoint, scheme))
        else:  # nothing helps: the reasons of the layers say why
            show(*plan_table(error.plan), next_command(choices, checkpoint, scheme))
        raise
    if as_json:
        show_json({"bundle": str(result.path), **result.data})
    else:
        show(
            *plan_table(result.plan),
            *calibration_table(result.data),
            bundle_summary(result.data, result.path),
        )


def _target(
    *, macs: float | None, params: float | None, error: float | None, drop: float | None
) -> Target | None:
    """Return the one target that was typed, or None.

    Raises:
        TrpexportError: several were, or it is out of range.
    """
    from trpexport.choose.calibrating import Target

    typed = [
        target
        for target in (
            None if macs is None else Target("macs", macs),
            None if params is None else Target("params", params),
            None if error is None else Target("error", error),
            None if drop is None else Target("drop", drop),
        )
        if target is not None
    ]
    if len(typed) > 1:
        raise TrpexportError(
            "--target-macs, --target-params, --target-error and --max-drop exclude each other: "
            "give one of them"
        )
    return typed[0] if typed else None


def _calibration(
    data: str | None,
    target: Target | None,
    *,
    images: int,
    seed: int,
    multiple: str | None,
    cache: Path | None,
    how: tuple[str | None, str | None, str | None, int | None, bool],
) -> CalibrationSettings | None:
    """Return what to calibrate on, as it was typed; None where it was not.

    Raises:
        TrpexportError: a part is missing, or is not what it should be.
    """
    from trpexport.choose.calibrating import CalibrationSettings

    if multiple is not None and target is None:
        raise TrpexportError("--rank-multiple needs a target, as in --target-macs 0.5")
    if data is None:
        if target is not None:
            raise TrpexportError(
                "a target is met by output error on images: give some, as in --calib cifar10:DIR"
            )
        if any(how) or cache is not None:
            raise TrpexportError(
                "--mean, --std, --size, --resize, --data-preprocessing and --calib-cache say how "
                "to calibrate: give the images, as in --calib cifar10:DIR"
            )
        return None
    dataset = open_data(data)
    return CalibrationSettings(
        dataset=dataset,
        images=images,
        seed=seed,
        preprocessing=preprocessing(dataset, *how),
        target=target,
        rank_multiple=_multiple(multiple),
        cache=cache,
    )


def _multiple(text: str | None) -> int:
    from trpexport.choose.calibrating import automatic_multiple

    if text is None:
        return 1
    if text == "auto":
        return automatic_multiple()
    if not re.fullmatch(r"[1-9]\d{0,5}", text):
        raise TrpexportError(f"--rank-multiple {text!r} must be a number of at least 1, or auto")
    return int(text)
