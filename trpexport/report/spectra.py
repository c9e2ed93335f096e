"""The spectrum of every layer, and what criteria make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from trpexport.choose.survey import survey
from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import bar, percent

if TYPE_CHECKING:
    from trpexport.checkpoints import Checkpoint
    from trpexport.choose.spectra import Analysis, LayerSpectrum
    from trpexport.lowrank.criteria import Criterion

_BAR_WIDTH = 16


def inspection(
    checkpoint: Checkpoint, analysis: Analysis, criteria: Sequence[Criterion]
) -> dict[str, Any]:
    """Return what ``trpexport inspect`` shows, as JSON-ready data."""
    choices = survey(analysis, criteria)
    tried = [one for one in criteria if str(one) in {choice.criterion for choice in choices}]
    return {
        "architecture": checkpoint.label,
        "sha256": checkpoint.sha256,
        "input_shape": list(analysis.bare.input_shape),
        "scheme": analysis.scheme.name,
        "notes": list(checkpoint.notes),
        "layers": [_layer(layer, analysis, tried) for layer in analysis.layers],
        "criteria": [asdict(choice) for choice in choices],
    }


def _layer(
    layer: LayerSpectrum, analysis: Analysis, criteria: Sequence[Criterion]
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": layer.name,
        "convolution": str(layer.op),
        "macs": layer.macs((layer.op,)),
        "reason_kept": layer.reason,
    }
    if layer.values is None:
        return facts
    return facts | {
        "full_rank": analysis.scheme.full_rank(layer.op),
        "break_even_rank": analysis.scheme.break_even_rank(layer.op, layer.layer.calls),
        "ranks": {str(criterion): analysis.rank(layer, criterion) for criterion in criteria},
        "spectrum": layer.envelope,
    }


def spectrum_table(facts: Mapping[str, Any]) -> Parts:
    """Show an inspection: a bar of each spectrum, and the rank that each criterion gives."""
    names = [choice["criterion"] for choice in facts["criteria"]]
    shape = "x".join(map(str, facts["input_shape"]))
    heading = escape(
        f"{facts['architecture']}, input {shape}, {facts['scheme']}; ranks up to the break-even "
        "one are cheaper (green)"
    )
    table = plain_table()
    table.add_column("layer", no_wrap=True)
    table.add_column("convolution")
    table.add_column("singular values", no_wrap=True, min_width=_BAR_WIDTH)
    table.add_column("full\nrank", justify="right", no_wrap=True)
    table.add_column("break\neven", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name.replace(":", "\n"), justify="right", no_wrap=True)
    for layer in facts["layers"]:
        _add_layer(table, layer, names)
    totals = [f"{choice['macs_ratio']:.2f}x" for choice in facts["criteria"]]
    errors = [percent(choice["weight_error"]) for choice in facts["criteria"]]
    empty = [""] * 4
    table.add_row("MACs saved", *empty, *totals, style="bold")
    table.add_row("weight error", *empty, *errors, style="bold")
    kept = [
        f"kept  {layer['name']}: {layer['reason_kept']}"
        for layer in facts["layers"]
        if layer["reason_kept"] is not None
    ]
    return heading, table, *map(escape, kept)


def _add_layer(table: Table, layer: Mapping[str, Any], names: Sequence[str]) -> None:
    start = [layer["name"], layer["convolution"]]
    if layer["reason_kept"] is not None:
        table.add_row(*start, "kept", style="dim")
        return
    spectrum, best = layer["spectrum"], layer["break_even_rank"]
    ranks = [layer["ranks"][name] for name in names]
    table.add_row(
        *start,
        bar(spectrum, _BAR_WIDTH),
        str(layer["full_rank"]),
        str(best) if best else "none",
        *(f"[green]{rank}[/green]" if rank <= best else str(rank) for rank in ranks),
    )
