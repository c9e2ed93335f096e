"""Timing networks that are told by the ways in the place of their layers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trpexport.latency.blanks import Blanks
from trpexport.latency.folding import Folded, folded
from trpexport.latency.stopwatch import Stopwatch, Timed
from trpexport.latency.ways import Ways
from trpexport.measure.statistics import Interval

# Least time that each network runs for when networks are timed against each other.
RACE_SECONDS = 1.0


class Timer:
    """Writes networks, times them, and removes them again.

    Args:
        blanks: writes them.
        stopwatch: times them.
    """

    def __init__(self, blanks: Blanks, stopwatch: Stopwatch) -> None:
        self.blanks = blanks
        self.stopwatch = stopwatch

    def facts(self) -> dict[str, Any]:
        """Return what times hold for, JSON-ready: those of the stopwatch, and the precision."""
        form = self.blanks.form
        return {**self.stopwatch.facts(), **({} if form is None else {"precision": form.name})}

    @property
    def base(self) -> str:
        """What speed-ups are over, for messages; nothing where that is the network as it came."""
        form = self.blanks.form
        return "" if form is None else f" over the network as it is in {form.name}"

    def gain(self, seconds: float = RACE_SECONDS) -> Interval:
        """Return how many times faster the network as it is runs in the precision that is timed.

        Raises:
            TrpexportError: it can't be run.
        """
        if self.blanks.form is None:
            return Interval(1.0, 1.0, 1.0)
        with self._written([{}]) as (files, _):
            return self.stopwatch.race([self.blanks.original, *files], seconds)[1].speedup

    def race(self, networks: Sequence[Ways], seconds: float = RACE_SECONDS) -> list[Timed]:
        """Time networks in turns, and compare each with the first one.

        Raises:
            TrpexportError: one can't be run.
        """
        with self._written(networks) as (files, _):
            return self.stopwatch.race(files, seconds)

    def folded(self, networks: Sequence[Ways], runs: int) -> list[Folded]:
        """Return where networks spend their time, by layer, from profiles taken in turns.

        Raises:
            TrpexportError: one can't be run.
        """
        with self._written(networks) as (files, owners):
            profiles = self.stopwatch.profiles(files, runs)
            return [
                folded(profile, file, own)
                for profile, file, own in zip(profiles, files, owners, strict=True)
            ]

    @contextmanager
    def _written(
        self, networks: Sequence[Ways]
    ) -> Iterator[tuple[list[Path], list[dict[str, str]]]]:
        """Write networks for as long as the block lasts."""
        with tempfile.TemporaryDirectory(prefix="trpexport-latency-") as name:
            files = [Path(name) / f"network{index}.onnx" for index in range(len(networks))]
            yield (
                files,
                [self.blanks.write(file, ways) for file, ways in zip(files, networks, strict=True)],
            )
