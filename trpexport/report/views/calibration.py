"""Calibrated networks: what each layer loses, and where the budget went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Range, Table, Text, Value


def calibration_view(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Show each rewritten layer's errors before and after calibration, and its shares.

    Args:
        report: the content of ``report.json``.
    """
    facts = report["calibration"]
    if facts is None or not report["layers_rewritten"]:
        return ()
    macs = {layer["name"]: layer["macs"]["after"] for layer in report["layers"]}
    total = report["macs"]["after"]
    columns = [
        Column("name", "calibrated layer", Kind.NAME),
        Column("scheme", "scheme", Kind.NAME, optional=True),
        Column("rank", "rank", Kind.WHOLE),
        Column("weight_error", "weight error", Kind.SHARE, optional=True),
        Column("error_before", "error by SVD", Kind.SHARE),
        Column("error_after", "error calibrated", Kind.SHARE),
        Column("macs_share", "share of MACs", Kind.SHARE),
    ]
    if any("error_share" in layer for layer in facts["layers"]):
        columns.append(Column("error_share", "share of error", Kind.SHARE))
    rows = tuple({**layer, "macs_share": macs[layer["name"]] / total} for layer in facts["layers"])
    refined = facts.get("refined")
    sentences = [_sentence(facts)] + ([] if refined is None else [_refined(refined)])
    return Table(tuple(columns), rows), *map(Text, sentences)


def _sentence(facts: Mapping[str, Any]) -> tuple[str | Value, ...]:
    held_out, worst = facts.get("held_out"), facts.get("worst_output")
    several = len(facts.get("output_errors", ())) > 1
    split = "" if facts["split"] is None else f" ({facts['split']})"
    parts: tuple[str | Value, ...] = (
        f"Calibrated on {facts['images']} images of {facts['data']}{split}; on these, "
        f"which it was fitted to, {f'{worst}, the worst output,' if several else 'the output'} "
        "moves by ",
        Value(facts["output_error"], Kind.SHARE),
        " of its variation",
    )
    if held_out is not None:
        other = held_out["worst_output"]
        parts += (
            f", on {held_out['images']} {held_out['split']} images "
            f"{f'({other}) ' if several and other != worst else ''}by ",
            Value(held_out["output_error"], Kind.SHARE),
        )
    judged = facts.get("judged")
    if judged is None:
        return parts
    kind, digits = (Kind.SHARE, 2) if judged["is_share"] else (Kind.NUMBER, 4)
    before, after = (Value(judged[when], kind, digits=digits) for when in ("before", "after"))
    where = f" on {judged['images']} {judged['split']} images"
    told = (*parts, f"; {judged['metric']} ", before, " -> ", after, where)
    if judged["interval"] is None:
        return told
    scale, unit = (100, " points") if judged["is_share"] else (1, "")
    loss, *ends = (scale * number for number in (judged["loss"], *judged["interval"]))
    lost, interval = (Value(one, Kind.NUMBER, digits=2) for one in (loss, Range(*ends)))
    return (*told, ": lost are ", lost, unit, " (95 % interval ", interval, ")")


def _refined(facts: Mapping[str, Any]) -> tuple[str | Value, ...]:
    before, after = facts["before"], facts["after"]
    others = f"{facts['held_out_images']} {facts['split']} images"
    spent = (
        f"{facts['images']} images, {facts['steps']} steps in {facts['seconds'] / 60:.1f} minutes"
    )
    if after["output_error"] >= before["output_error"]:
        return (
            f"Refined on {spent}, in vain: the calibrated factors were kept, with ",
            Value(before["output_error"], Kind.SHARE),
            f" on {others}",
        )
    several = len(after["output_errors"]) > 1
    which = f"{after['worst_output']}, the worst output," if several else "the output"
    return (
        f"Refined on {spent}: on {others} {which} moves by ",
        Value(after["output_error"], Kind.SHARE),
        " of its variation, before that by ",
        Value(before["output_error"], Kind.SHARE),
    )
