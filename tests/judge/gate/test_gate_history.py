"""Results remembered, and regressions against the last accepted one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trpexport.errors import OutputError, TrpexportError
from trpexport.judge.classify import Evaluations
from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.history import append_entry, compare, history_entry, last_accepted
from trpexport.judge.gate.rules import RULES, Measurements
from trpexport.judge.predictions import Evaluation

LABELS = np.arange(500) % 10


def evaluation(
    wrong: int, labels: np.ndarray = LABELS, start: int = 0, pixels: str = "these"
) -> Evaluation:
    """Has ``wrong`` images wrong, from ``start`` on."""
    ranked = np.stack([(labels + k) % 10 for k in range(5)], axis=1)
    ranked[start : start + wrong] = (labels[start : start + wrong, None] + 5) % 10
    zeros = np.zeros(ranked.shape, np.float32)
    n = len(labels)
    return Evaluation(
        "net", "0", "npz:x", "test", tuple("abcdefghij"), np.arange(n), labels, ranked, zeros,
        np.zeros(n), "logits", 1.0, pixels,
    )  # fmt: skip


def result(
    wrong: int,
    *rules: Checked,
    labels: np.ndarray = LABELS,
    start: int = 0,
    pixels: str = "these",
) -> GateResult:
    pair = (evaluation(0, labels, 0, pixels), evaluation(wrong, labels, start, pixels))
    measured = Measurements(Evaluations(pair, (), ((), ())))
    facts = {"data": {"images": len(labels), "fingerprint": pair[0].fingerprint}}
    return GateResult(rules or (checked("max-drop", 1.0),), False, measured, facts)


def checked(
    name: str, value: float, low: float | None = None, high: float | None = None
) -> Checked:
    rule = RULES[name]
    return Checked(name, rule.title, rule.direction, 99.0, rule.unit, True, value, low, high)


def remember(path: Path, *results: GateResult) -> None:
    for found in results:
        append_entry(path, history_entry(found))


def test_the_last_accepted_result_counts(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    failed = replace(checked("max-drop", 9.0), passed=False)
    remember(path, result(5), result(7), result(300, failed))
    accepted = last_accepted(path)
    assert accepted.correct is not None
    assert int((~accepted.correct).sum()) == 7
    assert len(path.read_text().splitlines()) == 3


def test_accuracy_is_compared_image_by_image(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    remember(path, result(10))
    accepted = last_accepted(path)
    # 3 more of 500 wrong: the interval holds 0; 10 more, none won: it does not.
    for wrong, passed in ((10, True), (13, True), (20, False), (0, True)):
        row = compare(result(wrong), accepted)[0]
        assert (row.name, row.passed) == ("compare-to", passed)
        assert row.value == pytest.approx((wrong - 10) / 5)
    assert "worse than the last accepted" in compare(result(20), accepted)[0].reason


def test_other_images_are_compared_by_intervals(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    remember(path, result(10))
    for other in ({"labels": (LABELS + 1) % 10}, {"pixels": "others"}):
        assert compare(result(20, **other), last_accepted(path))[0].passed
        assert not compare(result(60, **other), last_accepted(path))[0].passed


@pytest.mark.parametrize(
    ("name", "old", "new", "passed"),
    [
        ("max-file-size", (1000,), (1009,), True),  # one in a hundred is let go
        ("max-file-size", (1000,), (1011,), False),
        ("min-macs-ratio", (2.0,), (1.97,), False),
        ("min-macs-ratio", (2.0,), (3.0,), True),
        ("max-output-error", (0.1, 0.09, 0.11), (0.13, 0.12, 0.14), False),
        ("max-output-error", (0.1, 0.09, 0.11), (0.12, 0.105, 0.13), True),
        ("min-agreement", (90.0, 88.0, 92.0), (80.0, 77.0, 83.0), False),
        ("min-agreement", (90.0, 88.0, 92.0), (95.0, 94.0, 96.0), True),
    ],
)
def test_what_gets_worse_in_its_direction(
    tmp_path: Path, name: str, old: tuple[float, ...], new: tuple[float, ...], passed: bool
) -> None:
    path = tmp_path / "history.jsonl"
    remember(path, result(0, checked(name, *old)))
    rows = {row.name: row for row in compare(result(0, checked(name, *new)), last_accepted(path))}
    assert rows[f"compare-to {name}"].passed is passed


def test_a_rule_that_is_left_out_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    remember(path, result(0, checked("max-drop", 0.5), checked("max-file-size", 10.0)))
    with pytest.raises(TrpexportError, match="measured with max-file-size, this one is not"):
        compare(result(0), last_accepted(path))
    without = GateResult(
        (checked("max-drop", 0.5), checked("max-file-size", 1)), False, Measurements()
    )
    with pytest.raises(TrpexportError, match="measured with a data set"):
        compare(without, last_accepted(path))


def test_times_are_compared_on_the_same_machine_only(tmp_path: Path) -> None:
    machine = {
        "architecture": "x", "cpu": "a", "memory_bytes": None,
        "cores": {"physical": 1, "logical": 2}, "os": {"system": "Linux"},
    }  # fmt: skip
    slow = GateResult(
        (checked("max-latency", 9, 8, 10),), False, Measurements(), {"machine": machine}
    )
    fast = GateResult(
        (checked("max-latency", 2, 1, 3),), False, Measurements(), {"machine": machine}
    )
    path = tmp_path / "history.jsonl"
    remember(path, fast)
    assert [row.passed for row in compare(slow, last_accepted(path))] == [False]
    elsewhere = replace(slow, facts={"machine": machine | {"cpu": "b"}})
    assert compare(elsewhere, last_accepted(path)) == ()


@pytest.mark.parametrize(
    "line",
    [
        "{", "[]", "3", '{"kind": "bench"}', '{"kind": "gate", "accepted": 1}',
        '{"kind": "gate", "accepted": true, "schema_version": 1}',
        '{"kind": "gate", "accepted": true, "schema_version": 1, "rules": [{}]}',
        '{"kind": "gate", "accepted": true, "schema_version": 1, "rules": [], "correct": "*"}',
        *(
            '{"kind": "gate", "accepted": true, "schema_version": 1, "rules": '
            f'[{{"name": "max-drop", "value": {value}, "low": null, "high": null}}]}}'
            for value in ('"1"', "NaN", "1e999", "1" + "0" * 400)
        ),
        '{"kind": "gate", "accepted": true, "schema_version": 1, "rules": '
        '[{"name": ["a"], "value": 1, "low": null, "high": null}]}',
        "[" * 100_000,
        '{"kind": "gate", "accepted": true, "schema_version": 1, "rules": [], "correct": "AA==", '
        '"data": {"images": 9, "fingerprint": ""}}',
    ],
)  # fmt: skip
def test_damaged_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    remember(path, result(0))
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(TrpexportError, match=r"line 2 of .* is damaged"):
        last_accepted(path)
    remember(path, result(0))  # begins on a line of its own
    assert json.loads(path.read_text().splitlines()[2])["accepted"]


def test_half_a_line_that_a_kill_left_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "history"
    remember(path, result(3))
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    assert last_accepted(path).correct is not None
    remember(path, result(4))
    assert len(path.read_text().splitlines()) == 2
    assert last_accepted(path).entry["correct"] != json.loads(whole)["correct"]


def test_nothing_accepted_is_never_a_pass(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with pytest.raises(TrpexportError, match="does not exist"):
        last_accepted(path)
    path.write_text("")
    with pytest.raises(TrpexportError, match="no accepted result"):
        last_accepted(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(TrpexportError, match="not text"):
        last_accepted(path)
    with pytest.raises(TrpexportError, match="can't read"):
        last_accepted(tmp_path)
    with pytest.raises(OutputError, match="can't write"):
        append_entry(tmp_path / "no" / "where.jsonl", {})
    later = '{"kind": "gate", "accepted": true, "schema_version": 2}'
    path.write_text(later)
    with pytest.raises(TrpexportError, match="schema version 2"):
        last_accepted(path)
