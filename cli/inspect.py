"""``trpexport inspect``: the spectrum of every layer, and the rank that each criterion gives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .console import progress, show, show_json
from .drawing import Plot, draw
from .idle import Idle, refuse_idle
from .interrupts import tell_written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trpexport.choose.selection import Selection
    from trpexport.lowrank.criteria import Criterion
    from trpexport.pipeline import Decomposable
    from trpexport.stages import Stages

DEFAULT_CRITERIA = ("value:0.05", "relative:0.1", "energy:0.9", "energy1:0.9", "vbmf")


def inspect(
    context: typer.Context,
    checkpoint: opt.NetworkFile,
    scheme: opt.Scheme = "spatial",
    criterion: opt.Criteria = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    stride_1_only: opt.Stride1Only = False,
    arch: opt.Arch = None,
    model: opt.Model = None,
    input_shape: opt.InputShape = None,
    unsafe_pickle: opt.UnsafePickle = False,
    beside: Annotated[
        Path | None,
        typer.Option(help="Draw another network with layers of the same names beside it."),
    ] = None,
    plot: Plot = None,
    as_json: opt.Json = False,
) -> None:
    """Show the layers of a network, their singular values, and the ranks these suggest.

    The last row shows the MACs that each criterion would save. Nothing is written, except for the
    picture of --plot.

    Example:
        trpexport inspect network.pth --scheme channel
        trpexport inspect trp.pth --beside plain.pth --plot spectra.png
    """
    from trpexport.choose.selection import Selection
    from trpexport.lowrank.criteria import parse_criterion
    from trpexport.report.blocks import Role, Text
    from trpexport.report.views.plots import inspected_plots
    from trpexport.report.views.spectra import spectra_view

    refuse_idle(context, Idle(("beside",), without="plot"))
    tell_written(plot)
    source = opt.source(context, checkpoint, arch, model, input_shape, unsafe_pickle)
    criteria = [parse_criterion(text) for text in criterion or DEFAULT_CRITERIA]
    selection = Selection(include=include or (), exclude=exclude or (), stride_1_only=stride_1_only)
    with progress() as stages:
        facts = _inspected(source, scheme, selection, criteria, stages)
        other = None
        if beside is not None:
            second = opt.source(context, beside, arch, model, input_shape, unsafe_pickle)
            other = _inspected(second, scheme, selection, criteria, stages)
    if plot is not None:
        names = [path.stem for path in (checkpoint, beside) if path is not None]
        title = f"Singular values over the largest, {scheme}: {' and '.join(names)}"
        draw(plot, inspected_plots(facts, names[0], other, names[-1]), title)
    if as_json:
        show_json(facts)
    else:
        show(*spectra_view(facts), *(Text(note, Role.NOTE) for note in facts["notes"]))


def _inspected(
    source: Decomposable,
    scheme: str,
    selection: Selection,
    criteria: Sequence[Criterion],
    stages: Stages,
) -> dict[str, Any]:
    from trpexport.choose.inspection import inspection
    from trpexport.choose.spectra import analyse

    loaded, network = source.open(stages)
    with stages("compute spectra"):
        analysis = analyse(network, scheme, selection, architecture=loaded.label)
        return inspection(loaded, analysis, criteria)
