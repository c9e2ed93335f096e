"""The cells of a sweep, as a table and as a plot of what is saved against what is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Range, Role, Table, Text, Tone, Value
from trpexport.report.page import Axis, Plot, Point, Series
from trpexport.report.views.uncounted import at_most

_BETTER = {"speedup": "is faster", "macs": "has fewer MACs", "bytes": "has a smaller file"}
_GAINS = {"speedup": "times as fast", "macs": "times fewer MACs", "bytes": "times smaller file"}


def sweep_view(facts: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show each cell, what failed, and which no other beats.

    Args:
        facts: content of ``sweep.json``.
    """
    cells = [cell for cell in facts["cells"] if cell["macs"] is not None]
    failed = [cell for cell in facts["cells"] if cell["failed"] is not None]
    return (
        *((_table(cells, facts),) if cells else ()),
        *((_failures(failed),) if failed else ()),
        _front(facts),
    )


def _table(cells: list[Mapping[str, Any]], facts: Mapping[str, Any]) -> Table:
    judged = next((cell["judged"] for cell in cells if cell["judged"] is not None), None)
    is_timed = any(cell["time"] is not None for cell in cells)
    accuracy = (
        ()
        if judged is None
        else (
            Column("value", judged["metric"], _kind(judged), absent="-"),
            Column("loss", "lost", _kind(judged), absent="-"),
            Column("interval", "95 %", _kind(judged), optional=True, absent="-"),
        )
    )
    times = (
        Column("seconds", "time, ms", Kind.SECONDS, absent="-", optional=True),
        Column("speedup", "faster", Kind.RATIO, absent="-"),
        Column("speedup_interval", "95 %", Kind.RATIO, absent="-", optional=True),
    )
    columns = (
        Column("cell", "cell", Kind.NAME),
        Column("macs", "fewer MACs", Kind.RATIO),
        Column("parameters", "fewer parameters", Kind.RATIO, optional=True),
        Column("bytes", "file", Kind.BYTES),
        Column("error", "output moves by", Kind.SHARE, absent="no bound"),
        *accuracy,
        *(times if is_timed else ()),
        Column("front", "front", Kind.NAME),
    )
    return Table(columns, tuple(_row(cell, facts) for cell in cells), title=_title(facts, judged))


def _title(facts: Mapping[str, Any], judged: Mapping[str, Any] | None) -> Any:
    title: tuple[str | Value, ...] = (f"{facts['network']}: {len(facts['cells'])} cells",)
    if judged is None:
        return title
    images, kind = judged["images"], _kind(judged)
    return (
        *title,
        f"; {judged['metric']} on {images} images of {judged['data']} ({judged['split']}), the "
        "original has ",
        Value(judged["before"], kind),
    )


def _row(cell: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "cell": cell["label"],
        "macs": at_most(_ratio(cell["macs"]), dict.fromkeys(cell["uncounted"], 1)),
        "parameters": _ratio(cell["parameters"]),
        "bytes": cell["bytes"]["after"],
        "error": cell["error"]["value"],
        "front": "yes" if cell["label"] in facts["front"] else "",
    }
    judged, time = cell["judged"], cell["time"]
    if judged is not None:
        row |= {"value": judged["after"], "loss": judged["loss"]}
        if judged["low"] is not None:
            row["interval"] = Range(judged["low"], judged["high"])
    if time is not None:
        speedup = time["speedup"]
        row |= {"seconds": time["seconds"], "speedup": speedup["mid"]}
        row["speedup_interval"] = Range(speedup["low"], speedup["high"])
    return row


def _failures(failed: list[Mapping[str, Any]]) -> Table:
    columns = (Column("cell", "failed", Kind.NAME), Column("line", "because", Kind.PROSE))
    rows = tuple(
        {"cell": cell["label"], "line": Value(cell["failed"], Kind.PROSE, tone=Tone.BAD)}
        for cell in failed
    )
    return Table(columns, rows)


def _front(facts: Mapping[str, Any]) -> Text:
    if not facts["front"]:
        return Text("No cell stands.", Role.VERDICT, Tone.BAD)
    loss = facts["loss"]
    less = "moves the output less" if loss == "error" else f"loses less {loss}"
    return Text(
        f"The front: {', '.join(facts['front'])}. No other cell both {_BETTER[facts['gain']]} and "
        f"{less} than one of them.",
        Role.VERDICT,
    )


def _loss_title(facts: Mapping[str, Any]) -> str:
    loss = facts["loss"]
    return "output moves by, of its variation" if loss == "error" else f"{loss} lost"


def sweep_plot(facts: Mapping[str, Any]) -> tuple[Plot, ...]:
    """Return what each cell saves against what it loses, a series a scheme; none for fewer than 2.

    Args:
        facts: as for :func:`sweep_view`.
    """
    points = {
        cell["label"]: (cell, point)
        for cell in facts["cells"]
        if (point := _point(cell, facts)) is not None
    }
    if len(points) < 2:
        return ()
    groups: dict[str, list[Point]] = {}
    for cell, point in points.values():
        groups.setdefault(f"{cell['scheme']} {cell['precision']}", []).append(point)
    front = tuple(points[label][1] for label in facts["front"] if label in points)
    judged = next((cell["judged"] for cell, _ in points.values() if cell["judged"]), None)
    kind = Kind.SHARE if facts["loss"] == "error" or judged is None else _kind(judged)
    return (
        Plot(
            title="What is saved, and what is lost",
            x=Axis(_GAINS[facts["gain"]], Kind.RATIO),
            y=Axis(_loss_title(facts), kind, from_zero=True),
            series=(
                Series("the front", front),
                *(Series(name, tuple(some), mark="dots") for name, some in groups.items()),
            ),
            note="right and down is better; none beats those on the line in both",
        ),
    )


def _point(cell: Mapping[str, Any], facts: Mapping[str, Any]) -> Point | None:
    gain, loss, judged = facts["gain"], facts["loss"], cell["judged"]
    if cell["macs"] is None:
        return None
    y = cell["error"]["value"] if loss == "error" else judged and judged["loss"]
    if y is None:
        return None
    if gain != "speedup":
        return Point(_ratio(cell[gain]), y, cell["label"])
    if cell["time"] is None:
        return None
    speedup = cell["time"]["speedup"]
    return Point(speedup["mid"], y, cell["label"], Range(speedup["low"], speedup["high"]))


def _ratio(change: Mapping[str, float]) -> float:
    return change["before"] / max(1, change["after"])


def _kind(judged: Mapping[str, Any]) -> Kind:
    return Kind.SHARE if judged["is_share"] else Kind.NUMBER
