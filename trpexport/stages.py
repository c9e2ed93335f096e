"""Named stages of a long job: said while they run, timed for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Times the stages of one job.

    Args:
        announce: called with each stage's name when it begins.

    Attributes:
        seconds: wall time of each finished stage, in the order in which they began.
    """

    def __init__(self, announce: Callable[[str], None] | None = None) -> None:
        self._announce = announce
        self.seconds: dict[str, float] = {}

    def say(self, line: str) -> None:
        """Announce what is going on, without timing it."""
        if self._announce is not None:
            self._announce(line)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as the stage ``name``; the same name again adds up."""
        self.say(name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
