"""What low rank can win of a network at best, before any long work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trpexport.report.blocks import Block, Column, Kind, Role, Table, Text, Tone, Value
from trpexport.report.views.uncounted import not_counted
from trpexport.stages import duration

if TYPE_CHECKING:
    from trpexport.choose.outlook import Outlook


def outlook_view(found: Outlook) -> tuple[Block, ...]:
    """Show which kinds of layers the MACs are in, what can be saved of each, and in what time."""
    rows = tuple(
        {
            "kind": kind.kind,
            "share": kind.share,
            "touchable": found.touchable.get(kind.kind),
            "saved": kind.ratio if kind.kind in found.touchable else None,
        }
        for kind in found.kinds
    )
    unknown = found.plan.uncounted
    table = Table(
        columns=(
            Column("kind", "kind of layer", Kind.NAME),
            Column("share", "of the MACs", Kind.SHARE),
            Column("touchable", "may be rewritten", Kind.SHARE, absent="none"),
            Column("saved", "can be saved", Kind.RATIO),
        ),
        rows=rows,
        totals=(
            {
                "kind": "all",
                "share": Value(
                    found.plan.macs_before, Kind.COUNT, bound="at least" if unknown else None
                ),
                "touchable": sum(found.touchable.values()),
                "saved": found.ratio,
            },
        ),
        title=f"{found.plan.architecture or 'network'}, {found.energy:.0%} of each kernel kept",
        faint=frozenset(i for i, row in enumerate(rows) if row["touchable"] is None),
    )
    took = () if found.seconds is None else (Text(_time(found.seconds)),)
    sentence = str(found)
    tone = Tone.PLAIN if found.is_fair else Tone.BAD
    verdict = Text(f"{sentence[0].upper()}{sentence[1:]}", Role.VERDICT, tone)
    return (table, *not_counted(unknown), verdict, *took)


def _time(seconds: float) -> str:
    return f"Calibration takes about {duration(max(1.0, seconds))} on this machine"
