"""Any number of jobs work on a machine at once, and what is timed is alone on it."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from trpexport.turns import alone, working


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_work_goes_on_beside_work() -> None:
    said: list[str] = []
    with working(said.append), working(said.append):
        assert not said


@pytest.mark.parametrize(("first", "second"), [(working, alone), (alone, working), (alone, alone)])
def test_nothing_goes_on_beside_what_is_timed(first: type, second: type) -> None:
    said, waits, ends = [], Event(), Event()

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    def wait() -> None:
        with second(say):
            ends.set()

    thread = Thread(target=wait)
    with first(say):
        thread.start()
        assert waits.wait(20)
        assert not ends.is_set()
    assert ends.wait(20)
    thread.join()
    assert said == ["waiting for what else is at work on this machine"]


def test_what_is_timed_waits_for_what_is_at_work_and_for_no_more() -> None:
    timer_waits, later_waits, order = Event(), Event(), list[str]()

    def time() -> None:
        with alone(lambda _: timer_waits.set()):
            order.append("timed")

    def work() -> None:
        with working(lambda _: later_waits.set()):
            order.append("later")

    threads = [Thread(target=time), Thread(target=work)]
    with working(order.append):
        threads[0].start()
        assert timer_waits.wait(20)
        threads[1].start()  # others are at work already, but one who would be alone waits
        assert later_waits.wait(20)
        assert order == []
    for thread in threads:
        thread.join(20)
    assert order == ["timed", "later"]
