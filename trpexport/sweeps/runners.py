"""Who works on the cells of a sweep: this process, or others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from trpexport.bundle import FLOAT32
from trpexport.errors import TrpexportError
from trpexport.foreign import told
from trpexport.stages import Stages
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.journal import Outcome
from trpexport.sweeps.making import Maker
from trpexport.sweeps.work import Work
from trpexport.turns import alone, working

Done = Iterator[tuple[Cell, Outcome]]
Say = Callable[[str], None]


class Runner(Protocol):
    """Works on cells."""

    def make(self, maker: Maker, groups: Sequence[Sequence[Cell]], out: Path, say: Say) -> Done:
        """Make cells and yield what came of each as it ends.

        Args:
            maker: makes a cell in this process; its work is what they have in common.
            groups: cells of one bundle each, in the order in which they are made.
            out: the sweep's directory, where the bundles go.
            say: called with a line on what is going on.

        Raises:
            TrpexportError: nobody can work.
        """

    def time(self, work: Work, made: Sequence[tuple[Cell, Outcome]], out: Path, say: Say) -> Done:
        """Time cells that were made, one at a time a machine, and yield each as it ends.

        Raises:
            TrpexportError: nobody can work.
        """


class Here:
    """Works on one cell after the other in this process."""

    def make(self, maker: Maker, groups: Sequence[Sequence[Cell]], out: Path, say: Say) -> Done:
        """Make cells and yield what came of each as it ends."""
        for group in groups:
            for cell in group:
                say(cell.label)
                outcome = made(maker, cell, out / cell.folder, say)
                yield cell, outcome
                if is_base(cell, outcome):
                    yield from without_base(cell, outcome, group)
                    break

    def time(self, work: Work, made: Sequence[tuple[Cell, Outcome]], out: Path, say: Say) -> Done:
        """Time cells that were made, one at a time, and yield each as it ends."""
        for cell, outcome in made:
            say(f"time {cell.label}")
            yield cell, timed(work, cell, outcome, out / cell.folder, say)


def made(maker: Maker, cell: Cell, place: Path, say: Say) -> Outcome:
    """Make a cell in a place on this machine; return what came of it, whatever that is."""

    def make() -> Outcome:
        with working(say):
            return Outcome(maker.made(cell, place, Stages(say)))

    return attempted(make)


def measured(maker: Maker, scheme: str, say: Say) -> Outcome:
    """Measure what the cells of a scheme share; what fails there is told of the cells."""

    def measure() -> Outcome:
        with working(say):
            maker.measured(scheme, Stages(say))
        return Outcome(None)

    return attempted(measure)


def timed(work: Work, cell: Cell, outcome: Outcome, place: Path, say: Say) -> Outcome:
    """Time a cell that was made in a place on this machine, alone; return what came of it."""

    def time() -> Outcome:
        with alone(say):
            return Outcome(outcome.facts, work.timed(cell, place))

    return attempted(time, outcome)


def is_base(cell: Cell, outcome: Outcome) -> bool:
    """Whether a cell failed that the others of its bundle are made of."""
    return cell.precision == FLOAT32 and outcome.facts is None


def without_base(base: Cell, outcome: Outcome, group: Sequence[Cell]) -> Done:
    """Yield the other cells of a bundle, which can't be made because its first one failed."""
    line = f"it is made of {base.label}, which failed"
    for cell in group:
        if cell != base:
            yield cell, Outcome(None, error=line, code=outcome.code)


def attempted(job: Callable[[], Outcome], before: Outcome | None = None) -> Outcome:
    """Return what came of a job; what it raised in one line: the other cells go on.

    Args:
        job: does something for a cell.
        before: what came of the cell until then.
    """
    facts = None if before is None else before.facts
    try:
        return job()
    except TrpexportError as error:
        return Outcome(facts, error=str(error), code=error.exit_code)
    except Exception as error:  # of somebody's own metric, or a fault of a library
        return Outcome(facts, error=told(error), code=TrpexportError.exit_code)
