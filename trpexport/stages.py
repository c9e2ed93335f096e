"""Named stages of a long job: said while they run, timed for the report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_MINUTES_FROM = 100  # seconds


class Countdown:
    """Says how far a job of equal steps is, and about how long the rest will take.

    Args:
        steps: how many there are.
        clock: returns seconds.
        done: how many were done before.
    """

    def __init__(
        self, steps: int, clock: Callable[[], float] = time.perf_counter, *, done: int = 0
    ) -> None:
        self._steps = steps
        self._clock = clock
        self._started = clock()
        self._done = self._before = done

    def step(self, count: int = 1) -> str:
        """Return where the job stands once further steps are done: ``3 of 18, 40 s left``."""
        self._done += count
        left = self._steps - self._done
        if left <= 0:
            return f"{self._done} of {self._steps}"
        seconds = (self._clock() - self._started) / (self._done - self._before) * left
        return f"{self._done} of {self._steps}, {duration(seconds)} left"


_STEPS = re.compile(r"(?:^|, |: )(?P<done>\d+) of (?P<steps>\d+)(?=$|,|:)")


def steps_in(line: str) -> tuple[int, int] | None:
    """Return how many steps a line of a :class:`Countdown` says are done, and how many there are.

    None for any other line.
    """
    found = _STEPS.search(line)
    return None if found is None else (int(found["done"]), int(found["steps"]))


def duration(seconds: float) -> str:
    """Return a time for the reader, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < _MINUTES_FROM else f"{seconds / 60:.0f} min"


class Stages:
    """Times the stages of one job.

    Args:
        announce: called with each stage's name when it begins.
        heed: called where an interrupt ends a search that has found something already: the job
            then goes on with that to its end. Where it is None, an interrupt ends the job.
        remark: called with a line that stays to be read; ``announce`` where it is None.
        interval: seconds between two lines on how far a stage has come: few where lines add up in a
            log, many where each replaces the one before.

    Attributes:
        seconds: wall time of each finished stage, in the order in which they began.
        is_cut_short: whether an interrupt was heeded.
    """

    def __init__(
        self,
        announce: Callable[[str], None] | None = None,
        heed: Callable[[], None] | None = None,
        *,
        remark: Callable[[str], None] | None = None,
        interval: float = 30.0,
    ) -> None:
        self._announce = announce
        self._remark = remark or announce
        self._heed = heed
        self._interval = interval
        self._said = time.monotonic()
        self.is_cut_short = False
        self.seconds: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Announce what is going on, without timing it."""
        self._said = time.monotonic()
        if self._announce is not None:
            self._announce(line)

    def remark(self, line: str) -> None:
        """Say what is to stay before the reader's eyes while the job goes on."""
        if self._remark is not None:
            self._remark(line)

    def settle_for(self, best: T | None, interrupt: KeyboardInterrupt) -> T:
        """Return the best that a search had found when it was interrupted.

        Raises:
            KeyboardInterrupt: there is nothing, or an interrupt ends the job.
        """
        if best is None or self._heed is None:
            raise interrupt
        self._heed()
        self.is_cut_short = True
        self.say("stopping: the best so far is written; a further interrupt ends it at once")
        return best

    def progress(self, line: str) -> None:
        """Announce how far a stage has come, unless something was said a moment ago."""
        if time.monotonic() - self._said >= self._interval:
            self.say(line)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as the stage ``name``; the same name again adds up."""
        self.say(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
