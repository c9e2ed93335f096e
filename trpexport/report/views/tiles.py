"""The figures of an export that a reader should see first: saved, measured, lost, proved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trpexport import bundle as files
from trpexport.report.blocks import Kind, Phrase, Range, Tone, Value
from trpexport.report.documents import Bundle
from trpexport.report.page import Tile
from trpexport.report.shapes import is_variant
from trpexport.report.views.plots import output_error
from trpexport.report.views.uncounted import counts_text, uncounted


def bundle_tiles(bundle: Bundle) -> tuple[Tile, ...]:
    """Return what an export saved, what was measured, what it lost, and what was proved of it."""
    report = bundle.report
    return (
        _macs(report),
        _fewer("Parameters", report["parameters"]),
        _file(bundle),
        _time(report),
        _loss(report),
        _proof(report),
    )


def _macs(report: Mapping[str, Any]) -> Tile:
    macs = report["macs"]
    unknown = uncounted(macs)
    if not unknown:
        return _fewer("MACs", macs)
    note = (
        "at least ",
        *_change(macs, Kind.COUNT),
        "; not counted: ",
        counts_text(unknown),
    )
    figure = () if macs["ratio"] is None else (Value(macs["ratio"], Kind.RATIO, bound="at most"),)
    return Tile("MACs", (*figure, " fewer") if figure else "unknown", note, Tone.BAD)


def _fewer(label: str, counts: Mapping[str, Any]) -> Tile:
    before, after = counts["before"], counts["after"]
    if before == after or not after:
        return Tile(label, (Value(after, Kind.COUNT),), "as before")
    figure = (Value(before / after, Kind.RATIO), " fewer")
    if after > before:
        figure = (Value(after / before, Kind.RATIO), " as many")
    tone = Tone.GOOD if after < before else Tone.BAD
    return Tile(label, figure, _change(counts, Kind.COUNT), tone)


def _change(counts: Mapping[str, Any], kind: Kind) -> tuple[str | Value, ...]:
    return (Value(counts["before"], kind), " -> ", Value(counts["after"], kind))


def _file(bundle: Bundle) -> Tile:
    size = bundle.report["file_bytes"]
    sizes = {name: facts.get("bytes") for name, facts in bundle.manifest["files"].items()}
    before = sizes.get(bundle.manifest.get("baseline") or "")
    note: Phrase = () if before is None else ("the original ", Value(before, Kind.BYTES))
    variants = bundle.manifest.get("variants", {}).items()
    others = [(name, sizes.get(one["file"])) for name, one in variants]
    for name, found in others:
        if found is not None:
            note = (*note, f"{', ' if note else ''}{name} ", Value(found, Kind.BYTES))
    return Tile("ONNX file", (Value(size, Kind.BYTES),), note)


def _time(report: Mapping[str, Any]) -> Tile:
    """Return the time of the file whose loss is told, and beside it those of others."""
    if "latency" not in report:
        return Tile("Time", "not measured", "fewer MACs are no speed-up yet", Tone.FAINT)
    facts = report["latency"]
    name = files.FLOAT32 if files.FLOAT32 in facts["files"] else next(iter(facts["files"]))
    speedup = facts["files"][name]["speedup"]
    tone = Tone.GOOD if speedup["low"] > 1 else Tone.BAD if speedup["high"] < 1 else Tone.PLAIN
    count = facts["threads"]
    note: Phrase = (
        "95 % interval ",
        Value(Range(speedup["low"], speedup["high"]), Kind.RATIO),
        f"; {facts['device']['CPU']}, {facts['provider']}, {count} thread{'s' * (count != 1)}",
    )
    for other, timed in facts["files"].items():
        if other != name:
            note = (*note, f"; {other} ", Value(timed["speedup"]["mid"], Kind.RATIO))
    return Tile("Time", (Value(speedup["mid"], Kind.RATIO), " as fast"), note, tone)


def _loss(report: Mapping[str, Any]) -> Tile:
    judged = (report["calibration"] or {}).get("judged")
    if judged is not None:
        kind = Kind.SHARE if judged["is_share"] else Kind.NUMBER
        before, after = (Value(judged[when], kind) for when in ("before", "after"))
        where = f"on {judged['images']} {judged['split']} images"
        return Tile(judged["metric"], (before, " -> ", after), where)
    error = output_error(report)
    if error is None:
        return Tile("Output", "moves without bound", "measure the accuracy", Tone.BAD)
    note = ("of its variation", *_further(report), "; measure the accuracy on your data")
    return Tile("Output moves by", (Value(error, Kind.SHARE),), note)


def _further(report: Mapping[str, Any]) -> tuple[str | Value, ...]:
    """Say by how much more other precisions move the output."""
    parts: tuple[str | Value, ...] = ()
    for step in report["steps"]:
        errors = [one["variation_error"] for one in step["outputs"].values()]
        if is_variant(step) and errors and None not in errors:
            parts += (f"; {step['name']} by ", Value(max(errors), Kind.SHARE), " more")
    return parts


def _proof(report: Mapping[str, Any]) -> Tile:
    """Return what was compared: a bundle is written only where that was the same network."""
    compared = [
        step["outputs"]
        for step in report["steps"]
        if step["outputs"] and step["name"] != "decompose" and not is_variant(step)
    ]
    errors = [one["max_error"] for outputs in compared for one in outputs.values()]
    error = max((math.inf if found is None else found for found in errors), default=math.inf)
    count = min(one["inputs"] for one in compared[-1].values())
    note = (
        "the file computes what its factors do, within ",
        Value(error, Kind.NUMBER, digits=1),
        f" of the output's RMS on {count} inputs",
    )
    return Tile("Equivalent", "yes", note, Tone.GOOD)
