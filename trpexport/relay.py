"""Jobs of which one at a time works in this process, while the others wait for other machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_PATIENCE = 2.0  # seconds in which jobs may end that were stopped


class _Attempt(Generic[T]):
    """A job in a thread, and what came of it.

    Args:
        job: it.
    """

    def __init__(self, job: Callable[[], T]) -> None:
        self._job = job
        self._found: list[T] = []
        self._error: BaseException | None = None
        # A daemon: what computes when the program is to end, does not keep it from that.
        self.thread = Thread(target=partial(copy_context().run, self._work), daemon=True)

    def _work(self) -> None:
        try:
            self._found.append(self._job())
        except BaseException as error:  # told to whoever asks for the result
            self._error = error

    def __call__(self) -> T:
        """Return the result once it is there, or raise what the job raised."""
        self.thread.join()
        if self._error is not None:
            raise self._error
        return self._found[0]


class Relay:
    """Has jobs take turns: who waits for other machines lets the next one go on here."""

    def __init__(self) -> None:
        self._turn, self._voice = Lock(), Lock()
        self._is_stopped = False

    @contextmanager
    def running(self, jobs: Sequence[Callable[[], T]]) -> Iterator[list[Callable[[], T]]]:
        """Begin jobs; yield what returns the result of each. What has not ended then is stopped."""

        def begun(job: Callable[[], T]) -> T:
            with self._turn:
                self.check()
                return job()

        attempts = [_Attempt(partial(begun, job)) for job in jobs]
        for attempt in attempts:
            attempt.thread.start()
        try:
            yield [*attempts]
        finally:
            self._is_stopped = True
            end = time.monotonic() + _PATIENCE
            for attempt in attempts:
                attempt.thread.join(max(0.0, end - time.monotonic()))

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], None]]:
        """Let other jobs go on while the block runs; yield what it has to call now and then.

        Raises:
            KeyboardInterrupt: as :meth:`check`.
        """
        self._turn.release()
        try:
            yield self.check
        finally:
            self._turn.acquire()
        self.check()

    def say(self, say: Callable[[str], None], line: str) -> None:
        """Say a line, while no other job says one.

        Raises:
            KeyboardInterrupt: as :meth:`check`.
        """
        self.check()
        with self._voice:
            say(line)

    def check(self) -> None:
        """Go on, unless jobs are to stop.

        Raises:
            KeyboardInterrupt: they are.
        """
        if self._is_stopped:
            raise KeyboardInterrupt
