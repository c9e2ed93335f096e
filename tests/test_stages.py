"""How far a long job is, and how long the rest will take."""

from __future__ import annotations

from trpexport.stages import Countdown


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
