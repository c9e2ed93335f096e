"""Schemes and ranks by output error on images, within a limit on the time on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trpexport.choose.alignment import AUTO, AlignedSelection, Alignment, find_alignment
from trpexport.choose.base import CalibrationImages, Choice, calibrated_choice, gathered
from trpexport.choose.budget import BISECTIONS, Budgeter
from trpexport.choose.by_budget import with_shares
from trpexport.choose.candidates import candidate_ranks
from trpexport.choose.estimate import calibration_seconds, measured_pace
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.choose.held_out import HeldOut
from trpexport.choose.judging import DropLimit, NetworkJudge
from trpexport.choose.limits import check_drop, only_limit
from trpexport.choose.on_ray import OnRay
from trpexport.choose.prices import SECONDS
from trpexport.choose.prospects import check_pays, least_ways
from trpexport.choose.speedup import SpeedupSearch
from trpexport.choose.table import sensitivity_table
from trpexport.errors import NothingToDoError, PlanError
from trpexport.inputs import Inputs
from trpexport.judge.examples import find_judge
from trpexport.judge.metrics import Metric
from trpexport.latency.alone import AloneStopwatch
from trpexport.latency.blanks import Blanks, Form, check_found
from trpexport.latency.on_ray import RayStopwatch
from trpexport.latency.stopwatch import Conditions, LocalStopwatch, Stopwatch
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable, time_layers
from trpexport.latency.ways import Way
from trpexport.lowrank.schemes import SCHEMES
from trpexport.measure.statistics import Interval
from trpexport.networks.base import Network
from trpexport.plan import Plan
from trpexport.stages import Stages, duration


class AlreadyFastError(NothingToDoError):
    """A network is as fast as was asked for as it is, in the precision that is timed."""


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
        form: what networks are turned into before they are timed; None for float32. A speed-up
            is over the original network in float32 all the same; errors are those of the network
            before it is turned into anything.
        beyond: how many times as fast as the limit says networks are aimed at, where their files
            turn out slower than what they are chosen by.
        cache: folder where tables of times and of what layers lose are kept, and fitted layers, so
            that a job that was stopped goes on; None for nowhere.
        cluster: calibrates networks, several at the same time; None for this process.
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
    form: Form | None = None
    beyond: float = 1.0
    cache: str | Path | None = None
    cluster: OnRay | None = None
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
        kind, limit = self.limit
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
            check_drop(limit, self.metric_on())
        elif self.metric is not None:
            raise PlanError("a metric says what a drop is of: give a drop, or leave it out")
        _ = self.alignment
        self.timekeeper.check()
        if self.scheme != "auto":
            _ = SCHEMES[self.scheme]

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Raises:
            AlreadyFastError: it is fast enough as it is in the precision that is timed.
            NothingToDoError: it can't be made faster, or the limit can't be met; the message says
                what the best is.
            TrpexportError: as :meth:`check`, or there are no images, or their labels do not fit,
                or the network can't be run under the conditions.
        """
        self.check()
        if images is None:
            raise PlanError("ranks are chosen by output error on images: give some")
        labelled = images.labelled() if self.drop is not None else None
        metric = None if labelled is None else self.metric_on(labelled.data)
        gatherer = gathered(network, images)
        held_out = HeldOut.of(network, images)
        stopwatch = self.timekeeper_of(network)
        with tempfile.TemporaryDirectory(prefix="trpexport-latency-") as name:
            batch = stopwatch.conditions.batch
            timer = Timer(Blanks(network, Path(name), batch=batch, form=self.form), stopwatch)
            with stages("time the layers"), Store(self.cache) as store:
                gain, best, times = self._timed(network, gatherer, timer, store, stages)
            with stages("measure what each rank loses"):
                table = sensitivity_table(
                    network,
                    gatherer,
                    scheme=self.scheme,
                    selection=self,
                    alignment=self.alignment,
                    cache=self.cache,
                    announce=stages.say,
                ).priced(SECONDS, times.whole, times.layers)
            fits, ahead = self.fits(network, gatherer, Path(name), stages.say)
            budgeter = Budgeter(
                network,
                table,
                gatherer,
                scheme=self.scheme,
                selection=self,
                architecture=label,
                resource=SECONDS,
                store=fits,
                ahead=ahead,
                announce=stages.say,
            )
            search = SpeedupSearch(timer, times, table, budgeter, stages.say)
            facts: dict[str, Any] = {}
            drop = None
            if labelled is not None and self.drop is not None:
                most = gatherer.watch.samples.max_batch
                judge = NetworkJudge(network, labelled, metric, max_batch=most)
                drop = DropLimit(judge, self.drop)
            with stages("calibrate"):
                try:
                    if drop is not None:
                        outcome = budgeter.to_drop(judge.loss, drop.limit, judge.unit)
                    elif self.error is not None:
                        outcome = budgeter.to_error(self.error, held_out.errors)
                    else:
                        outcome = search.to_speedup(self.beyond * self._needed(times.latency, gain))
                except KeyboardInterrupt as interrupt:
                    outcome = stages.settle_for(search.best or budgeter.best, interrupt)
                if drop is not None:
                    facts["judged"] = judge.facts(network.rewritten(outcome.calibrated.chains))
                measured = search.measured(outcome)
        kind, limit = self.limit
        facts["target"] = {"kind": kind, "value": limit}
        facts["layers"] = with_shares(table, outcome)
        facts["latency"] = {
            **timer.facts(),
            "gain": gain.to_json(),
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
        return replace(choice, plan=replace(choice.plan, options=options), drop=drop)

    def on_cluster(
        self, address: str, say: Callable[[str], None], label: str | None = None
    ) -> ByLatency:
        """Return the same, for which a cluster calibrates; what is timed there or here, is alone.

        Args:
            address: of the cluster; ``auto`` for the one that runs here.
            say: called with a line where this machine is at work, and a timing has to wait.
            label: the resource of the nodes that time; None for who times without a cluster.
        """
        timekeeper = self.timekeeper
        if label is not None:
            timekeeper = RayStopwatch(timekeeper.conditions, address, label)
        elif isinstance(timekeeper, LocalStopwatch):
            timekeeper = AloneStopwatch(timekeeper, say)
        return replace(self, cluster=OnRay(address), stopwatch=timekeeper)

    @property
    def timekeeper(self) -> Stopwatch:
        """Who times networks."""
        return self.stopwatch or LocalStopwatch(self.conditions)

    def timekeeper_of(self, network: Network) -> Stopwatch:
        """Return who times a network, at the sizes it has here where its file leaves them open."""
        is_open = any(network.dynamic.values())
        return self.timekeeper.at(network.inputs) if is_open else self.timekeeper

    @property
    def limit(self) -> tuple[str, float]:
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

    def metric_on(self, data: str = "the data") -> Metric | None:
        """Return what a drop is of; None for images whose class is right.

        Args:
            data: what networks are judged on, as the user typed it.

        Raises:
            TrpexportError: there is no such metric, or raw tensors come without one.
        """
        return find_judge(data, self.metric, lower_is_better=self.lower_is_better)

    def fits(
        self, network: Network, gatherer: Gatherer, folder: Path, say: Callable[[str], None]
    ) -> tuple[FitStore, Callable[[Sequence[Plan]], None]]:
        """Return what keeps fitted layers, and what has those of plans fitted ahead, if anyone.

        Args:
            network: the original network.
            gatherer: of it, on the images.
            folder: takes what a cluster fits where there is no cache.
            say: called with a line on what is going on.
        """
        samples, cluster = gatherer.watch.samples, self.cluster
        if cluster is None:
            return FitStore(self.cache, network, samples), lambda plans: None
        store = FitStore(self.cache or folder, network, samples)
        return store, lambda plans: cluster.fit(network, samples, plans, store, say)

    def wanted(self, whole: float) -> float:
        """Return the speed-up that is needed at least, given what the network takes as it is."""
        if self.speedup is not None:
            return self.speedup
        return 1.0 if self.seconds is None else max(1.0, whole / self.seconds)

    def _timed(
        self, network: Network, gatherer: Gatherer, timer: Timer, store: Store, stages: Stages
    ) -> tuple[Interval, Interval, TimeTable]:
        """Return what the precision gains, what ranks can at most, and what layers take.

        Raises:
            NothingToDoError: the limit can't be met, or the network is fast enough as it is.
        """
        ways = self.ways(network)
        check_found(timer.blanks, ways)
        gain = timer.gain()
        bound = time_layers(timer, least_ways(ways), store, stages.say).fitted(timer)
        best = check_pays(timer, bound, self._needed(bound.latency, gain), stages.say)
        stages.say(f"calibration: {self._forecast(network, ways, gatherer)}")
        times = time_layers(timer, ways, store, stages.say).fitted(timer)
        return gain, best, replace(times, measured=bound.measured + times.measured)

    def _needed(self, latency: float, gain: Interval) -> float:
        """Return the speed-up that is needed at least over the network in what is timed.

        Args:
            latency: seconds of that network.
            gain: how many times faster it is than in float32.

        Raises:
            AlreadyFastError: none is.
        """
        if self.speedup is None and self.seconds is None:
            return 1.0
        wanted = self.wanted(latency * gain.mid) / gain.mid
        if self.form is not None and wanted <= 1:
            raise AlreadyFastError(
                f"the network as it is runs {gain.mid:.2f}x as fast in {self.form.name}, which is "
                "what was asked for: write it in that precision, without ranks"
            )
        return max(1.0, wanted)

    def _forecast(
        self, network: Network, ways: Mapping[str, Sequence[Way]], gatherer: Gatherer
    ) -> str:
        """Say how long the layers are going to be fitted, the table of what they lose included."""
        names = [name for name, some in ways.items() if some]
        schemes = {way.scheme for some in ways.values() for way in some}
        images, pace = len(gatherer.watch.samples), measured_pace()
        count = {"speedup": 2, "seconds": 2}.get(self.limit[0], BISECTIONS)
        first = calibration_seconds(
            network, names, images, schemes=len(schemes), passes=1, pace=pace
        )
        then = calibration_seconds(network, names, images, pace=pace)
        return f"about {duration(first + count * then)} on {images} images"

    def ways(self, network: Network) -> dict[str, list[Way]]:
        """Return the ways to write each layer that may be rewritten."""
        names = list(SCHEMES) if self.scheme == "auto" else [self.scheme]
        reasons = {name: self.reasons_to_stay(network, SCHEMES[name]) for name in names}
        return {
            layer.name: [
                Way(name, rank)
                for name in names
                if reasons[name][layer.name] is None
                for rank in candidate_ranks(SCHEMES[name], layer, self.alignment)
            ]
            for layer in network.layers
        }
