"""How fast a tuned network is: what was measured on its files, and what was chosen by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Range, Table, Text, Tone, Value
from trpexport.runtime.session_options import told


def latency_view(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show the time of each file of a tuned bundle beside that of the original network.

    Args:
        report: the content of ``report.json``.
    """
    facts = report["latency"]
    ratio = report["macs"]["before"] / report["macs"]["after"]
    columns = (
        Column("name", "file", Kind.NAME),
        Column("seconds", "time in ms", Kind.SECONDS),
        Column("speedup", "faster", Kind.RATIO),
        Column("interval", "95 %", Kind.RATIO),
        Column("efficiency", "of the MAC ratio", Kind.RATIO),
    )
    rows: list[dict[str, Any]] = [{"name": "original", "seconds": facts["seconds"]}]
    originals = {f"original in {name}": timed for name, timed in facts["originals"].items()}
    for name, timed in {**originals, **facts["files"]}.items():
        speedup = timed["speedup"]
        rows.append(
            {
                "name": name,
                "seconds": timed["seconds"],
                "speedup": speedup["mid"],
                "interval": Range(speedup["low"], speedup["high"]),
                "efficiency": speedup["mid"] / ratio if name == "fp32" else None,
            }
        )
    mixed = facts.get("mixed")
    blocks = Table(columns, tuple(rows)), Text(_sentence(facts, ratio))
    is_refined = (report["calibration"] or {}).get("refined") is not None
    return blocks if mixed is None else (*_mixed(mixed, is_refined=is_refined), *blocks)


def _mixed(facts: Mapping[str, Any], *, is_refined: bool) -> tuple[Block, ...]:
    """Show the precision of each layer, and why."""
    columns = (
        Column("name", "layer", Kind.NAME),
        Column("precision", "precision", Kind.NAME),
        Column("written", "written as", Kind.NAME, absent="as it is"),
        Column("fp32", "fp32, ms", Kind.SECONDS),
        Column("int8", "int8, ms", Kind.SECONDS),
        Column("int8_error", "error in int8", Kind.SHARE),
        Column("reason", "because", Kind.PROSE),
    )
    rows = tuple({**layer, **layer["seconds"]} for layer in facts["layers"])
    alone = facts["int8_alone"]
    return Table(columns, rows), Text(
        (
            f"The network in both precisions{', unrefined,' if is_refined else ''} moves the worst "
            "output by ",
            Value(facts["error"], Kind.SHARE),
            " of its variation on held-out images; int8 alone, at full rank, by ",
            Value(alone["error"], Kind.SHARE),
            ", and is ",
            Value(alone["speedup"]["mid"], Kind.RATIO),
            " as fast as the original",
        )
    )


def _sentence(facts: Mapping[str, Any], ratio: float) -> tuple[str | Value, ...]:
    device = facts["device"]
    threads, batch = facts["threads"], facts["batch"]
    best = facts["best_speedup"]
    noisy = facts["deviation"] > _NOISY
    doubt = "; times varied too much to rank close ones" if noisy else ""
    return (
        f"Measured in turns on {device['CPU']} ({_vector_unit(device['instruction_sets'])}), "
        f"{facts['provider']}, {threads} thread{'s' if threads > 1 else ''}"
        f"{'' if batch is None else f', {batch} images at a time'}. The table predicted ",
        Value(facts["predicted_speedup"], Kind.RATIO),
        " of the graph, which took ",
        Value(facts["speedup"]["mid"], Kind.RATIO),
        "; with every layer in its fastest way it would be ",
        Value(best["mid"], Kind.RATIO),
        "; MACs are ",
        Value(ratio, Kind.RATIO),
        f" fewer{doubt}",
        *_beside(facts),
        *_advice(facts["session"]),
    )


