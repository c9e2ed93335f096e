"""``trpexport inspect``: the spectrum of every layer, and the rank that each criterion gives it."""

from __future__ import annotations

import typer

from . import options as opt
from .console import progress, show, show_json

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
    as_json: opt.Json = False,
) -> None:
    """Show what a network is, each layer's singular values, and the ranks they suggest.

    Writes nothing. The last row gives the MACs that each criterion would save.

    Example:
        trpexport inspect network.pth --scheme channel
    """
    from trpexport.choose.inspection import inspection
    from trpexport.choose.selection import Selection
    from trpexport.choose.spectra import analyse
    from trpexport.lowrank.criteria import parse_criterion
    from trpexport.report.blocks import Role, Text
    from trpexport.report.views.spectra import spectra_view

    source = opt.source(context, checkpoint, arch, model, input_shape, unsafe_pickle)
    criteria = [parse_criterion(text) for text in criterion or DEFAULT_CRITERIA]
    selection = Selection(include=include or (), exclude=exclude or (), stride_1_only=stride_1_only)
    with progress() as stages:
        loaded, network = source.open(stages)
        with stages("compute spectra"):
            analysis = analyse(network, scheme, selection, architecture=loaded.label)
            facts = inspection(loaded, analysis, criteria)
    if as_json:
        show_json(facts)
    else:
        show(*spectra_view(facts), *(Text(note, Role.NOTE) for note in loaded.notes))
