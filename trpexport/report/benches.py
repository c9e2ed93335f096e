"""Records of benches as tables: latency beside MACs, and speed-ups with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import milliseconds, percent, quantity

if TYPE_CHECKING:
    from trpexport.device.emulate.emulation import Emulated
    from trpexport.measure.records import Change


def bench_tables(record: Mapping[str, Any]) -> Parts:
    """Show a record: what was measured where, then latency and the rest for each thread count."""
    parts: list[Any] = [escape(_heading(record))]
    for result in record["results"]:
        threads = result["threads"]
        parts.append(f"\n[bold]{threads} thread{'s' if threads > 1 else ''}[/bold]")
        parts.append(_latency_table(result["models"]))
        parts.append("")
        parts.append(_resources_table(result["models"]))
        parts += [f"note: {note}" for note in _notes(result["models"])]
    return tuple(parts)


def _heading(record: Mapping[str, Any]) -> str:
    machine, settings = record["machine"], record["settings"]
    load = machine["load_average"]
    text = f"{machine['cpu'] or machine['architecture']}, {machine['cores']['usable']} cores"
    if load is not None:
        text += f", load {load[0]:.1f}"
    text += f"; provider {settings['provider']}, onnxruntime {machine['versions']['onnxruntime']}"
    if host := record.get("host"):
        text = f"{host}: {text}"
    return text


def _latency_table(models: Sequence[Mapping[str, Any]]) -> Any:
    table = plain_table()
    table.add_column("model", no_wrap=True)
    for name in ("MACs", "median", "MAD", "p99", "speed-up (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("MACs\nsaved", justify="right", no_wrap=True)
    table.add_column("effi-\nciency", justify="right", no_wrap=True)
    table.add_column("verdict")
    for model in models:
        seconds, ratio = model["seconds"], model["ratio"]
        table.add_row(
            escape(model["label"]),
            _macs(model),
            *(milliseconds(seconds[name]) for name in ("median", "mad", "p99")),
            "baseline" if ratio is None else _interval(ratio),
            f"{model['macs_ratio']:.2f}x" if model["macs_ratio"] else "",
            percent(model["efficiency"]) if model["efficiency"] else "",
            "" if ratio is None else ratio["verdict"],
        )
    return table


def _resources_table(models: Sequence[Mapping[str, Any]]) -> Any:
    table = plain_table()
    table.add_column("model", no_wrap=True)
    for name in ("images/s", "min\nms", "p90\nms", "p95\nms", "first run\nms", "opening\nms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("file", "peak\nmemory", "without\narena", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in models:
        memory, seconds = model["memory"], model["seconds"]
        times = [seconds["min"], seconds["p90"], seconds["p95"]]
        times += [model["first_run_seconds"], model["session_seconds"]]
        table.add_row(
            escape(model["label"]),
            f"{model['throughput_per_second']:.1f}",
            *(milliseconds(value).removesuffix(" ms") for value in times),
            f"{quantity(model['file_bytes'])}B",
            f"{quantity(memory['with_arena_bytes'])}B" if memory else "",
            f"{quantity(memory['without_arena_bytes'])}B" if memory else "",
            str(model["runs"]),
        )
    return table


def _notes(models: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for model in models:
        label = escape(model["label"])
        if not model["warmup_is_steady"]:
            notes.append(f"{label} did not become steady while warming up: the machine is busy")
        if uncounted := model.get("uncounted"):
            notes.append(f"the MACs of {label} leave out {', '.join(uncounted)}, not known")
        placed = model["placement"] or {}
        if len(placed) > 1:
            shares = ", ".join(f"{count} on {name}" for name, count in placed.items())
            notes.append(f"nodes of {label}: {shares}")
    if len(models) == 1:
        notes.append("nothing to compare with: name a baseline before it, as in bench BASE OTHER")
    return notes


def _macs(model: Mapping[str, Any]) -> str:
    return "unknown" if model["macs"] is None else quantity(model["macs"])


def _interval(ratio: Mapping[str, Any]) -> str:
    return f"{ratio['mid']:.3f}x ({ratio['low']:.3f} to {ratio['high']:.3f})"


def changes_table(changes: Sequence[Change]) -> Parts:
    """Show how times differ between two records."""
    table = plain_table()
    table.add_column("model", no_wrap=True)
    for name in ("threads", "old", "new", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for change in changes:
        same = "" if change.is_same_file else ", another file"
        table.add_row(
            escape(change.label),
            str(change.threads),
            milliseconds(change.old_seconds),
            milliseconds(change.new_seconds),
            f"{change.ratio:.2f}x",
            f"{change.verdict}{same}",
        )
    return (table,)


def emulation_table(emulated: Emulated, labels: Sequence[str], macs: Sequence[int]) -> Parts:
    """Show what networks did under emulation: outputs and counts, never a latency."""
    versions = emulated.versions
    heading = (
        f"emulated {emulated.cpu}, onnxruntime {versions['onnxruntime']} for aarch64, "
        f"qemu {versions['qemu']}, 1 thread; instructions are exact, and no latency"
    )
    table = plain_table()
    table.add_column("model", no_wrap=True)
    names = (
        "MACs",
        "instructions",
        "NEON FMAs",
        "fewer\ninstructions",
        "largest\ndifference to x86",
    )
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    first = emulated.models[0].counts
    for label, count, model in zip(labels, macs, emulated.models, strict=True):
        counts = model.counts
        fewer = ""
        if first is not None and counts is not None and model is not emulated.models[0]:
            fewer = f"{first.instructions / counts.instructions:.2f}x"
        table.add_row(
            escape(label),
            quantity(count),
            quantity(counts.instructions) if counts else "",
            quantity(counts.neon_fmas) if counts else "",
            fewer,
            f"{max(c.max_error for c in model.comparison.values()):.1g}",
        )
    if emulated.counts_unavailable:
        return heading, table, f"instructions were not counted: {emulated.counts_unavailable}"
    return heading, table
