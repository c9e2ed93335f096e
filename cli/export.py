"""``trpexport export``: a checkpoint to a verified bundle, without decomposition."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options as opt
from .console import progress, show, show_json, written
from .endings import after_export, commands_of, export_ending
from .eval import (
    DataPreprocessing,
    Mean,
    Resize,
    Size,
    Std,
    calibration,
    expectation,
    kept_preprocessing,
    real_inputs,
)
from .idle import CHECKING, Idle, refuse_idle
from .interrupts import tell_written
from .limits import MaxError


def export(
    context: typer.Context,
    checkpoint: opt.CheckpointFile,
    out: opt.Out = None,
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
    keep_norms: Annotated[
        bool,
        typer.Option(
            "--keep-norms",
            help="Do not fold batch norms into the kernels before them, so that the file can be "
            "decomposed with the same ranks as the checkpoint.",
        ),
    ] = False,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    precision: opt.Precision = None,
    calib: opt.Calib = None,
    images: opt.Images = None,
    seed: opt.Seed = 0,
    max_error: MaxError = None,
    formats: opt.Format = None,
    target_ort: opt.TargetOrt = None,
    check: opt.Check = False,
    verify_seconds: opt.VerifySeconds = 20.0,
    inputs: opt.Inputs = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Export a checkpoint without decomposing it, as a baseline to compare with.

    Writes the same kind of directory as decompose; it stores --mean, --std, --size and --resize.
    Exit code 4: the ONNX file computes something else than the network; nothing is written then.

    Example:
        trpexport export network.pth -o dense
    """
    tell_written(out)  # what comes now takes its time
    from trpexport.exporting import export_checkpoint
    from trpexport.pipeline import default_directory
    from trpexport.report.views.bundle import bundle_view

    refuse_idle(
        context,
        Idle(("simplify",), beside="keep_norms"),
        Idle(("max_error",), without="precision"),
        Idle(("images", "seed"), without="calib"),
        CHECKING,
    )
    how = (mean, std, size, resize, data_preprocessing)
    data = calibration(calib, images, seed, how)
    array = real_inputs(inputs, how)
    out = out or default_directory(checkpoint, "onnx")
    tell_written(out)
    labelled = expectation(expect, *how)
    source = opt.checkpoint_source(checkpoint, arch, model, input_shape, unsafe_pickle, labelled)
    settings = opt.settings(
        opset=opset,
        dynamic_batch=dynamic_batch,
        dynamic=dynamic,
        legacy=legacy_exporter,
        simplify=simplify,
        seconds=verify_seconds,
        force=force,
        keep_norms=keep_norms,
        precision=precision,
        max_error=max_error,
        formats=opt.names(formats),
        target_ort=target_ort,
        check_target=check,
        preprocessing=kept_preprocessing(how, data, array, labelled),
    )
    with progress() as stages:
        result = export_checkpoint(
            source, out, data, settings=settings, inputs=array, stages=stages
        )
    if as_json:
        steps = commands_of(after_export(context, result.path))
        show_json({"bundle": str(result.path), **result.data, "next": steps})
    else:
        ending = export_ending(context, result.path)
        show(*bundle_view(result.data), *written(result.path), *ending)
