"""Results of the gate and of evaluations: tables for people, JUnit, GitHub's own formats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rich.markup import escape

from trpexport.judge.gate.check import Checked, GateResult, with_unit
from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import percent

if TYPE_CHECKING:
    from trpexport.judge.paired import PairedDrop
    from trpexport.judge.predictions import Evaluation

# What XML 1.0 can't hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def gate_table(result: GateResult, regressions: Sequence[Checked] = ()) -> Parts:
    """Show each rule with its limit, value, 95 % interval and verdict, then the outcome."""
    table = plain_table()
    table.add_column("rule", no_wrap=True)
    for name in ("limit", "value", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    rows = (*result.rules, *regressions)
    for row in rows:
        verdict = "pass" if row.passed else f"[bold red]FAIL[/bold red] {escape(row.reason)}"
        table.add_row(*map(escape, _cells(row)), verdict)
    return (*map(escape, _lines(result)), table, outcome(rows))


def outcome(rows: Sequence[Checked]) -> str:
    """Say in one line how the gate ended."""
    failed = [row.name for row in rows if not row.passed]
    if not rows or failed:
        return f"The gate failed: {', '.join(failed) or 'no rule'}"
    return f"The gate passed: {len(rows)} rule{'s' if len(rows) > 1 else ''}"


def _lines(result: GateResult) -> list[str]:
    """Return what was compared, and on how many images."""
    baseline, candidate = result.facts["baseline"], result.facts["candidate"]
    lines = [f"{candidate['path']} against {baseline['path']}"]
    if data := result.facts.get("data"):
        top1 = result.facts["top1"]
        lines.append(
            f"{data['images']} images of {data['name']}: top-1 {percent(baseline['top1'])} -> "
            f"{percent(candidate['top1'])}; {top1['lost']} lost, {top1['won']} won "
            f"(exact McNemar p = {top1['mcnemar_p']:.2g})"
        )
    return lines


def _cells(row: Checked) -> tuple[str, str, str, str]:
    """Return rule, limit, value and interval as text."""
    interval = ""
    if row.low is not None and row.high is not None:
        interval = f"{with_unit(row.low, '')} to {with_unit(row.high, row.unit)}"
    value = "" if row.value is None else with_unit(row.value, row.unit)
    return row.name, f"{row.direction} {with_unit(row.limit, row.unit)}", value, interval


def markdown_summary(result: GateResult, regressions: Sequence[Checked] = ()) -> str:
    """Return the result as Markdown, as for a GitHub job summary."""
    rows = (*result.rules, *regressions)
    passed = all(row.passed for row in rows)
    lines = [f"### {'✅' if passed else '❌'} {outcome(rows)}", "", *_lines(result), ""]
    lines += [
        "| rule | limit | value | 95 % interval | verdict |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        verdict = "pass" if row.passed else f"**FAIL** {row.reason}"
        lines.append("| " + " | ".join(map(_markdown, (*_cells(row), verdict))) + " |")
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def github_annotations(rows: Sequence[Checked]) -> list[str]:
    """Return a workflow command for each rule that failed."""
    return [
        f"::error title={_property(f'trpexport gate: {row.name}')}::{_data(row.reason)}"
        for row in rows
        if not row.passed
    ]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit_xml(result: GateResult, regressions: Sequence[Checked] = ()) -> bytes:
    """Return the result as JUnit XML, a test case a rule."""
    rows = (*result.rules, *regressions)
    counts = {
        "tests": str(len(rows)),
        "failures": str(sum(not row.passed for row in rows)),
        "errors": "0",
        "skipped": "0",
        "time": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "trpexport", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "trpexport gate", **counts})
    for row in rows:
        _, limit, value, interval = _cells(row)
        attributes = {"classname": "trpexport.gate", "name": row.name, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        text = _xml(f"{row.title}: {value or 'no value'} ({interval or 'exact'}), limit {limit}")
        if not row.passed:
            failure = {"message": _xml(row.reason), "type": "limit"}
            ElementTree.SubElement(case, "failure", failure).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)


def evaluation_table(evaluation: Evaluation, *, confusion: bool = False) -> Parts:
    """Show how a classifier did."""
    from trpexport.judge.paired import Share

    table = plain_table()
    table.add_column("")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    n = len(evaluation)
    for name, correct in (("top-1", evaluation.correct), ("top-5", evaluation.correct_top5)):
        low, high = Share(n, int(correct.sum())).interval()
        interval = f"95 % interval {percent(low)} to {percent(high)}"
        table.add_row(name, percent(float(correct.mean())), interval)
    loss = evaluation.loss
    how = "cross-entropy of logits" if evaluation.outputs_are == "logits" else "of probabilities"
    table.add_row("loss", "-" if loss is None else f"{loss:.4f}", how)
    speed = f"{evaluation.images_per_second:.4g}"
    table.add_row("images/s", speed, "in the network; not a benchmark")
    heading = f"{evaluation.label} on {n} {evaluation.split} images of {evaluation.data}"
    parts: list[Any] = [escape(heading), table]
    if evaluation.broken:
        parts.append(f"{evaluation.broken} outputs hold NaN or infinity and count as wrong")
    return (*parts, _confusion_table(evaluation)) if confusion else tuple(parts)


def _confusion_table(evaluation: Evaluation) -> Any:
    """Show which class (row) was taken for which (column)."""
    table = plain_table()
    table.add_column("true \\ taken for", no_wrap=True)
    for name in evaluation.classes:
        table.add_column(escape(name), justify="right")
    for name, row in zip(evaluation.classes, evaluation.confusion, strict=True):
        table.add_row(escape(name), *(str(count) if count else "." for count in row))
    return table


def drop_sentence(facts: Mapping[str, Any], drop: PairedDrop, p: float) -> str:
    """Say how an evaluation differs from an earlier one on the same images."""
    low, high = (100 * end for end in drop.interval())
    return escape(
        f"against {facts['model']}: drop {100 * drop.estimate:.2f} points "
        f"(95 % interval {low:.2f} to {high:.2f}; {drop.lost:g} lost, {drop.won:g} won, "
        f"exact McNemar p = {p:.2g})"
    )
