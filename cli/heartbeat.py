"""A line now and then while something takes its time, for those who read a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context

INTERVAL = 30.0  # seconds without a line


class Heartbeat:
    """Says what is still going on where nothing was said for a while.

    Args:
        say: prints a line.
        interval: seconds without one.
        clock: tells seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._interval = interval
        self._clock = clock
        self._line: str | None = None
        self._since = self._said = clock()

    def heard(self, line: str) -> None:
        """Know what is going on from now on, which was said just now."""
        self._line = line
        self._since = self._said = self._clock()

    def beat(self) -> None:
        """Say that it is still going on, if nothing was said for a while."""
        now = self._clock()
        if self._line is None or now - self._said < self._interval:
            return
        self._said = now
        self._say(f"{self._line}, {now - self._since:.0f} s so far")

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beat beside whatever the block does."""
        over = threading.Event()

        def go() -> None:
            while not over.wait(self._interval / 10):
                self.beat()

        # In the same context: how much a command is to say stands there.
        thread = threading.Thread(target=copy_context().run, args=(go,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
