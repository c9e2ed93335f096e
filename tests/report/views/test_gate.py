"""Results of the gate as blocks."""

from __future__ import annotations

from typing import Any

from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.rules import Measurements
from trpexport.report.blocks import Kind, Range, Role, Table, Text, Tone, Value
from trpexport.report.views.gate import gate_view

PASSED = Checked("min-speedup", "speed-up", "at least", 1.5, "x", True, 1.62, 1.58, 1.66)
FAILED = Checked(
    "max-drop", "drop of top-1", "at most", 1.0, "points", False, None, reason="too [few] images"
)
FACTS: dict[str, Any] = {
    "baseline": {"path": "a.onnx", "top1": 0.913},
    "candidate": {"path": "b.onnx", "top1": 0.853},
}
DATA = {
    "data": {"name": "cifar10:DIR", "images": 517},
    "top1": {"lost": 47, "won": 16, "mcnemar_p": 0.00012},
}


def result(*rules: Checked, **facts: Any) -> GateResult:
    return GateResult(rules, False, Measurements(), FACTS | facts)


def test_a_rule_is_a_row() -> None:
    _, table, *_ = gate_view(result(PASSED, FAILED))
    assert isinstance(table, Table)
    assert table.rows == (
        {
            "rule": "min-speedup",
            "limit": ("at least ", Value(1.5, Kind.NUMBER, unit="x")),
            "value": Value(1.62, unit="x"),
            "interval": Value(Range(1.58, 1.66), unit="x"),
            "verdict": "pass",
        },
        {
            "rule": "max-drop",
            "limit": ("at most ", Value(1.0, Kind.NUMBER, unit="points")),
            "value": None,
            "interval": None,
            "verdict": Value("FAIL", tone=Tone.BAD),
        },
    )


def test_reasons_follow_and_the_outcome_is_last() -> None:
    *_, reason, outcome = gate_view(result(PASSED), regressions=[FAILED])
    assert isinstance(reason, Text)
    assert reason.content == (Value("max-drop", Kind.NAME, tone=Tone.BAD), ": too [few] images")
    assert outcome == Text("The gate failed: max-drop", Role.VERDICT, Tone.BAD)
    assert gate_view(result(PASSED))[-1] == Text("The gate passed: 1 rule", Role.VERDICT, Tone.GOOD)
    assert gate_view(result())[-1] == Text("The gate failed: no rule", Role.VERDICT, Tone.BAD)


def test_what_was_compared() -> None:
    first, second, *_ = gate_view(result(PASSED, **DATA))
    assert first == Text("b.onnx against a.onnx")
    assert isinstance(second, Text)
    assert second.content == (
        *("517 images of cifar10:DIR: top-1 ", Value(0.913, Kind.SHARE)),
        *(" -> ", Value(0.853, Kind.SHARE)),
        "; 47 lost, 16 won (exact McNemar p = ",
        *(Value(0.00012, Kind.NUMBER, digits=2), ")"),
    )
    assert isinstance(gate_view(result(PASSED))[1], Table)  # without images there is no such line
