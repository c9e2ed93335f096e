"""Records of benches: latency beside MACs, speed-ups with their intervals, and two compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import (
    Block,
    Column,
    Kind,
    Range,
    Role,
    Table,
    Text,
    Tone,
    Value,
    filled,
)
from trpexport.report.views.uncounted import at_least, counts_text
from trpexport.runtime.session_options import told

if TYPE_CHECKING:
    from trpexport.measure.records import Change, Record

_MODEL = Column("model", "model", Kind.NAME)
_LATENCY = (
    _MODEL,
    Column("macs", "MACs", Kind.COUNT, absent="unknown"),
    Column("median", "median", Kind.SECONDS),
    Column("mad", "MAD", Kind.SECONDS, optional=True),
    Column("p99", "p99", Kind.SECONDS, optional=True),
    Column("speedup", "speed-up", Kind.RATIO, digits=3, absent="baseline"),
    Column("interval", "95 % interval", Kind.RATIO, digits=3),
    Column("macs_ratio", "MACs saved", Kind.RATIO),
    Column("efficiency", "efficiency", Kind.SHARE, optional=True),
    Column("verdict", "verdict", Kind.PROSE),
)
_RESOURCES = (
    _MODEL,
    Column("throughput", "images/s", Kind.NUMBER),
    Column("p90", "p90", Kind.SECONDS, optional=True),
    Column("p95", "p95", Kind.SECONDS, optional=True),
    Column("min", "min", Kind.SECONDS, optional=True),
    Column("runs", "runs", Kind.WHOLE, optional=True),
    Column("first_run", "first run", Kind.SECONDS, optional=True),
    Column("opening", "opening", Kind.SECONDS, optional=True),
    Column("file", "file", Kind.BYTES),
    Column("memory", "peak memory", Kind.BYTES),
    Column("without_arena", "without arena", Kind.BYTES),
)
_TONES = {"faster": Tone.GOOD, "slower": Tone.BAD}


def verdict_of(text: str) -> Value:
    """Return what is said of a speed-up."""
    return Value(text, tone=_TONES.get(text, Tone.PLAIN))


def bench_view(record: Record) -> tuple[Block, ...]:
    """Show a record: what was measured where, then latency and the rest for each thread count."""
    blocks: list[Block] = [Text(_heading(record))]
    for result in record["results"]:
        threads, models = result["threads"], result["models"]
        title = f"{threads} thread{'s' if threads > 1 else ''}"
        blocks.append(Table(_LATENCY, tuple(map(_latency, models)), title=title))
        rows = tuple(map(_resources, models))
        blocks.append(Table(filled(_RESOURCES, rows), rows))
        blocks += [Text(note, Role.NOTE) for note in _notes(models)]
    return tuple(blocks)


def _heading(record: Record) -> tuple[str | Value, ...]:
    machine, settings, load = (
        record["machine"],
        record["settings"],
        record["machine"]["load_average"],
    )
    host = f"{record['host']}: " if record.get("host") else ""
    return (
        f"{host}{machine['cpu'] or machine['architecture']}, {_cores(machine)}",
        *(() if load is None else (", load ", Value(load[0], Kind.NUMBER))),
        f"; provider {settings['provider']}, onnxruntime {machine['versions']['onnxruntime']}",
    )


def _cores(machine: Mapping[str, Any]) -> str:
    count = machine["cores"]["usable"]
    return f"{count} core{'' if count == 1 else 's'}"


def _latency(model: Mapping[str, Any]) -> dict[str, Any]:
    ratio, macs = model["ratio"], model["macs"]
    row = {
        "model": model["label"],
        "macs": None if macs is None else at_least(macs, model.get("uncounted", {})),
        **{name: model["seconds"][name] for name in ("median", "mad", "p99")},
        "speedup": None,
        "macs_ratio": model["macs_ratio"],
        "efficiency": model["efficiency"],
    }
    if ratio is None:
        return row
    interval = Range(ratio["low"], ratio["high"])
    return row | {
        "speedup": ratio["mid"],
        "interval": interval,
        "verdict": verdict_of(ratio["verdict"]),
    }


def _resources(model: Mapping[str, Any]) -> dict[str, Any]:
    memory, seconds = model["memory"] or {}, model["seconds"]
    return {
        "model": model["label"],
        "throughput": model["throughput_per_second"],
        **{name: seconds[name] for name in ("min", "p90", "p95")},
        "first_run": model["first_run_seconds"],
        "opening": model["session_seconds"],
        "file": model["file_bytes"],
        "memory": memory.get("with_arena_bytes"),
        "without_arena": memory.get("without_arena_bytes"),
        "runs": model["runs"],
    }


def _notes(models: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for model in models:
        label = model["label"]
        if not model["warmup_is_steady"]:
            notes.append(f"{label} did not become steady while warming up: the machine is busy")
        if session := model.get("session"):
            notes.append(as_recommended(label, session))
        if failure := model.get("memory_failure"):
            notes.append(f"no peak memory of {label}: {failure}")
        if uncounted := model.get("uncounted"):
            notes.append(f"the MACs of {label} leave out {counts_text(uncounted)}, not known")
        if reason := model.get("reason"):
            notes.append(f"{label} is slower: {reason}")
        placed = model["placement"] or {}
        if len(placed) > 1:
            shares = ", ".join(f"{count} on {name}" for name, count in placed.items())
            notes.append(f"nodes of {label}: {shares}")
    if len(models) == 1:
        notes.append("nothing to compare with: name a baseline before it, as in bench BASE OTHER")
    return notes


def as_recommended(label: str, session: Mapping[str, Any]) -> str:
    """Say which options a network ran with that its bundle recommends."""
    return f"{label} ran as its bundle recommends: {told(session)}"


def changes_view(changes: Sequence[Change]) -> tuple[Block, ...]:
    """Show how times differ between two records."""
    columns = (
        _MODEL,
        Column("threads", "threads", Kind.WHOLE),
        Column("old", "old", Kind.SECONDS),
        Column("new", "new", Kind.SECONDS),
        Column("speedup", "speed-up", Kind.RATIO, optional=True),
        Column("verdict", "verdict", Kind.PROSE),
    )
    rows = tuple(
        {
            "model": change.label,
            "threads": change.threads,
            "old": change.old_seconds,
            "new": change.new_seconds,
            "speedup": change.ratio,
            "verdict": (
                verdict_of(change.verdict),
                "" if change.is_same_file else ", another file",
            ),
        }
        for change in changes
    )
    return (Table(columns, rows),)
