"""``trpexport decompose``: a checkpoint to a verified bundle of low-rank pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress, show, show_json


def decompose(
    checkpoint: opt.CheckpointFile,
    scheme: opt.Scheme = "spatial",
    criterion: Annotated[
        str, typer.Option(help="How ranks are chosen, NAME:VALUE; a wrong name lists all.")
    ] = "value:0.05",
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
    verify_seconds: opt.VerifySeconds = 20.0,
    inputs: opt.Inputs = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Decompose a checkpoint's convolutions, verify the result, and export it as ONNX.

    Writes a directory: model.onnx, model.safetensors, plan.json, golden.npz, report.json and
    manifest.json. A layer is rewritten only where that makes it cheaper. Exit code 3: no layer
    gets cheaper, and a table shows what would; 4: the verification failed. Nothing is written then.
    """
    from trpexport.export.pipeline import (
        Decomposition,
        NothingCheaperError,
        decompose_checkpoint,
    )
    from trpexport.report.tables import bundle_summary, choices_table, next_command, plan_table

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
    )
    array = opt.read_inputs(inputs)
    try:
        with progress() as stages:
            result = decompose_checkpoint(
                source, decomposition, out, settings=settings, inputs=array, stages=stages
            )
    except NothingCheaperError as error:
        from trpexport.lowrank.survey import survey

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
        show(*plan_table(result.plan), bundle_summary(result.data, result.path))
