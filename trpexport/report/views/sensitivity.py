"""Which layer costs what, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Phrase, Range, Role, Table, Text, Value
from trpexport.report.page import Axis, Lane, Lanes

_MOST = 60  # layers that are drawn
_NONE = "none"


def sensitivity_view(facts: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show what each layer loses, the worst first, and why others were not cut.

    Args:
        facts: what :meth:`trpexport.choose.sensitivity.Sensitivity.to_json` gave.
    """
    cut = [layer for layer in facts["layers"] if layer["reason"] is None]
    others = [layer for layer in facts["layers"] if layer["reason"] is not None]
    precisions = _precisions(facts)
    columns = (
        Column("layer", "layer", Kind.NAME),
        Column("operator", "operator", Kind.NAME, optional=True),
        Column("macs", "MACs", Kind.COUNT, optional=True),
        *(
            Column(f"at {share}", f"at {share:.0%} of MACs", Kind.SHARE, absent=_NONE)
            for share in facts["ratios"]
        ),
        *(Column(name, f"in {name}", Kind.SHARE, absent="-") for name in precisions),
        *(() if facts["target"] is None else _BUDGET),
    )
    rows = tuple(_row(layer, facts) for layer in cut)
    table = Table(
        columns,
        rows,
        title=(
            f"{facts['architecture'] or 'network'}, {facts['scheme']}: output error, as a share of "
            f"the output's variation, if one layer alone is cut; {facts['images']} images of "
            f"{facts['data']}, the worst first",
        ),
    )
    is_missing = any(one["cut"] is None for layer in cut for one in layer["cuts"])
    none = Text(f"{_NONE}: no rank that may be chosen is so cheap", Role.NOTE)
    missing = (none,) if is_missing else ()
    return (table, *missing, *_uncut(others, precisions), *_budget(facts))


_BUDGET = (
    Column("chosen", "cut in the budget", Kind.NAME),
    Column("back", "won back if left whole", Kind.SHARE, absent="-"),
    Column("more", "for more MACs", Kind.COUNT, absent="-", optional=True),
)


def _row(layer: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    row = {"layer": layer["name"], "operator": layer["operator"], "macs": layer["macs"]}
    for one in layer["cuts"]:
        row[f"at {one['share']}"] = None if one["cut"] is None else one["cut"]["error"]
    row |= layer["precisions"] or {}
    if facts["target"] is None:
        return row
    chosen, back = layer["chosen"], layer["back"]
    if chosen is None or back is None:
        return row | {"chosen": "left whole", "back": None, "more": None}
    way = f"{chosen['scheme']} {chosen['rank']}"
    return row | {"chosen": way, "back": back["error"], "more": back["macs"]}


def _uncut(layers: list[Mapping[str, Any]], precisions: list[str]) -> tuple[Block, ...]:
    if not layers:
        return ()
    columns = (
        Column("layer", "not cut", Kind.NAME),
        Column("reason", "because (what a cut would lose is not known)", Kind.PROSE),
        *(Column(name, f"in {name}", Kind.SHARE, absent="-") for name in precisions),
    )
    rows = tuple(
        {"layer": one["name"], "reason": one["reason"], **(one["precisions"] or {})}
        for one in layers
    )
    return (Table(columns, rows, faint=frozenset(range(len(rows)))),)


def _budget(facts: Mapping[str, Any]) -> tuple[Text, ...]:
    if facts["target"] is None:
        return ()
    content = (
        "With ",
        Value(facts["target"], Kind.SHARE),
        " of the MACs the output moves by about ",
        Value(facts["error"], Kind.SHARE),
        ", if layers do not interact; refitting them together often wins some of it back.",
    )
    return (Text(content, Role.NOTE),)


def sensitivity_lanes(facts: Mapping[str, Any]) -> tuple[Lanes, ...]:
    """Return what each layer loses from the mildest ratio to the harshest, the worst on top.

    Args:
        facts: as for :func:`sensitivity_view`.
    """
    lanes = tuple(filter(None, map(_lane, facts["layers"])))
    if not lanes:
        return ()
    ratios = [f"{share:.0%}" for share in facts["ratios"]]
    some = f", the {_MOST} worst of {len(lanes)}" if len(lanes) > _MOST else ""
    span = f"from {ratios[0]} to {ratios[-1]}" if len(ratios) > 1 else f"at {ratios[0]}"
    return (
        Lanes(
            title=f"What each layer loses alone, {span} of its MACs{some}",
            axis=Axis("output moves by, of its variation", Kind.SHARE, from_zero=True),
            lanes=lanes[:_MOST],
        ),
    )


def _lane(layer: Mapping[str, Any]) -> Lane | None:
    known = [one for one in layer["cuts"] if one["cut"] is not None]
    if not known:
        return None
    errors = [one["cut"]["error"] for one in known]
    note: Phrase = ()
    for one in known:
        cut = one["cut"]
        told = f"at {one['share']:.0%} {cut['scheme']} {cut['rank']}: "
        note = (*note, f"{', ' if note else ''}{told}", Value(cut["error"], Kind.SHARE))
    return Lane(layer["name"], errors[len(errors) // 2], Range(min(errors), max(errors)), note=note)


def _precisions(facts: Mapping[str, Any]) -> list[str]:
    """Return the precisions that layers were written in, each once."""
    names = (name for layer in facts["layers"] for name in layer["precisions"] or {})
    return list(dict.fromkeys(names))
