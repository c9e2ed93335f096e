"""The spectrum of every layer, and what criteria make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Table, Tone, Value
from trpexport.report.views.plan import kept_tables
from trpexport.report.views.uncounted import at_most, not_counted


def spectra_view(facts: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show each layer's singular values, and the rank that each criterion gives it.

    Args:
        facts: what :func:`trpexport.choose.inspection.inspection` returned.
    """
    choices, layers, unknown = facts["criteria"], facts["layers"], facts["uncounted"]
    names = [choice["criterion"] for choice in choices]
    saved = [at_most(choice["macs_ratio"], unknown, Kind.RATIO) for choice in choices]
    errors = [Value(choice["weight_error"], Kind.SHARE) for choice in choices]
    table = Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("operator", "operator", Kind.NAME, optional=True),
            Column("spectrum", "singular values", Kind.BARS, optional=True),
            Column("full_rank", "full rank", Kind.WHOLE, absent="kept"),
            Column("break_even", "break even", Kind.WHOLE, absent="none"),
            # A space, for the title to be wrapped at.
            *(Column(name, name.replace(":", ": "), Kind.WHOLE) for name in names),
        ),
        rows=tuple(map(_row, layers)),
        totals=(
            {"layer": "MACs saved", **dict(zip(names, saved, strict=True))},
            {"layer": "weight error", **dict(zip(names, errors, strict=True))},
        ),
        title=(
            f"{facts['architecture']}, input ",
            *_inputs(facts),
            ", ",
            Value(facts["macs"], Kind.COUNT, bound="at least" if unknown else None),
            f" MACs, {facts['scheme']}; ranks up to break even make a layer cheaper",
        ),
        faint=frozenset(i for i, layer in enumerate(layers) if layer["reason_kept"] is not None),
    )
    reasons = [(layer["name"], layer["reason_kept"]) for layer in layers]
    return table, *not_counted(unknown), *kept_tables(reasons)


def _inputs(facts: Mapping[str, Any]) -> tuple[Value | str, ...]:
    """Return the shape of the only input, or of each by name."""
    if "input_shape" in facts:
        return (Value(tuple(facts["input_shape"]), Kind.SHAPE),)
    found: list[Value | str] = []
    for name, one in facts["inputs"].items():
        found += [f"{', ' if found else ''}{name} ", Value(tuple(one["shape"]), Kind.SHAPE)]
    return tuple(found)


def _row(layer: Mapping[str, Any]) -> dict[str, Any]:
    row = {"layer": layer["name"], "operator": layer["operator"], "full_rank": None}
    if layer["reason_kept"] is not None:
        return row
    best = layer["break_even_rank"]
    ranks = {
        name: Value(rank, tone=Tone.GOOD) if rank <= best else rank
        for name, rank in layer["ranks"].items()
    }
    facts = {"full_rank": layer["full_rank"], "break_even": best or None}
    return row | {"spectrum": layer["spectrum"]} | facts | ranks
