"""How much a command says: all of it, its last line, or more; and the file that keeps all of it."""

from __future__ import annotations

import re
import shlex
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Annotated, TextIO

import typer

from trpexport.errors import OutputError, TrpexportError

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Voice:
    """What a command is asked to say.

    Attributes:
        is_quiet: only errors, and the last line of what there is to say.
        is_verbose: when each thing began, and where an error comes from.
        is_for_machines: errors are facts, too.
        last: the last line, which is still to be said.
        notes: what is to be said once it is known how much.
    """

    def __init__(self, typed: Sequence[str] = ()) -> None:
        self.is_quiet = self.is_verbose = self.is_for_machines = False
        self.last: str | None = None
        self.notes: list[str] = []
        self._typed = typed
        self._started = time.monotonic()
        self._log: TextIO | None = None

    def ask(self, *, quiet: bool = False, verbose: bool = False) -> None:
        """Say less or more from now on.

        Raises:
            TrpexportError: both were asked for.
        """
        if (quiet and self.is_verbose) or (verbose and self.is_quiet):
            raise TrpexportError("--quiet and --verbose exclude each other: give one of them")
        self.is_quiet, self.is_verbose = self.is_quiet or quiet, self.is_verbose or verbose

    def keep(self, path: Path) -> None:
        """Append all that is said to a file.

        Raises:
            OutputError: it can't be written.
        """
        self.close()
        try:
            self._log = path.open("a", encoding="utf-8", errors="replace")
        except OSError as error:
            raise OutputError(
                f"can't write {path}: {error.strerror}; choose another log file",
                parameters=("log_file",),
            ) from None
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self.log(f"{now} trpexport {shlex.join(self._typed)}\n")

    def log(self, text: str) -> None:
        """Write to the file, if there is one; a full disk must not end the job."""
        if self._log is not None:
            with suppress(OSError):
                self._log.write(_STYLE.sub("", text))
                self._log.flush()

    def timed(self, line: str) -> str:
        """Return a line with the seconds since the command began."""
        return f"[{time.monotonic() - self._started:7.1f} s] {line}"

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            with suppress(OSError):
                self._log.close()
            self._log = None


_voice: ContextVar[Voice | None] = ContextVar("voice", default=None)


def voice() -> Voice:
    """Return that of the command that runs; outside of one, a new one that nothing was asked of."""
    return _voice.get() or Voice()


@contextmanager
def speaking(typed: Sequence[str]) -> Iterator[Voice]:
    """Yield the voice of a command, with nothing asked for yet."""
    own = Voice(typed)
    token = _voice.set(own)
    try:
        yield own
    finally:
        own.close()
        _voice.reset(token)


def origin(error: BaseException) -> str:
    """Return where an error comes from, in many lines."""
    return "".join(traceback.format_exception(error))


def _quiet(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        voice().ask(quiet=True)


def _verbose(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        voice().ask(verbose=True)


def _log_file(context: typer.Context, path: Path | None) -> None:
    if path is not None and not context.resilient_parsing:
        voice().keep(path)


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", callback=_quiet, help="Print only errors and the last line of the result."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_verbose,
        help="Print also the time of each step, the options in force, and where errors come from.",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        callback=_log_file, help="Append everything that is printed to this file, without colours."
    ),
]
