"""Networks of a speed that is asked for, found by what they really take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter

from trpexport.choose.allotment import Allotment, allot, smallest_fraction, whole_network
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.prices import SECONDS
from trpexport.choose.table import SensitivityTable
from trpexport.errors import NothingToDoError
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval

# What is aimed at beyond a speed-up, and what of that a graph must reach, so that the network that
# is written reaches the speed-up as well.
_MARGIN, _FLOOR = 1.015, 1.005
# How far from what is aimed at a measured speed-up may lie before another try.
_NEAR = 0.015
_TRIES = 4
# A share of the time that is so much smaller is another choice.
_STEP = 1e-6


class SpeedupSearch:
    """Looks for networks of a speed, which it measures.

    Args:
        timer: times networks.
        times: what each way of each layer takes.
        table: what each way costs and loses.
        budgeter: calibrates.
        say: called with a line on what is going on.

    Attributes:
        best: of the networks that are measurably faster: the one that loses least where some are
            as fast as asked for, else the fastest one.
    """

    def __init__(
        self,
        timer: Timer,
        times: TimeTable,
        table: SensitivityTable,
        budgeter: Budgeter,
        say: Callable[[str], None],
    ) -> None:
        self._timer = timer
        self._times = times
        self._table = table
        self._budgeter = budgeter
        self._say = say
        self._measured: dict[tuple[tuple[str, Way], ...], Interval] = {}
        self.best: Outcome | None = None

    def to_speedup(self, speedup: float) -> Outcome:
        """Return the network found that loses least among those that are so much faster.

        The table is corrected by what whole networks really take: those of its own choice first,
        which need no calibration, then the calibrated ones.

        Raises:
            NothingToDoError: none is that fast; the message says how fast the fastest is.
        """
        goal = 1 / (speedup * _MARGIN)
        share = goal
        for _ in range(_TRIES):
            choice = self._chosen(share, speedup)
            measured = self._race(ways_of(choice))
            if abs(measured.mid * goal - 1) <= _NEAR:
                break
            share = self._next(share, choice, measured, speedup)
        found: list[tuple[float, Outcome]] = []
        criterion = f"speedup:{speedup:.4g}{self._timer.base}"
        for _ in range(_TRIES):
            outcome = self._budgeter.to_fraction(self._within(share), SECONDS, criterion)
            measured = self.measured(outcome)
            found.append((measured.mid, outcome))
            fast = [one for mid, one in found if mid >= speedup * _FLOOR]
            self.best = (
                min(fast, key=lambda one: one.error) if fast else max(found, key=itemgetter(0))[1]
            )
            if speedup * _FLOOR <= measured.mid <= speedup * (_MARGIN + _NEAR):
                break
            share = self._next(share, outcome.allotment, measured, speedup)
        if self.best is None or not fast:
            fastest = max(mid for mid, _ in found)
            raise NothingToDoError(
                f"a speed-up of {speedup:.4g}{self._timer.base} can't be met: the best measured is "
                f"{fastest:.2f}x"
            )
        return self.best

    def _next(self, share: float, choice: Allotment, measured: Interval, speedup: float) -> float:
        """Return the share of the time to try next, corrected by what a choice really took.

        Where that was too slow, it is a share that the choice itself does not fit into: there may
        be nothing between it and one that is much faster.
        """
        found = share * measured.mid / (speedup * _MARGIN)
        if measured.mid >= speedup * _FLOOR:
            return found
        taken = choice.costs[SECONDS] / whole_network(self._table).costs[SECONDS]
        return min(found, taken * (1 - _STEP))

    def measured(self, outcome: Outcome) -> Interval:
        """Return how many times faster than the original a chosen network is.

        Raises:
            NothingToDoError: it is not measurably faster.
        """
        found = self._race(ways_of(outcome.allotment))
        if found.verdict != "faster":
            raise NothingToDoError(
                f"the network within the limit is not measurably faster: {found.mid:.2f}x "
                f"({found.low:.2f} to {found.high:.2f})"
            )
        return found

    def predicted(self, outcome: Outcome) -> float:
        """Return the speed-up of a chosen network by the table."""
        return self._times.speedup(ways_of(outcome.allotment))

    def _race(self, ways: Mapping[str, Way]) -> Interval:
        key = tuple(sorted(ways.items()))
        if key not in self._measured:
            _, timed = self._timer.race([{}, ways])
            self._measured[key] = timed.speedup
            predicted = self._times.speedup(ways)
            self._say(f"{timed.speedup.mid:.2f}x measured, {predicted:.2f}x by the table")
        return self._measured[key]

    def _chosen(self, share: float, speedup: float) -> Allotment:
        try:
            return allot(self._table, self._within(share), resource=SECONDS)
        except NothingToDoError:
            raise NothingToDoError(
                f"a speed-up of {speedup:.4g}{self._timer.base} can't be met with ranks that the "
                "images tell"
            ) from None

    def _within(self, share: float) -> float:
        """Keep a share of the time between what is possible and all."""
        return min(max(share, smallest_fraction(self._table, SECONDS) * (1 + 1e-9)), 0.999)


def ways_of(allotment: Allotment) -> dict[str, Way]:
    """Return the ways of the layers that a choice rewrites."""
    return {name: option.way for name, option in allotment.chosen.items() if option.way is not None}
