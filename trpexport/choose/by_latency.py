"""Schemes and ranks by output error on images, within a limit on the time on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from trpexport.choose.alignment import AUTO, AlignedSelection, Alignment, find_alignment
from trpexport.choose.allotment import Allotment, allot, smallest_fraction, whole_network
from trpexport.choose.base import CalibrationImages, Choice, calibrated_choice, gathered
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.by_budget import with_shares
from trpexport.choose.candidates import candidate_ranks
from trpexport.choose.held_out import HeldOut
from trpexport.choose.judging import NetworkJudge
from trpexport.choose.limits import check_drop, only_limit
from trpexport.choose.prices import SECONDS
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.errors import NothingToDoError, PlanError
from trpexport.inputs import Inputs
from trpexport.judge.examples import find_judge
from trpexport.judge.metrics import Metric
from trpexport.latency.blanks import Blanks, check_found
from trpexport.latency.stopwatch import Conditions, LocalStopwatch, Stopwatch
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable, time_layers
from trpexport.latency.ways import Way
from trpexport.lowrank.schemes import SCHEMES
from trpexport.measure.statistics import Interval
from trpexport.networks.base import Network
from trpexport.runtime.providers import PROVIDERS
from trpexport.stages import Stages

# What is aimed at beyond a speed-up, and what of that a graph must reach, so that the network that
# is written reaches the speed-up as well.
_MARGIN, _FLOOR = 1.015, 1.005
# How far from what is aimed at a measured speed-up may lie before another try.
_NEAR = 0.015
_TRIES = 4
# A share of the time that is so much smaller is another choice.
_STEP = 1e-6


@dataclass(frozen=True)
class ByLatency(AlignedSelection):
    """Keeps the output on images as well as a limit allows, and is fast where it will run.

    One of the first four attributes is the limit. Time is measured inside the network, by layer
    and by way to write it, and once more for the whole network that is chosen: see
    :mod:`trpexport.latency`. A layer that would not get faster stays as it is.

    Attributes:
        speedup: how many times faster than it is the network must become, above 1.
        seconds: how long a run may take.
        error: output error that is allowed, as for :class:`~trpexport.ByBudget`; the fastest
            network found within it is chosen.
        drop: what may be lost of ``metric``, likewise.
        scheme: name of the scheme; ``auto`` chooses for each layer.
        conditions: provider, threads and batch that times hold for.
        stopwatch: who times; None for this machine under ``conditions``.
        cache: folder where tables of times and of what layers lose are kept; None for nowhere.
        metric: as for :class:`~trpexport.ByBudget`.
        lower_is_better: likewise.
    """

    speedup: float | None = None
    seconds: float | None = None
    error: float | None = None
    drop: float | None = None
    scheme: str = "auto"
    conditions: Conditions = field(default_factory=Conditions)
    stopwatch: Stopwatch | None = None
    cache: Path | None = None
    metric: Metric | Callable[..., Any] | str | None = None
    lower_is_better: bool = False

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""
        return "tuned"

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""
        return None

    @property
    def alignment(self) -> Alignment:
        """What ranks are rounded up to multiples of: ``auto`` is for the machine that times.

        Raises:
            TrpexportError: as :func:`~trpexport.choose.alignment.find_alignment`, or that machine
                can't be reached.
        """
        elsewhere = self.timekeeper.instruction_sets if self.rank_multiple == AUTO else None
        return find_alignment(self.rank_multiple, self.provider, elsewhere)

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: the scheme is unknown, the limit is out of range, or there is not one.
        """
        kind, limit = self._limit
        if kind == "speedup" and not 1 < limit < float("inf"):
            raise PlanError(
                f"a speed-up of {limit:g} is out of range: ask for more than 1", parameters=(kind,)
            )
        if kind == "seconds" and not 0 < limit < float("inf"):
            raise PlanError(
                f"a run of {limit:g} s is out of range: ask for more than 0", parameters=(kind,)
            )
        if kind == "error" and not 0 < limit < 1:
            raise PlanError(
                f"an error of {limit:g} is out of range: it must be between 0 and 1",
                parameters=(kind,),
            )
        if kind == "drop":
            check_drop(limit, self._metric())
        elif self.metric is not None:
            raise PlanError("a metric says what a drop is of: give a drop, or leave it out")
        _ = self.alignment
        provider = PROVIDERS[self.timekeeper.conditions.provider]
        if provider.device is not None:
            raise PlanError(
                f"what a node takes on {provider.name} its profiler does not tell: choose by a "
                "share of the MACs, and bench what comes out",
                parameters=("provider",),
            )
        if self.scheme != "auto":
            _ = SCHEMES[self.scheme]

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Raises:
            NothingToDoError: it can't be made faster, or the limit can't be met; the message says
                what the best is.
            TrpexportError: as :meth:`check`, or there are no images, or their labels do not fit,
                or the network can't be run under the conditions.
        """
        self.check()
        if images is None:
            raise PlanError("ranks are chosen by output error on images: give some")
        labelled = images.labelled() if self.drop is not None else None
        metric = None if labelled is None else self._metric(labelled.data)
        stopwatch = self.timekeeper
        with tempfile.TemporaryDirectory(prefix="trpexport-latency-") as name:
            blanks = Blanks(network, Path(name), batch=stopwatch.conditions.batch)
            timer = Timer(blanks, stopwatch)
            with stages("time the layers"), Store(self.cache) as store:
                ways = self._ways(network)
                check_found(blanks, ways)
                times = time_layers(timer, ways, store, stages.say)
                best = _check_pays(timer, times, self.wanted(times.latency))
            gatherer = gathered(network, images)
            held_out = HeldOut(network, *images.held_out())
            with stages("measure what each rank loses"):
                table = sensitivity_table(
                    network,
                    gatherer,
                    scheme=self.scheme,
                    selection=self,
                    rank_multiple=self.alignment.multiple,
                    cache=self.cache,
                    announce=stages.say,
                ).priced(SECONDS, times.whole, times.layers)
            budgeter = Budgeter(
                network,
                table,
                gatherer,
                scheme=self.scheme,
                selection=self,
                architecture=label,
                resource=SECONDS,
                announce=stages.say,
            )
            search = _Search(timer, times, table, budgeter, stages.say)
            facts: dict[str, Any] = {}
            judge = None
            if labelled is not None:
                most = gatherer.watch.samples.max_batch
                judge = NetworkJudge(network, labelled, metric, max_batch=most)
            with stages("calibrate"):
                try:
                    if judge is not None:
                        assert self.drop is not None
                        outcome = budgeter.to_drop(judge.loss, self.drop, judge.unit)
                    elif self.error is not None:
                        outcome = budgeter.to_error(self.error, held_out.errors)
                    else:
                        outcome = search.to_speedup(self.wanted(times.latency))
                except KeyboardInterrupt as interrupt:
                    outcome = stages.settle_for(search.best or budgeter.best, interrupt)
                if judge is not None:
                    facts["judged"] = judge.facts(network.rewritten(outcome.calibrated.chains))
                measured = search.measured(outcome)
        kind, limit = self._limit
        facts["target"] = {"kind": kind, "value": limit}
        facts["layers"] = with_shares(table, outcome)
        facts["latency"] = {
            **stopwatch.facts(),
            "speedup": measured.to_json(),
            "predicted_speedup": search.predicted(outcome),
            "best_speedup": best.to_json(),
            "seconds_before": times.latency,
            "seconds": times.latency / measured.mid,
            "deviation": times.deviation,
            "networks_profiled": times.measured,
        }
        choice = calibrated_choice(network, outcome.calibrated, images, held_out, facts)
        options = {**choice.plan.options, **self.alignment.to_json()}
        return replace(choice, plan=replace(choice.plan, options=options))

    @property
    def timekeeper(self) -> Stopwatch:
        """Who times networks."""
        return self.stopwatch or LocalStopwatch(self.conditions)

    @property
    def _limit(self) -> tuple[str, float]:
        """Kind and value of the one limit that was given.

        Raises:
            PlanError: there is not one.
        """
        limits = {
            "speedup": self.speedup,
            "seconds": self.seconds,
            "error": self.error,
            "drop": self.drop,
        }
        return only_limit(limits, "a limit is one of speedup, seconds, error and drop: give one")

    def _metric(self, data: str = "the data") -> Metric | None:
        return find_judge(data, self.metric, lower_is_better=self.lower_is_better)

    def wanted(self, whole: float) -> float:
        """Return the speed-up that is needed at least, given what the network takes as it is."""
        if self.speedup is not None:
            return self.speedup
        return 1.0 if self.seconds is None else max(1.0, whole / self.seconds)

    def _ways(self, network: Network) -> dict[str, list[Way]]:
        """Return the ways to write each layer that may be rewritten."""
        names = list(SCHEMES) if self.scheme == "auto" else [self.scheme]
        reasons = {name: self.reasons_to_stay(network, SCHEMES[name]) for name in names}
        return {
            layer.name: [
                Way(name, rank)
                for name in names
                if reasons[name][layer.name] is None
                for rank in candidate_ranks(SCHEMES[name], layer, self.alignment.multiple)
            ]
            for layer in network.layers
        }


class _Search:
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
        criterion = f"speedup:{speedup:g}"
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
                f"a speed-up of {speedup:g} can't be met: the best measured is {fastest:.2f}x"
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
                f"a speed-up of {speedup:g} can't be met with ranks that the images tell"
            ) from None

    def _within(self, share: float) -> float:
        """Keep a share of the time between what is possible and all."""
        return min(max(share, smallest_fraction(self._table, SECONDS) * (1 + 1e-9)), 0.999)


def ways_of(allotment: Allotment) -> dict[str, Way]:
    """Return the ways of the layers that a choice rewrites."""
    return {name: option.way for name, option in allotment.chosen.items() if option.way is not None}


def _check_pays(timer: Timer, times: TimeTable, wanted: float) -> Interval:
    """Refuse a network that no choice of ways makes as fast as wanted, before it is calibrated.

    Returns:
        How many times faster the network is where each layer is written in its fastest way.

    Raises:
        NothingToDoError: it is such.
    """
    fastest = times.fastest
    share = sum(found[None] for found in times.layers.values()) / times.whole
    where = f"{share:.0%} of the time is in layers that may be rewritten"
    if not fastest:
        raise NothingToDoError(f"low rank does not pay here: no layer gets faster; {where}")
    _, timed = timer.race([{}, fastest])
    best = timed.speedup
    if best.verdict != "faster":
        raise NothingToDoError(
            f"low rank does not pay here: with each layer in its fastest way the network is "
            f"{best.mid:.2f}x as fast ({best.low:.2f} to {best.high:.2f}); {where}"
        )
    if best.high < wanted:
        raise NothingToDoError(
            f"a speed-up of {wanted:.3g} can't be met: with each layer in its fastest way it is "
            f"{best.mid:.2f}x ({best.low:.2f} to {best.high:.2f}); {where}"
        )
    return best
