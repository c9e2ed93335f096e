"""What people and other programs are shown."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from rich.console import Console

from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.rules import Measurements
from trpexport.report.gates import gate_table, github_annotations, junit_xml, markdown_summary

PASSED = Checked("min-speedup", "speed-up", "at least", 1.5, "x", True, 1.62, 1.58, 1.66)
FAILED = Checked(
    "max-drop", "drop of top-1 accuracy", "at most", 1.0, "points", False, 6.0, 3.09, 9.13,
    "over the limit: 100 % of\nit, a|b <x> \x00[red]",
)  # fmt: skip
FACTS = {
    "baseline": {"path": "a.onnx", "top1": 0.913},
    "candidate": {"path": "b.onnx", "top1": 0.853},
    "data": {"name": "cifar10:DIR", "images": 517},
    "top1": {"lost": 47, "won": 16, "mcnemar_p": 0.00012},
}
RESULT = GateResult((PASSED, FAILED), False, Measurements(), FACTS)


def test_the_table() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    for part in gate_table(RESULT):
        console.print(part)
    text = console.export_text()
    for expected in (
        "b.onnx against a.onnx",
        "517 images of cifar10:DIR: top-1 91.3 % -> 85.3 %; 47 lost, 16 won",
        "min-speedup  at least 1.5x     1.62x       1.58 to 1.66x  pass",
        "max-drop     at most 1 point  6 points  3.09 to 9.13 points  FAIL over the limit",
        "[red]",
        "The gate failed: max-drop",
    ):
        assert " ".join(expected.split()) in " ".join(text.split())


def test_junit() -> None:
    root = ElementTree.fromstring(junit_xml(RESULT))
    suite = root.find("testsuite")
    assert root.tag == "testsuites" and suite is not None
    for element in (root, suite):
        counts = {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "2", "failures": "1", "errors": "0", "skipped": "0"}
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["min-speedup", "max-drop"]
    assert all(case.get("classname") == "trpexport.gate" for case in cases)
    failures = suite.findall("testcase/failure")
    assert len(failures) == 1
    assert "a|b <x> ?" in (failures[0].get("message") or "")
    assert failures[0].text == (
        "drop of top-1 accuracy: 6 points (3.09 to 9.13 points), limit at most 1 point"
    )


def test_github() -> None:
    assert [line.replace("\x00", "") for line in github_annotations(RESULT.rules)] == [
        "::error title=trpexport gate%3A max-drop::over the limit: 100 %25 of%0Ait, a|b <x> [red]"
    ]
    summary = markdown_summary(RESULT).splitlines()
    assert summary[0] == "### ❌ The gate failed: max-drop"
    rows = [line for line in summary if line.startswith("| m")]
    assert rows[0] == "| min-speedup | at least 1.5x | 1.62x | 1.58 to 1.66x | pass |"
    assert rows[1].replace("\\|", "").count("|") == 6
    alone = GateResult((PASSED,), False, Measurements(), FACTS)
    assert markdown_summary(alone).startswith("### ✅ The gate passed: 1 rule\n")
    assert github_annotations(alone.rules) == []
