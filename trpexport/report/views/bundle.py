"""What an export did: the cost before and after, and the two comparisons, kept apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Block, Bound, Column, Kind, Phrase, Table, Value
from trpexport.report.shapes import is_variant
from trpexport.report.views.uncounted import counts_text, uncounted

_NAMED = 3  # nodes that are named
_COLUMNS = (Column("what", "", Kind.NAME), Column("how", "", Kind.PROSE))


def bundle_view(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show what an export did to the whole network.

    Args:
        report: the content of ``report.json``.
    """
    rows: list[tuple[str, Phrase]] = [*_costs(report)]
    done = [step for step in report["steps"] if step["outputs"]]
    outputs = {step["name"]: step["outputs"] for step in done}
    if "rewrite" in outputs:
        worst = _worst(outputs["rewrite"])
        rows.append(("Equivalent", ("factors = the dense layers they stand for, ", *worst)))
    *_, last = (step["outputs"] for step in done if not is_variant(step))
    rows.append(("Equivalent", ("the ONNX file = the network it was made of, ", *_worst(last))))
    if "decompose" in outputs:
        rows.append(("Approximate", _error(outputs["decompose"])))
    rows += _checked({"the ONNX file": report})
    rows += variant_rows({step["name"]: step for step in done if is_variant(step)})
    rows += [("Note", note) for note in report["notes"]]
    return (Table(_COLUMNS, tuple({"what": what, "how": how} for what, how in rows)),)


def variant_rows(variants: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Phrase]]:
    """Return what each further precision costs: by its name, its ``outputs`` and ``facts``."""
    rows: list[tuple[str, Phrase]] = []
    for name, variant in variants.items():
        facts = variant.get("facts", {})
        drop = facts.get("drop")
        lost = () if drop is None else ("; it loses ", f"{drop:.3g} {facts['unit']}")
        rows.append((name, (*_error(variant["outputs"]), *lost)))
        if kept := [_label(one) for one in facts.get("float32", facts.get("excluded", ()))]:
            more = f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
            rows.append(("In float32", f"{name} keeps {', '.join(kept[:_NAMED])}{more}"))
    return rows


def conversion_view(facts: Mapping[str, Any], paths: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show the precisions that a file was written in.

    Args:
        facts: ``variants``, one entry each.
        paths: by precision, what names the file.
    """
    rows = variant_rows(facts["variants"])
    rows += _checked(facts["variants"])
    rows += [("Note", one["note"]) for one in facts["variants"].values() if one["note"] is not None]
    rows += [("Written", str(path)) for path in paths.values()]
    return (Table(_COLUMNS, tuple({"what": what, "how": how} for what, how in rows)),)


def _checked(files: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Phrase]]:
    """Return in which other version of ONNX Runtime files were run: by name, with ``target``."""
    return [
        ("Checked", (f"{name} in onnxruntime {target['checked']}, ", *_worst(target["outputs"])))
        for name, facts in files.items()
        if "checked" in (target := facts.get("target", {}))
    ]


def _label(one: Any) -> str:
    return f"{one['node']} ({one['reason']})" if isinstance(one, Mapping) else str(one)


def _costs(report: Mapping[str, Any]) -> list[tuple[str, Phrase]]:
    macs, parameters, unknown = report["macs"], report["parameters"], uncounted(report["macs"])
    saved: tuple[str | Value, ...] = ()
    if report["layers_rewritten"] and macs["ratio"]:
        ratio = Value(macs["ratio"], Kind.RATIO, bound="at most" if unknown else None)
        speed = "" if "latency" in report else "; speed was not measured"
        saved = (" (", ratio, f" fewer{speed})")
    size = Value(report["file_bytes"], Kind.BYTES)
    return [
        ("MACs", (*_change_of(macs, "at least" if unknown else None), *saved)),
        *((("Not counted", counts_text(unknown)),) if unknown else ()),
        ("Parameters", (*_change_of(parameters), ", file ", size)),
    ]


def _change_of(counts: Mapping[str, Any], bound: Bound = None) -> tuple[str | Value, ...]:
    """Return a count before and after; once, where that is the same."""
    before, after = (Value(counts[when], Kind.COUNT, bound=bound) for when in ("before", "after"))
    return (before,) if before == after else (before, " -> ", after)


def _worst(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str | Value, ...]:
    error = max(_bound(output["max_error"]) for output in outputs.values())
    count = min(output["inputs"] for output in outputs.values())
    return (
        "within ",
        Value(error, Kind.NUMBER, digits=1),
        f" of the output's RMS on {count} inputs",
    )


def _error(outputs: Mapping[str, Mapping[str, Any]]) -> tuple[str | Value, ...]:
    # Differences of whole numbers mean nothing beside those of what they were chosen by.
    numbers = {name: found for name, found in outputs.items() if found.get("agreement") is None}
    name, output = max(
        (numbers or outputs).items(), key=lambda item: _bound(item[1]["variation_error"])
    )
    error, agreement = output["variation_error"], output["top1_agreement"]
    parts: tuple[str | Value, ...] = (
        f"{name}, the worst output, moves by " if len(outputs) > 1 else "the output moves by ",
        "no bound" if error is None else Value(error, Kind.SHARE),
        " of its variation",
    )
    if agreement is not None:
        shown = Value(agreement, Kind.SHARE)
        parts += (", same top-1 on ", shown, f" of {output['inputs']} inputs")
    return (*parts, "; measure the accuracy on your data")


def _bound(error: float | None) -> float:
    """Return an error as a number: what is none in JSON has no bound."""
    return math.inf if error is None else error
