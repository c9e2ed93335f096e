"""All cells of a sweep, journalled as they end: the same sweep goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from trpexport import bundle
from trpexport.bundle import FLOAT32
from trpexport.errors import OutputError
from trpexport.files import writable_folder, write_atomically, write_json
from trpexport.locks import locked
from trpexport.stages import Countdown, Stages
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.journal import NAME, Journal, Outcome
from trpexport.sweeps.making import Maker
from trpexport.sweeps.results import SweepResult
from trpexport.sweeps.runners import Here, Runner
from trpexport.sweeps.work import Work

JSON, CSV = "sweep.json", "sweep.csv"
_LOCK = ".sweep.lock"


@dataclass(frozen=True)
class Sweep:
    """A network in many ways.

    Attributes:
        work: what all cells have in common.
        cells: as :func:`~trpexport.sweeps.cells.grid` gives them.
        runner: who works on them.
    """

    work: Work
    cells: tuple[Cell, ...]
    runner: Runner = field(default_factory=Here)

    def __call__(self, out: Path, stages: Stages | None = None) -> SweepResult:
        """Make, judge and time what is not done yet, and write down what came of all cells.

        A cell that fails is written down with its line and the others go on; the same sweep tries
        it again. ``sweep.json`` and ``sweep.csv`` hold the cells that were asked for.

        Args:
            out: the sweep's directory: its journal, and a bundle for each scheme and target.
            stages: times and announces the stages.

        Raises:
            OutputError: the place holds something else, or another sweep.
            TrpexportError: what no cell could do with.
        """
        stages = stages or Stages()
        self.work.check(self.cells)
        # What no cell could do with is told once, and leaves nothing behind.
        maker = Maker.of(self.work, stages)
        with _reserved(out):
            journal = Journal(out, maker.request(), replace=self.work.settings.replace)
            with stages("make the cells"):
                self._make(maker, journal, out, stages)
            if self.work.conditions is not None:
                with stages("time the cells"):
                    self._time(journal, out, stages)
            outcomes = journal.outcomes()
            result = SweepResult.of(
                out, self.work.source.path.name, {cell: outcomes[cell] for cell in self.cells}
            )
            write_json(out / JSON, result.data)
            write_atomically(out / CSV, result.csv().encode())
        return result

    def _make(self, maker: Maker, journal: Journal, out: Path, stages: Stages) -> None:
        """Make the cells that do not stand."""
        known = journal.outcomes()
        groups = [
            [cell for cell in group if not _stands(known.get(cell), out / cell.folder)]
            for group in self._groups()
        ]
        groups = [group for group in groups if group]
        countdown = Countdown(sum(map(len, groups)))
        for group in groups:
            place = out / group[0].folder
            if group[0].precision == FLOAT32 and bundle.is_bundle(place):
                rmtree(place)  # of a cell that was at work, or of one that failed
        for cell, outcome in self.runner.make(maker, groups, out, stages.say):
            journal.put(cell, outcome)
            said = "" if outcome.error is None else f", which failed: {outcome.error}"
            stages.say(f"{countdown.step()}: {cell.label}{said}")

    def _time(self, journal: Journal, out: Path, stages: Stages) -> None:
        """Time the cells that stand and were not timed under these conditions."""
        known, conditions = journal.outcomes(), self.work.conditions
        assert conditions is not None
        wanted = [
            (cell, known[cell])
            for cell in self.cells
            if known[cell].facts is not None and not _is_timed(known[cell], conditions.to_json())
        ]
        countdown = Countdown(len(wanted))
        for cell, outcome in self.runner.time(self.work, wanted, out, stages.say):
            journal.put(cell, outcome)
            said = "" if outcome.error is None else f", which failed: {outcome.error}"
            stages.say(f"{countdown.step()}: {cell.label} timed{said}")

    def _groups(self) -> list[list[Cell]]:
        """Return the cells of each bundle, that in float32 first: the others are made of it."""
        groups: dict[str, list[Cell]] = {}
        for cell in self.cells:
            base = Cell(cell.scheme, cell.target)
            group = groups.setdefault(cell.folder, [base])
            if cell != base:
                group.append(cell)
        return list(groups.values())


def _stands(outcome: Outcome | None, place: Path) -> bool:
    return outcome is not None and outcome.facts is not None and bundle.is_bundle(place)


def _is_timed(outcome: Outcome, conditions: Mapping[str, object]) -> bool:
    return outcome.time is not None and outcome.time["conditions"] == conditions


@contextmanager
def _reserved(out: Path) -> Iterator[None]:
    """Keep others away from a sweep's directory while the block runs.

    Raises:
        OutputError: it can't be written, another process is at work there, or it holds other
            things.
    """
    if out.is_dir():
        others: Sequence[str] = sorted(path.name for path in out.iterdir() if path.name != _LOCK)
        if others and NAME not in others:
            raise OutputError(
                f"{out} holds files that are no sweep ({', '.join(others[:3])}): choose another "
                "place",
                parameters=("out",),
            )
    with locked(writable_folder(out) / _LOCK, out):
        yield
