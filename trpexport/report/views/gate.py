"""Results of the gate: each rule with its limit and what was found, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import Block, Column, Kind, Range, Role, Table, Text, Tone, Value

if TYPE_CHECKING:
    from trpexport.judge.gate.check import Checked, GateResult

_COLUMNS = (
    Column("rule", "rule", Kind.NAME),
    Column("limit", "limit", Kind.NUMBER),
    Column("value", "value", Kind.NUMBER),
    Column("interval", "95 % interval", Kind.NUMBER, optional=True),
    Column("verdict", "verdict", Kind.NAME),
)


def gate_view(result: GateResult, regressions: Sequence[Checked] = ()) -> tuple[Block, ...]:
    """Show what was compared, each rule, why some failed, and as the last block the outcome."""
    checked = (*result.rules, *regressions)
    reasons = [
        Text((Value(rule.name, Kind.NAME, tone=Tone.BAD), f": {rule.reason}"))
        for rule in checked
        if not rule.passed
    ]
    return (
        *_compared(result),
        Table(_COLUMNS, tuple(map(_row, checked))),
        *reasons,
        _outcome(checked),
    )


def _row(checked: Checked) -> dict[str, Any]:
    interval = None
    if checked.low is not None and checked.high is not None:
        interval = Value(Range(checked.low, checked.high), unit=checked.unit)
    return {
        "rule": checked.name,
        "limit": (f"{checked.direction} ", Value(checked.limit, Kind.NUMBER, unit=checked.unit)),
        "value": None if checked.value is None else Value(checked.value, unit=checked.unit),
        "interval": interval,
        "verdict": "pass" if checked.passed else Value("FAIL", tone=Tone.BAD),
    }


def _outcome(checked: Sequence[Checked]) -> Text:
    """Say in one line how the gate ended."""
    failed = [rule.name for rule in checked if not rule.passed]
    if not checked or failed:
        names = ", ".join(failed) or "no rule"
        return Text(f"The gate failed: {names}", Role.VERDICT, Tone.BAD)
    count = len(checked)
    return Text(f"The gate passed: {count} rule{'s' if count > 1 else ''}", Role.VERDICT, Tone.GOOD)


def _output(name: str, found: Mapping[str, Any]) -> Text:
    """Say how near one output is."""
    error, agreement = found["error"], found["agreement"]
    said: list[Any] = [Value(name, Kind.NAME), ": "]
    if error is not None:
        said += ["error ", Value(error, Kind.NUMBER, digits=3), " of its RMS"]
    if agreement is not None:
        said += [", " if error is not None else "", "same class at ", Value(agreement, Kind.SHARE)]
    return Text(tuple(said))


def _compared(result: GateResult) -> list[Text]:
    """Say what was compared, and on how many images."""
    baseline, candidate = result.facts["baseline"], result.facts["candidate"]
    lines = [Text(f"{candidate['path']} against {baseline['path']}")]
    data = result.facts.get("data")
    if data and "metric" in result.facts:
        values = [
            Value(one["value"], Kind.NUMBER, digits=4) if one["value"] is not None else "-"
            for one in (baseline, candidate)
        ]
        metric = f"{data['images']} samples of {data['name']}: {result.facts['metric']} "
        lines.append(Text((metric, values[0], " -> ", values[1])))
    elif data and "top1" not in result.facts:
        lines += [
            Text(f"{data['images']} samples of {data['name']}, labels not needed"),
            *(_output(name, found) for name, found in result.facts["outputs"].items()),
        ]
    elif data:
        top1 = result.facts["top1"]
        lines.append(
            Text(
                (
                    f"{data['images']} images of {data['name']}: top-1 ",
                    Value(baseline["top1"], Kind.SHARE),
                    " -> ",
                    Value(candidate["top1"], Kind.SHARE),
                    f"; {top1['lost']} lost, {top1['won']} won (exact McNemar p = ",
                    Value(top1["mcnemar_p"], Kind.NUMBER, digits=2),
                    ")",
                )
            )
        )
    return lines