def _beside(facts: Mapping[str, Any]) -> tuple[str | Value, ...]:
    """Say how fast the network is beside the original in the precision that ranks are fast in."""
    speedup = facts.get("beside")
    if speedup is None:
        return ()
    if "mixed" in facts:
        return (
            ". It is ",
            Value(speedup["mid"], Kind.RATIO),
            " (",
            Value(Range(speedup["low"], speedup["high"]), Kind.RATIO),
            ") as fast as int8 alone",
        )
    return (
        f". Ranks were chosen for {facts['precision']}, in which it is ",
        Value(speedup["mid"], Kind.RATIO),
        " (",
        Value(Range(speedup["low"], speedup["high"]), Kind.RATIO),
        f") as fast as the original in {facts['precision']}",
    )


def _advice(session: Mapping[str, Any] | None) -> tuple[str | Value, ...]:
    """Say which options of a session are recommended."""
    if session is None:
        return (". No option of the session gains 2 % or more",)
    speedup = session["speedup"]
    return (
        f". {session['file']} runs ",
        Value(speedup["mid"], Kind.RATIO, digits=3),
        " as fast (",
        Value(Range(speedup["low"], speedup["high"]), Kind.RATIO, digits=3),
        f") with {told(session['options'])}: bench uses these options by default",
    )


# Standard error of a layer's time, relative to it, from which on near ones can't be ranked.
_NOISY = 0.05
_UNITS = {"avx512_vnni": "AVX-512 with VNNI", "avx512f": "AVX-512", "avx2": "AVX2"}


def _vector_unit(found: list[str]) -> str:
    return next((text for name, text in _UNITS.items() if name in found), ", ".join(found) or "?")


def pareto_view(reports: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """Show what networks of several speed-ups save and lose.

    Args:
        reports: the contents of their ``report.json``.
    """
    columns = (
        Column("bundle", "bundle", Kind.NAME),
        Column("speedup", "faster", Kind.RATIO),
        Column("interval", "95 %", Kind.RATIO),
        Column("macs", "fewer MACs", Kind.RATIO),
        Column("error", "output error", Kind.SHARE),
        Column("held_out", "on other images", Kind.SHARE),
    )
    return (Table(columns, tuple(map(_point, reports))),)


def tuned_file(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the times of the file that was tuned: in the precision that ranks are fast in."""
    timed: Mapping[str, Any] = facts["files"][facts.get("precision", "fp32")]
    return timed


def _point(report: Mapping[str, Any]) -> dict[str, Any]:
    speedup = tuned_file(report["latency"])["speedup"]
    calibration = report["calibration"]
    refined = calibration.get("refined")
    held_out = calibration["held_out"] if refined is None else refined["after"]
    return {
        "bundle": report["bundle"],
        "speedup": speedup["mid"],
        "interval": Range(speedup["low"], speedup["high"]),
        "macs": report["macs"]["before"] / report["macs"]["after"],
        # That of refined factors is known on the images alone that decided on them.
        "error": calibration["output_error"] if refined is None else None,
        "held_out": None if held_out is None else held_out["output_error"],
    }


def table_view(conditions: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """Show the times that are kept from run to run, by machine and conditions.

    Args:
        conditions: as :meth:`trpexport.latency.store.Store.contents` returns them.
    """
    if not conditions:
        return (Text("No times are known yet: trpexport tune measures them.", tone=Tone.FAINT),)
    columns = (
        Column("layer", "layer", Kind.PROSE),
        Column("way", "written as", Kind.NAME),
        Column("original", "original, ms", Kind.SECONDS),
        Column("seconds", "time, ms", Kind.SECONDS),
        Column("ratio", "faster", Kind.RATIO),
    )
    blocks: list[Block] = []
    for one in conditions:
        device = one["device"]
        blocks.append(
            Text(
                f"{device['CPU']} ({_vector_unit(device['instruction_sets'])}), ONNX Runtime "
                f"{device['onnxruntime']}, {one['provider']}, {one.get('precision', 'fp32')}, "
                f"{one['threads']} threads, "
                f"batch {one['batch'] or 'as exported'}"
            )
        )
        rows = tuple(
            {
                "layer": time["layer"],
                "way": f"{time['scheme']} {time['rank']}",
                "original": time["original"],
                "seconds": time["seconds"],
                "ratio": time["original"] / time["seconds"] if time["seconds"] else None,
            }
            for time in one["times"]
        )
        blocks.append(Table(columns, rows))
    return tuple(blocks)
