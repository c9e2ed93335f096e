"""``trpexport quantize``: a bundle or an ONNX file that stands, in other precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress, show, show_json
from .eval import (
    PREPARED_BY_DATA,
    PREPARING,
    Data,
    DataPreprocessing,
    Limit,
    LowerIsBetter,
    Mean,
    OfMetric,
    Provider,
    Resize,
    Size,
    Split,
    Std,
    calibration,
    kept_preprocessing,
    open_data,
    preprocessing,
)
from .interrupts import tell_written


def quantize(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A bundle, or an ONNX file in float32.")
    ],
    precision: opt.Precision = None,
    calib: opt.Calib = None,
    calib_images: opt.CalibImages = 512,
    calib_seed: opt.CalibSeed = 0,
    max_error: opt.MaxError = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="What may be lost on --data, in points of top-1; of --metric, points of top5 and "
            "miou, else its own unit.",
        ),
    ] = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    data: Data = None,
    split: Split = "test",
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    input_shape: opt.InputShape = None,
    provider: Provider = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Of a bundle, where a copy goes; of a file, a file or a directory. Else the "
            "bundle itself, or MODEL.int8.onnx here.",
        ),
    ] = None,
    formats: opt.Format = None,
    target_ort: opt.TargetOrt = None,
    check: opt.Check = False,
    verify_seconds: opt.VerifySeconds = 20.0,
    force: Annotated[bool, typer.Option("--force", help="Replace what stands there.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Write a bundle or an ONNX file in int8, fp16 and other precisions, verified against float32.

    int8 is calibrated on images, and what costs most stays in float32 until --max-error or, with
    labels, --max-drop holds. BUNDLE@int8 names the result in verify, bench, eval, gate and flops.
    Exit code 3: a limit can't be met; nothing is written then.
    """
    tell_written(out)
    from trpexport.artifact.build import ExportSettings
    from trpexport.bundle import is_bundle
    from trpexport.conversion import Conversion, Labelled
    from trpexport.judge.examples import find_judge
    from trpexport.report.views.bundle import conversion_view

    opt.refuse_idle(
        context,
        opt.Idle(("calib_images", "calib_seed"), without="calib"),
        opt.CHECKING,
        opt.Idle(("max_drop", "metric", "split", "limit"), without="data"),
        opt.Idle(("metric_lower_is_better",), without="metric"),
    )
    if calib is None and not is_bundle(model):
        opt.refuse_idle(context, opt.Idle(PREPARING, without="data"))
    if data is None:
        opt.refuse_idle(context, PREPARED_BY_DATA)
    how = (mean, std, size, resize, data_preprocessing)
    calibrated = calibration(calib, calib_images, calib_seed, how)
    settings = ExportSettings(
        precisions=opt.names(precision or ["fp32" if formats else "int8"]),
        max_error=max_error,
        formats=opt.names(formats),
        target_ort=target_ort,
        check_target=check,
        verify_seconds=opt.checked_seconds(verify_seconds),
        replace=force,
        preprocessing=kept_preprocessing(how, calibrated),
    )
    labelled = None
    if data is not None:
        dataset = open_data(data)
        judge = find_judge(dataset.name, metric, lower_is_better=metric_lower_is_better)
        prepared = preprocessing(dataset, *how)
        labelled = Labelled(dataset, split, limit, prepared, judge, max_drop)
    job = Conversion(
        settings,
        calibrated,
        labelled,
        provider,
        opt.parse_inputs(input_shape),
    )
    with progress() as stages:
        result = job(model, out, stages)
    if as_json:
        show_json({"files": {n: str(p) for n, p in result.paths.items()}, **result.data})
    else:
        show(*conversion_view(result.data, result.paths))
