"""``trpexport quantize``: a bundle or an ONNX file that stands, in other precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as opt
from .console import progress, show, show_json
from .endings import after_conversion, commands_of, conversion_ending, conversion_refused
from .eval import (
    PREPARING,
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
    kept_preprocessing,
    open_data,
    preprocessing,
)
from .idle import CHECKING, Idle, refuse_idle
from .interrupts import tell_written
from .limits import MaxError
from .measuring import Provider


def quantize(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A bundle, or an ONNX file in float32.")
    ],
    precision: opt.Precision = None,
    calib: opt.Calib = None,
    images: opt.Images = None,
    seed: opt.Seed = 0,
    max_error: MaxError = None,
    max_drop: opt.MaxDrop = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    data: Data = None,
    split: Split = "test",
    data_images: DataImages = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    input_shape: opt.InputShape = None,
    provider: Provider = "cpu",
    out: opt.Out = None,
    formats: opt.Format = None,
    target_ort: opt.TargetOrt = None,
    check: opt.Check = False,
    verify_seconds: opt.VerifySeconds = 20.0,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Write a bundle or an ONNX file in int8, fp16 or other precisions, verified against float32.

    int8 is calibrated on images. The nodes that lose most stay in float32 until --max-error or,
    with labels, --max-drop is met. The new file goes into the bundle, where verify, bench, eval,
    gate and flops know it as BUNDLE@int8, or into a copy of the bundle with --out; for an ONNX file
    to MODEL.int8.onnx here, or to --out. Exit code 3: a limit can't be met; nothing is written
    then.

    Example:
        trpexport quantize out --calib cifar10:DIR --max-error 0.05
    """
    tell_written(out)
    from trpexport.artifact.build import ExportSettings
    from trpexport.bundle import is_bundle
    from trpexport.conversion import Conversion, Labelled
    from trpexport.judge.examples import find_judge, usual_metric
    from trpexport.report.views.bundle import conversion_view

    refuse_idle(
        context,
        Idle(("images", "seed"), without="calib"),
        CHECKING,
        Idle(("max_drop", "metric", "split", "data_images"), without="data"),
        Idle(("metric_lower_is_better",), without="metric"),
    )
    if calib is None and not is_bundle(model):
        refuse_idle(context, Idle(PREPARING, without="data"))
    how = (mean, std, size, resize, data_preprocessing)
    calibrated = calibration(calib, images, seed, how)
    labelled = None
    if data is not None:
        dataset = open_data(data)
        chosen = usual_metric(dataset, metric)
        judge = find_judge(dataset.name, chosen, lower_is_better=metric_lower_is_better)
        prepared = preprocessing(dataset, *how, kept=True)
        labelled = Labelled(dataset, split, data_images, prepared, judge, max_drop)
    settings = ExportSettings(
        precisions=opt.names(precision or ["fp32" if formats else "int8"]),
        max_error=max_error,
        formats=opt.names(formats),
        target_ort=target_ort,
        check_target=check,
        verify_seconds=opt.checked_seconds(verify_seconds),
        replace=force,
        preprocessing=kept_preprocessing(how, calibrated, labelled),
    )
    job = Conversion(
        settings,
        calibrated,
        labelled,
        provider,
        opt.parse_inputs(input_shape),
    )
    with conversion_refused(context, as_json=as_json), progress() as stages:
        result = job(model, out, stages)
    if as_json:
        verdicts = {name: one.to_json() for name, one in result.verdicts().items()}
        files = {name: str(path) for name, path in result.paths.items()}
        steps = commands_of(after_conversion(context, result))
        show_json({"files": files, **result.data, "verdicts": verdicts, "next": steps})
    else:
        show(*conversion_view(result.data, result.paths), *conversion_ending(context, result))
