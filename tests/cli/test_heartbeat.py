"""Who reads a log is told that a long stage is still going on."""

from __future__ import annotations

import threading
from importlib import import_module

import pytest

heartbeat = import_module("trpexport.cli.heartbeat")
console = import_module("trpexport.cli.console")


def test_a_line_where_nothing_was_said_for_a_while() -> None:
    now, lines = 0.0, list[str]()
    beating = heartbeat.Heartbeat(lines.append, interval=30, clock=lambda: now)
    now = 100.0
    beating.beat()  # nothing is going on yet
    beating.heard("export to ONNX")
    for second in range(100, 175, 5):
        now = float(second)
        beating.beat()
    assert lines == ["export to ONNX, 30 s so far", "export to ONNX, 60 s so far"]
    beating.heard("simplify")
    beating.beat()
    assert len(lines) == 2


def test_it_beats_beside_the_work_and_ends_with_it() -> None:
    said = threading.Event()
    beating = heartbeat.Heartbeat(lambda line: said.set(), interval=0.01)
    before = threading.active_count()
    with beating.beating():
        beating.heard("verify")
        assert said.wait(10)
    assert threading.active_count() == before


def test_a_bar_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with console.bar(400, "evaluate") as advance:
        for second in range(0, 100, 10):
            now = float(second)
            advance(40)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        f"- evaluate: {done} of 400" for done in (160, 280, 400)
    ]
