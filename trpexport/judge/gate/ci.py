"""Results of the gate as CI services read them: JUnit XML, GitHub's workflow commands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from trpexport.judge.gate.check import Checked, GateResult
from trpexport.text import number, with_unit

# What XML 1.0 can't hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        attributes = {"classname": "trpexport.gate", "name": row.name, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        text = _xml(f"{row.title}: {_found(row)}")
        if not row.passed:
            failure = {"message": _xml(row.reason), "type": "limit"}
            ElementTree.SubElement(case, "failure", failure).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)


def _found(row: Checked) -> str:
    """Return what was found, with its interval, and the limit."""
    value = "no value" if row.value is None else with_unit(row.value, row.unit)
    interval = "exact"
    if row.low is not None and row.high is not None:
        interval = f"{number(row.low)} to {with_unit(row.high, row.unit)}"
    return f"{value} ({interval}), limit {row.direction} {with_unit(row.limit, row.unit)}"
