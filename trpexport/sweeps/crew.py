"""Cells of a sweep in several processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from trpexport.available import available_memory, usable_cores
from trpexport.errors import TrpexportError
from trpexport.importing import importable_working_directory
from trpexport.networks.base import WATCH_BYTES
from trpexport.supervision import die_with
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.journal import Outcome
from trpexport.sweeps.making import Maker
from trpexport.sweeps.order import Order, Turn
from trpexport.sweeps.runners import (
    Done,
    Here,
    Say,
    attempted,
    is_base,
    made,
    measured,
    without_base,
)
from trpexport.sweeps.work import Work

# What a process takes: the libraries, and what calibration keeps of two networks.
_BYTES = (1 << 30) + 2 * WATCH_BYTES
_THREADS = "OMP_NUM_THREADS"
_SAID, _DONE, _ENDED = "said", "done", "ended"  # what is heard of a process
# Nothing of the caller's program is run again, as multiprocessing would.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from trpexport.sweeps.crew import serve; serve()"


def usual_size() -> int:
    """Return how many processes this machine has cores and memory for."""
    memory = available_memory()
    room = usable_cores() if memory is None else memory // _BYTES
    return max(1, min(usable_cores(), room))


@dataclass(frozen=True)
class Crew:
    """Works on several cells at once, each in a process of its own; times them one by one.

    Attributes:
        size: how many processes.
    """

    size: int

    def make(self, maker: Maker, groups: Sequence[Sequence[Cell]], out: Path, say: Say) -> Done:
        """Make cells and yield what came of each as it ends.

        Raises:
            TrpexportError: something that they have in common can't be handed to a process.
        """
        size = min(self.size, len(groups))
        if size < 2:
            yield from Here().make(maker, groups, out, say)
            return
        # Who times is not asked there: one cell at a time is timed here.
        untimed = replace(maker.work, conditions=None)
        yield from _Making(_packed((untimed, out)), size, say)(groups)

    def time(self, work: Work, made: Sequence[tuple[Cell, Outcome]], out: Path, say: Say) -> Done:
        """Time cells that were made, one at a time, and yield each as it ends."""
        yield from Here().time(work, made, out, say)


def _packed(job: tuple[Work, Path]) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TrpexportError(
            f"the sweep can't be handed to other processes ({error}): keep functions of your own "
            "in a module, or make one cell at a time",
            parameters=("jobs",),
        ) from None


class _Worker:
    """A process that makes cells.

    Attributes:
        turn: what it is at; None for nothing.

    Args:
        job: what it works on, packed.
        threads: how many it may compute on.
        heard: where what it says goes: itself, what kind of thing that is, and the thing.
    """

    def __init__(self, job: bytes, threads: int, heard: SimpleQueue[Any]) -> None:
        self.turn: Turn | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={_THREADS: str(threads), **os.environ},
        )
        self._heard = heard
        self._send(pickle.dumps(job))
        Thread(target=self._listen, daemon=True).start()

    def begin(self, turn: Turn) -> None:
        """Have it do something; it says lines meanwhile, and an outcome at last."""
        self.turn = turn
        self._send(pickle.dumps(turn))

    def end(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):  # what was not written yet nobody reads
            self._process.stdin.close()

    def _send(self, content: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended, as will be heard
            self._process.stdin.write(content)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream, suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                self._heard.put((self, *pickle.load(stream)))
        self._heard.put((self, _ENDED, _ending(self._process.wait())))


def _ending(code: int) -> Outcome:
    """Return what came of the cell that a process was at as it ended."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    hint = ": it may be out of memory, make fewer at a time" if how == "SIGKILL" else ""
    line = f"the process that worked on it ended ({how}){hint}"
    return Outcome(None, error=line, code=TrpexportError.exit_code)


@dataclass
class _Making:
    """Makes the cells of a sweep in several processes, which start when there is work for them.

    Attributes:
        job: what they work on, packed.
        size: how many there may be.
        say: called with a line on what is going on.
    """

    job: bytes
    size: int
    say: Say
    heard: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    workers: list[_Worker] = field(default_factory=list)

    def __call__(self, groups: Sequence[Sequence[Cell]]) -> Done:
        """Make cells and yield what came of each as it ends."""
        order = Order(groups)
        ready = deque(order.first())
        try:
            while ready or any(worker.turn for worker in self.workers):
                while ready and (worker := self._free()) is not None:
                    worker.begin(ready.popleft())
                turn, outcome = self._ended()
                if turn.place is None:
                    ready.extendleft(reversed(order.after(turn)))
                    continue
                yield turn.cell, outcome
                if is_base(turn.cell, outcome):
                    yield from without_base(turn.cell, outcome, turn.group)
                elif (following := turn.following()) is not None:
                    ready.appendleft(following)
        finally:
            for worker in self.workers:
                worker.end()

    def _free(self) -> _Worker | None:
        """Return a process that has nothing to do, a new one where there may be more."""
        found = next((worker for worker in self.workers if worker.turn is None), None)
        if found is None and len(self.workers) < self.size:
            found = _Worker(self.job, max(1, usable_cores() // self.size), self.heard)
            self.workers.append(found)
        return found

    def _ended(self) -> tuple[Turn, Outcome]:
        """Wait for something to end; return what, and what came of it."""
        while True:
            worker, kind, content = self.heard.get()
            turn = worker.turn
            if kind == _SAID:
                self.say(f"{turn.label}: {content}")
                continue
            worker.turn = None
            if kind == _ENDED:
                worker.end()
                self.workers.remove(worker)
            if turn is not None:
                return turn, content


def serve() -> None:
    """Work on what the standard input says, until it ends: what a process of a crew does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it will end it
    die_with(os.getppid())
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    makers: list[tuple[Maker, Path]] = []

    def say(kind: str, content: object) -> None:
        pickle.dump((kind, content), answers)
        answers.flush()

    def outcome(turn: Turn) -> Outcome:
        if not makers:
            work, out = pickle.loads(job)
            makers.append((Maker.of(work), out))
        maker, out = makers[0]
        lines = partial(say, _SAID)
        if turn.place is None:
            return measured(maker, turn.cell.scheme, lines)
        return made(maker, turn.cell, out / turn.cell.folder, lines)

    with importable_working_directory():
        job = pickle.load(sys.stdin.buffer)
        turns: SimpleQueue[Turn] = SimpleQueue()
        Thread(target=_heed, args=(turns,), daemon=True).start()
        while True:
            turn = turns.get()
            say(_DONE, attempted(partial(outcome, turn)))


def _heed(turns: SimpleQueue[Turn]) -> None:
    """Pass on what is to be done; end this process at once when nobody is there any more."""
    with suppress(EOFError):
        while True:
            turns.put(pickle.load(sys.stdin.buffer))
    os._exit(0)
