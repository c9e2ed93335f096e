"""Times on a machine that others work on as well, which wait meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trpexport.inputs import Inputs
from trpexport.latency.stopwatch import Conditions, Session, Stopwatch, Timed
from trpexport.measure.profile.profile import Profile
from trpexport.turns import alone


class AloneStopwatch:
    """Times as another one does on this machine, while nothing that takes turns works on it.

    Args:
        stopwatch: the other one.
        say: called with a line where it has to wait.
    """

    def __init__(self, stopwatch: Stopwatch, say: Callable[[str], None]) -> None:
        self._stopwatch = stopwatch
        self._say = say

    @property
    def conditions(self) -> Conditions:
        """Under which it times."""
        return self._stopwatch.conditions

    @property
    def instruction_sets(self) -> Collection[str] | None:
        """Those of the other one."""
        return self._stopwatch.instruction_sets

    def at(self, inputs: Inputs) -> AloneStopwatch:
        """Return one that runs files with these inputs: some leave their sizes open."""
        return AloneStopwatch(self._stopwatch.at(inputs), self._say)

    def check(self) -> None:
        """Refuse what the other one refuses."""
        self._stopwatch.check()

    def facts(self) -> Mapping[str, Any]:
        """Return what times hold for."""
        return self._stopwatch.facts()

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        """Return where networks spend their time, in turns."""
        with alone(self._say):
            return self._stopwatch.profiles(files, runs)

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        """Time networks against the first one, in turns."""
        with alone(self._say):
            return self._stopwatch.race(files, seconds, sessions)
