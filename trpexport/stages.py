"""Named stages of a long job: said while they run, timed for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Times the stages of one job.

    Args:
        announce: called with each stage's name when it begins.
        interval: seconds between two lines on how far a stage has come: few where lines add up in a
            log, many where each replaces the one before.

    Attributes:
        seconds: wall time of each finished stage, in the order in which they began.
    """

    def __init__(
        self, announce: Callable[[str], None] | None = None, *, interval: float = 30.0
    ) -> None:
        self._announce = announce
        self._interval = interval
        self._said = time.monotonic()
        self.seconds: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Announce what is going on, without timing it."""
        self._said = time.monotonic()
        if self._announce is not None:
            self._announce(line)

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
