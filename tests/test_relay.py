"""One job at a time works, and those that wait for others let it."""

from __future__ import annotations

from functools import partial
from threading import Event

import pytest

from trpexport.relay import Relay

PATIENCE = 20.0


def test_one_job_at_a_time_is_at_work() -> None:
    relay, at_work, most = Relay(), list[int](), list[int]()

    def job(number: int) -> int:
        for _ in range(3):
            at_work.append(number)
            most.append(len(at_work))
            at_work.remove(number)
            with relay.waiting() as check:
                check()
        return number

    with relay.running([partial(job, number) for number in range(5)]) as attempts:
        assert [attempt() for attempt in attempts] == [0, 1, 2, 3, 4]
    assert most == [1] * 15


def test_who_waits_lets_the_others_go_on() -> None:
    relay, came = Relay(), Event()

    def first() -> bool:
        with relay.waiting():
            return came.wait(PATIENCE)

    with relay.running([first, came.set]) as attempts:
        assert attempts[0]()


def test_errors_are_those_of_whoever_asks() -> None:
    def fails() -> None:
        raise ValueError("no")

    with Relay().running([fails, lambda: None]) as attempts:
        attempts[1]()
        with pytest.raises(ValueError, match="no"):
            attempts[0]()


@pytest.mark.parametrize("where", ["waiting", "saying"])
def test_what_has_not_ended_is_stopped(where: str) -> None:
    relay, begun, ended = Relay(), Event(), list[BaseException]()

    def endless() -> None:
        begun.set()
        try:
            while True:
                if where == "saying":
                    relay.say(lambda line: None, "still at it")
                else:
                    with relay.waiting() as check:
                        check()
        except KeyboardInterrupt as interrupt:
            ended.append(interrupt)

    with relay.running([endless]):
        assert begun.wait(PATIENCE)
    assert len(ended) == 1


def test_what_has_not_begun_never_does() -> None:
    relay, is_at_work, begun = Relay(), Event(), list[int]()

    def endless(number: int) -> None:
        begun.append(number)
        is_at_work.set()
        while True:
            relay.say(lambda line: None, "still at it")

    with relay.running([partial(endless, number) for number in range(3)]):
        assert is_at_work.wait(PATIENCE)
    assert len(begun) == 1
