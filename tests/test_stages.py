"""Stages of a job: what is said, and how often."""

from __future__ import annotations

import pytest

from trpexport import stages as module
from trpexport.stages import Stages


@pytest.mark.parametrize(
    ("interval", "said"), [(30.0, [30, 60, 90]), (10.0, list(range(10, 100, 10)))]
)
def test_how_far_a_stage_has_come_is_said_now_and_then(
    interval: float, said: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    lines: list[str] = []
    stages = Stages(lines.append, interval=interval)
    for second in range(100):
        now = float(second)
        stages.progress(str(second))
    assert lines == [str(second) for second in said]


def test_a_line_of_its_own_puts_progress_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    lines: list[str] = []
    stages = Stages(lines.append)
    now = 29.0
    stages.say("a stage")
    now = 31.0
    stages.progress("half")
    assert lines == ["a stage"]
