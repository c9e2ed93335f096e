"""``trpexport sensitivity``: which layer of a network costs what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trpexport.errors import TrpexportError

from . import options as opt
from .alignment import RankMultiple
from .alignment import selection as selection_of
from .console import progress, show, show_json
from .drawing import Plot, draw
from .eval import DataPreprocessing, Mean, Resize, Size, Std, calibration, expectation
from .interrupts import tell_written
from .measuring import Provider
from .report import ReportTo, write_report

Ratios = Annotated[
    str,
    typer.Option(help="Shares of a layer's MACs to try, separated by commas."),
]
_RATIOS = "0.75,0.5,0.25"


def sensitivity(
    context: typer.Context,
    network: opt.NetworkFile,
    calib: opt.Calib = None,
    scheme: opt.Scheme = "spatial",
    target_macs: opt.TargetMacs = None,
    ratios: Ratios = _RATIOS,
    precision: opt.Precision = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    stride_1_only: opt.Stride1Only = False,
    rank_multiple: RankMultiple = "auto",
    provider: Provider = "cpu",
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
    plot: Plot = None,
    report: ReportTo = None,
    as_json: opt.Json = False,
) -> None:
    """Show how much the network's output changes if one layer alone is cut, the worst layer first.

    With --target-macs, also shows the cut that each layer gets within that budget, and what leaving
    it whole would win back; with --precision int8, the error of each layer in int8. Layers that
    were not cut are listed separately, with the reason: nothing is known about them. The
    measurements are kept and shared with decompose, for the same images, scheme and layers. Exit
    code 3: no layer gets cheaper, or the target can't be met.

    Example:
        trpexport sensitivity network.pth --calib cifar10:DIR --target-macs 0.5
    """
    from trpexport.choose.sensitivity import SensitivityJob
    from trpexport.files import cache_folder
    from trpexport.report.documents import Record
    from trpexport.report.views.sensitivity import sensitivity_lanes, sensitivity_view
    from trpexport.sensing import sense

    how = (mean, std, size, resize, data_preprocessing)
    fitted = calibration(calib, images, seed, how)
    if fitted is None:
        raise TrpexportError(
            "sensitivity is measured on images: give some, as in --calib cifar10:DIR"
        )
    selection = selection_of(context, include, exclude, stride_1_only, rank_multiple, provider)
    kept = cache_folder(cache)
    job = SensitivityJob(scheme, shares(ratios, "--ratios"), target_macs, selection, kept)
    tell_written(report, plot, cache=kept)
    source = opt.source(
        context, network, arch, model, input_shape, unsafe_pickle, expectation(expect, *how)
    )
    with progress() as stages:
        found = sense(source, job, fitted, precisions=opt.names(precision), stages=stages)
    facts = found.to_json()
    if as_json:
        show_json(facts)
    else:
        show(*sensitivity_view(facts))
    if plot is not None:
        draw(plot, sensitivity_lanes(facts), f"What each layer of {network.name} loses")
    write_report(report, Record(Path(network.name), "sensitivity", facts))


def shares(text: str, option: str) -> tuple[float, ...]:
    """Return the shares that were typed, by commas.

    Raises:
        TrpexportError: one is no number between 0 and 1.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < share < 1 for share in found):
        raise TrpexportError(f"{option} {text!r} must be shares between 0 and 1, as in {_RATIOS}")
    return found
