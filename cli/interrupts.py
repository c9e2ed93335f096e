"""Ctrl-C, SIGTERM and SIGHUP end a command in one line that says what stands."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

_WORDS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hung up",  # the terminal was closed, or the connection to it lost
}
# Signals within so many seconds are one: a shell and a parent that both pass it on, a key that is
# pressed twice. What the first one set off, the removal of temporary files, is not broken off.
_SECONDS = 1.0
_MOMENT = 0.01  # after which a destructor is over


class InterruptedCommand(Exception):  # noqa: N818 - nothing went wrong
    """A signal ended the command; the message says what stands.

    Attributes:
        exit_code: 128 and the signal's number, as shells have it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Interrupts:
    """What is known of signals to this process, and what is said of them."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of nothing yet."""
        self.number: int | None = None
        self.is_heeded = False
        self.is_deferred = False
        self.stage: str | None = None
        self.stands: Callable[[], str] = lambda: "nothing was written"
        self._process = os.getpid()
        self._last = -_SECONDS

    def handle(self, number: int, _frame: object) -> None:
        """Raise KeyboardInterrupt for each signal: libraries clean up after that."""
        if os.getpid() != self._process:  # a forked one ends as if nobody had asked to be told
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
            signal.raise_signal(number)
            return
        now = time.monotonic()
        if now - self._last < _SECONDS:
            return
        self.number, self._last = self.number or number, now
        if self.is_deferred:
            self.is_deferred = False
            os.write(
                2, b"- stopping once the state is saved; a further interrupt ends it at once\n"
            )
            return
        self.is_heeded = False
        raise KeyboardInterrupt

    def again(self, unraisable: Any) -> None:
        """Raise it once more where Python could only print it, as in a destructor."""
        if self.number is None or not isinstance(unraisable.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)
            return
        self._last = -_SECONDS
        main = threading.main_thread().ident
        threading.Timer(_MOMENT, signal.pthread_kill, (main, self.number)).start()

    def error(self, number: int) -> InterruptedCommand:
        """Return what to say."""
        at = "" if self.stage is None else f' at "{self.stage}"'
        return InterruptedCommand(f"{_WORDS[number]}{at}; {self.stands()}", 128 + number)


_interrupts = _Interrupts()  # one a process, as are the handlers of signals


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise :class:`InterruptedCommand` for whatever a signal makes of the block.

    Some libraries turn a KeyboardInterrupt into an error of their own: once there was a signal, no
    error is anything else. The handlers stay then, so that a second one does not break off what
    is said of the first.
    """
    _interrupts.begin()
    hook, handlers = sys.unraisablehook, _install()
    sys.unraisablehook = _interrupts.again
    try:
        yield
    except SystemExit:  # of several processes another one speaks
        if _interrupts.number is None:
            raise
        raise SystemExit(128 + _interrupts.number) from None
    except BaseException as error:
        if _interrupts.number is None and not isinstance(error, KeyboardInterrupt):
            raise
        raise _interrupts.error(_interrupts.number or signal.SIGINT) from error
    finally:
        sys.unraisablehook = hook
        if _interrupts.number is None:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _install() -> dict[int, Any]:
    """Handle the signals that are not ignored, and return the handlers they had."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found: dict[int, Any] = {number: signal.getsignal(number) for number in _WORDS}
    handlers = {n: handler for n, handler in found.items() if handler is not signal.SIG_IGN}
    for number in handlers:
        signal.signal(number, _interrupts.handle)
    return handlers


def reach(stage: str) -> None:
    """Remember what is going on.

    Raises:
        KeyboardInterrupt: there was a signal, and the stage before took no notice of it.
    """
    if _interrupts.is_heeded:
        return
    if _interrupts.number is not None:
        raise KeyboardInterrupt
    _interrupts.stage = stage


def heed() -> None:
    """Let the command go on to where it ends by itself, unless there is a further signal."""
    _interrupts.is_heeded = True


def defer() -> None:
    """Let a first signal only be remembered: the job looks for it where it can go on later."""
    _interrupts.is_deferred = True


def end_deferral() -> None:
    """Let signals interrupt again."""
    _interrupts.is_deferred = False


def is_asked() -> bool:
    """Whether there was a signal."""
    return _interrupts.number is not None


def stop(stands: str) -> NoReturn:
    """End a command whose signal was heeded, and say what stands.

    Raises:
        KeyboardInterrupt: always.
    """
    tell(lambda: stands)
    raise KeyboardInterrupt


def tell(stands: Callable[[], str]) -> None:
    """Have an interrupt say what stands then."""
    _interrupts.stands = stands


def tell_written(*paths: Path | None, cache: Path | None = None) -> None:
    """Have an interrupt say which of some files and directories it came too late for.

    Args:
        paths: as for :func:`standing`.
        cache: likewise.
    """
    tell(standing(*paths, cache=cache))


def standing(*paths: Path | None, cache: Path | None = None) -> Callable[[], str]:
    """Return what says which of some files and directories were written since.

    Args:
        paths: what the command writes.
        cache: folder in which it keeps what the same command goes on from.
    """
    before = {path: _identity(path) for path in paths if path is not None}
    begun = time.time()

    def stands() -> str:
        written = [path for path, was in before.items() if _identity(path) != was]
        missing = [str(path) for path in before if path not in written]
        said = [f"{path} is written" for path in written]
        if missing:
            said.append(f"nothing was written to {' or '.join(missing)}")
        said = said or ["nothing was written"]
        if cache is not None and len(written) < max(1, len(before)) and _changed(cache, begun):
            said.append(f"the same command goes on from what is kept in {cache}")
        return "; ".join(said)

    return stands


def _changed(folder: Path, since: float) -> bool:
    """Whether a file anywhere in a folder was written, or marked as used, since a time."""
    with suppress(OSError):
        return any(path.stat().st_mtime >= since for path in folder.rglob("*") if path.is_file())
    return False


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
