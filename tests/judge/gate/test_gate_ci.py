"""What CI services are told."""

from __future__ import annotations

from xml.etree import ElementTree

from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.ci import github_annotations, junit_xml
from trpexport.judge.gate.rules import Measurements

PASSED = Checked("min-speedup", "speed-up", "at least", 1.5, "x", True, 1.62, 1.58, 1.66)
FAILED = Checked(
    "max-drop", "drop of top-1 accuracy", "at most", 1.0, "points", False, 6.0, 3.09, 9.13,
    "over the limit: 100 % of\nit, a|b <x> \x00[red]",
)  # fmt: skip
RESULT = GateResult((PASSED, FAILED), False, Measurements())


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
    assert github_annotations([PASSED]) == []
