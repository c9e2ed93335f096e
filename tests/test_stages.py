"""Stages of a job: what is said, how often, and how long the rest will take."""

from __future__ import annotations

import pytest

from trpexport.stages import Countdown, Stages, steps_in


@pytest.mark.parametrize(
    ("interval", "said"), [(30.0, [30, 60, 90]), (10.0, list(range(10, 100, 10)))]
)
def test_how_far_a_stage_has_come_is_said_now_and_then(
    interval: float, said: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines: list[str] = []
    stages = Stages(lines.append, interval=interval)
    for second in range(100):
        now = float(second)
        stages.progress(str(second))
    assert lines == [str(second) for second in said]


def test_a_line_of_its_own_puts_progress_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines: list[str] = []
    stages = Stages(lines.append)
    now = 29.0
    stages.say("a stage")
    now = 31.0
    stages.progress("half")
    assert lines == ["a stage"]


def test_what_remains_is_as_long_as_what_is_done() -> None:
    now = 0.0
    countdown = Countdown(4, clock=lambda: now)
    now = 60.0
    assert countdown.step() == "1 of 4, 3 min left"
    now = 90.0
    assert countdown.step() == "2 of 4, 90 s left"
    now = 91.0
    assert countdown.step() == "3 of 4, 30 s left"
    assert countdown.step() == "4 of 4"


def test_what_was_done_before_takes_no_time() -> None:
    now = 0.0
    countdown = Countdown(10, clock=lambda: now, done=6)
    now = 20.0
    assert countdown.step() == "7 of 10, 60 s left"
    assert countdown.step(3) == "10 of 10"


@pytest.mark.parametrize(
    ("line", "steps"),
    [
        ("3 of 18, 40 s left: layer1.0.conv1, ranks tried: 12", (3, 18)),
        ("pass 2, 18 of 18: layer3", (18, 18)),
        ("evaluate: 64 of 10000, 3 min left", (64, 10000)),
        ("compute spectra", None),
        ("0.500 of the MACs: output error 0.1, accepted", None),
    ],
)
def test_steps_are_read_from_what_is_said(line: str, steps: tuple[int, int] | None) -> None:
    assert steps_in(line) == steps


def test_a_remark_stays_where_progress_passes() -> None:
    passing: list[str] = []
    staying: list[str] = []
    Stages(passing.append, remark=staying.append).remark("it hardly pays")
    Stages(passing.append).remark("in a log")
    assert (passing, staying) == (["in a log"], ["it hardly pays"])
