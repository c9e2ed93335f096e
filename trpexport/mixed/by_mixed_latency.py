"""Schemes, ranks and precisions by output error on images, within a limit on the time."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trpexport.artifact.reference import OnnxFile
from trpexport.artifact.settings import ExportSettings
from trpexport.artifact.variants import BlankForm
from trpexport.choose.base import CalibrationImages, Choice, calibrated_choice, gathered
from trpexport.choose.by_latency import ByLatency
from trpexport.choose.held_out import HeldOut
from trpexport.choose.judging import DropLimit, NetworkJudge
from trpexport.choose.prospects import least_ways
from trpexport.choose.table import LayerOptions, Option, SensitivityTable, sensitivity_table
from trpexport.errors import NothingToDoError, PlanError
from trpexport.inputs import Inputs
from trpexport.latency.blanks import Blanks, check_found
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable, time_layers
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval
from trpexport.mixed.between import prices
from trpexport.mixed.building import Builder, Built, FileNetwork
from trpexport.mixed.facts import mixed_facts
from trpexport.mixed.mix import whole
from trpexport.mixed.offer import Offer
from trpexport.mixed.places import Places, find_places
from trpexport.mixed.search import MixSearch
from trpexport.mixed.times import MixTimer, MixTimes, fit, probes, told
from trpexport.networks.base import Network
from trpexport.plan import PRECISIONS
from trpexport.quantization.wiring import INT8
from trpexport.stages import Stages

# Of the time of all layers: where int8 saves less in all layers together, conversions
# not counted, layers are not timed in it any further.
_WORTHWHILE = 0.02


@dataclass(frozen=True)
class ByMixedLatency:
    """Chooses as :class:`~trpexport.ByLatency`, and for each layer whether it is in int8.

    Its limit is one on the network in both precisions. What conversions between them take counts.
    The network in int8 alone, at full rank, is tried as well: what is chosen is never slower,
    where that keeps within the limit.

    Attributes:
        by_latency: the limit, the device and the layers.
    """

    by_latency: ByLatency

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""
        return self.by_latency.label

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""
        return self.by_latency.inputs

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: as :meth:`ByLatency.check`, or the provider has no int8.
        """
        self.by_latency.check()
        ExportSettings(precisions=(INT8,)).check(
            has_images=True, provider=self.by_latency.timekeeper.conditions.provider
        )

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
        with tempfile.TemporaryDirectory(prefix="trpexport-mixed-") as name:
            how, folder = self.by_latency, Path(name)
            job = _Job(how, network, images, stages=stages, label=label, folder=folder)
            return job.choice()


class _Job:
    """One choice on its way.

    Args:
        by_latency: the limit, the device and the layers.
        network: the network.
        images: what to calibrate on.
        stages: times and announces the stages.
        label: what the network is called.
        folder: where files go.
    """

    def __init__(
        self,
        by_latency: ByLatency,
        network: Network,
        images: CalibrationImages,
        *,
        stages: Stages,
        label: str | None,
        folder: Path,
    ) -> None:
        self._how = by_latency
        self._network = network
        self._images = images
        self._stages = stages
        self._label = label
        self._folder = folder
        self._stopwatch = by_latency.timekeeper_of(network)
        self._gatherer = gathered(network, images)
        batch = self._stopwatch.conditions.batch
        self._blanks = Blanks(network, folder, batch=batch)
        self._timer = MixTimer(self._blanks, self._stopwatch)

    def choice(self) -> Choice:
        """Time, choose, calibrate, quantize, measure.

        Raises:
            NothingToDoError: it can't be made faster, or the limit can't be met.
        """
        stages, timer = self._stages, self._timer
        with stages("time the layers"), Store(self._how.cache) as store:
            places = find_places(
                self._blanks.original, self._names, self._stopwatch.conditions.provider
            )
            (gain,) = timer.speedups([whole(places.layers, INT8)])
            stages.say(f"int8 alone runs {told(gain)} as fast")
            ways = self._how.ways(self._network)
            ways = {name: some for name, some in ways.items() if name in places.layers}
            if not places.layers:
                return self._in_float32(places, gain)
            tables = self._tables(store, least_ways(ways))
            if not _gains(*tables):
                return self._in_float32(places, gain)
            check_found(self._blanks, ways)
            stages.say("profile networks in two precisions")
            beside = prices(places, timer.between(places, probes(places)))
            best = self._checked(MixTimes(places, *tables, gain, beside), gain)
            times = MixTimes(places, *self._tables(store, ways), gain, beside)
            fit(times, timer)
        with stages("measure what each rank loses"):
            table = self._table()
        build = self._builder(table)
        with stages("measure what int8 loses"):
            alone = build(whole(places.layers, INT8))
        times.observe(alone.mix, alone.speedup)
        offer = Offer(times, table, alone.alone)
        search = MixSearch(offer, timer, build, stages.say)
        with stages("calibrate"):
            found = self._found(search, alone, times.latency)
        return self._chosen(found, alone, search, best)

    @property
    def _names(self) -> list[str]:
        """Names of the layers that can be timed."""
        return [layer.name for layer in self._network.layers if layer.name in self._blanks.layers]

    @cached_property
    def _judge(self) -> NetworkJudge | None:
        """Says what is lost by a metric, where that is the limit."""
        if self._how.drop is None:
            return None
        labelled = self._images.labelled()
        metric = self._how.metric_on(labelled.data)
        most = self._gatherer.watch.samples.max_batch
        return NetworkJudge(self._network, labelled, metric, max_batch=most)

    def _tables(
        self, store: Store, ways: Mapping[str, Sequence[Way]]
    ) -> tuple[TimeTable, TimeTable]:
        """Return what layers take where all is in float32, and where all is in int8."""
        forms = (None, BlankForm(INT8))
        timers = (Timer(self._blanks.into(form), self._stopwatch) for form in forms)
        float32, int8 = (time_layers(timer, ways, store, self._stages.say) for timer in timers)
        return float32, int8

    def _in_float32(self, places: Places, gain: Interval) -> Choice:
        """Choose ranks alone, as no layer gains by int8."""
        note = (
            f"all stays in float32: int8 alone runs {told(gain)} as fast as the original, and no "
            "layer gains by it here"
        )
        self._stages.remark(note)
        choice = self._how(self._network, self._images, self._stages, self._label)
        options = {**choice.plan.options, PRECISIONS: whole(places.layers).precisions}
        plan = replace(choice.plan, options=options)
        return replace(choice, plan=plan, notes=(*choice.notes, note))

    def _checked(self, times: MixTimes, gain: Interval) -> Interval:
        """Return how fast the network is at most.

        Raises:
            NothingToDoError: that is no faster than it is, or not as fast as was asked for.
        """
        fit(times, self._timer)
        fastest = Offer(times, _table_of(times), {}).least("seconds", math.inf)
        (best,) = self._timer.speedups([fastest])
        said = f"with each layer in its fastest way and precision it is {told(best)}"
        alone = f"int8 alone {told(gain)}"
        if best.verdict != "faster" and gain.verdict != "faster":
            raise NothingToDoError(f"neither low rank nor int8 pays here: {said}, {alone}")
        wanted = self._wanted(times.latency)
        if max(best.high, gain.high) < wanted:
            raise NothingToDoError(f"a speed-up of {wanted:.3g} can't be met: {said}, {alone}")
        self._stages.say(f"{said}, {alone}")
        return best

    def _wanted(self, latency: float) -> float:
        """Return the speed-up that is needed at least; 1 for any."""
        return max(1.0, self._how.wanted(latency) * self._how.beyond)

    def _table(self) -> SensitivityTable:
        try:
            return sensitivity_table(
                self._network,
                self._gatherer,
                scheme=self._how.scheme,
                selection=self._how,
                alignment=self._how.alignment,
                cache=self._how.cache,
                announce=self._stages.say,
            )
        except NothingToDoError:  # there is int8
            return SensitivityTable("", (), {})

    def _builder(self, table: SensitivityTable) -> Builder:
        kind, limit = self._how.limit
        settings = ExportSettings(precisions=(INT8,))
        quantization = replace(
            settings.quantization(self._images, self._network.inputs),
            provider=self._stopwatch.conditions.provider,
        )
        fits, ahead = self._how.fits(self._network, self._gatherer, self._folder, self._stages.say)
        return Builder(
            self._network,
            self._blanks,
            self._gatherer,
            table=table,
            quantization=quantization,
            timer=self._timer,
            store=fits,
            ahead=ahead,
            folder=self._folder,
            judge=self._judge,
            scheme=self._how.scheme,
            criterion=f"{kind}:{limit:.4g} in two precisions",
            selection=self._how,
            architecture=self._label,
            say=self._stages.say,
        )

    def _found(self, search: MixSearch, alone: Built, latency: float) -> Built:
        """Return what keeps within the limit.

        Raises:
            NothingToDoError: nothing does, or is measurably faster than the original.
        """
        kind, limit = self._how.limit
        try:
            if kind in ("speedup", "seconds"):
                found = search.to_speedup(self._wanted(latency), alone)
            else:
                error = limit if kind == "error" else None
                within = _within(kind, limit)
                found = search.to_limit(within, error, alone)
                found = search.preferred(found, alone, is_admitted=within(alone))
        except KeyboardInterrupt as interrupt:
            found = self._stages.settle_for(search.best, interrupt)
        if found.speedup.verdict != "faster":
            raise NothingToDoError(
                "the network within the limit is not measurably faster in either precision: "
                f"{told(found.speedup)}; int8 alone runs {told(alone.speedup)} as fast, at an "
                f"output error of {alone.error:.3f}"
            )
        return found

    def _chosen(self, found: Built, alone: Built, search: MixSearch, best: Interval) -> Choice:
        kind, limit = self._how.limit
        offer, judge = search.offer, self._judge
        times = offer.times
        facts: dict[str, Any] = {"target": {"kind": kind, "value": limit}}
        facts["latency"] = {
            **self._stopwatch.facts(),
            **({"precision": INT8} if found.mix.has_int8 else {}),
            "gain": Interval(1.0, 1.0, 1.0).to_json(),
            "speedup": found.speedup.to_json(),
            "predicted_speedup": search.foreseen(found),
            "best_speedup": best.to_json(),
            "seconds_before": times.latency,
            "seconds": times.latency / found.speedup.mid,
            "deviation": times.deviation,
            "networks_profiled": times.measured,
            "mixed": mixed_facts(found, alone, offer),
        }
        drop = None
        if judge is not None and kind == "drop":
            file = OnnxFile(found.file, self._stopwatch.conditions.provider)
            facts["judged"] = judge.facts(FileNetwork(file, self._network.outputs))
            drop = DropLimit(judge, limit)
        held_out = HeldOut.of(self._network, self._images)
        choice = calibrated_choice(self._network, found.calibrated, self._images, held_out, facts)
        options = {
            **choice.plan.options,
            **self._how.alignment.to_json(),
            PRECISIONS: dict(found.mix.precisions),
        }
        return replace(
            choice,
            plan=replace(choice.plan, options=options),
            notes=(*choice.notes, *search.doubts(found)),
            drop=drop,
        )


def _within(kind: str, limit: float) -> Callable[[Built], bool]:
    def holds(built: Built) -> bool:
        value = built.error if kind == "error" else built.drop
        return value is not None and value <= limit

    return holds


def _gains(float32: TimeTable, int8: TimeTable) -> bool:
    """Whether layers as they are gain anything by int8, conversions not counted."""
    before = float32.original
    saved = sum(max(0.0, taken - int8.original.get(name, taken)) for name, taken in before.items())
    return saved > _WORTHWHILE * sum(before.values())


def _table_of(times: MixTimes) -> SensitivityTable:
    """Return a table in which no way loses anything."""
    layers = []
    for name in times.places.layers:
        ways = sorted(way for way in times.ways(name) if way is not None)
        options = [Option(way.scheme, way.rank, {}, 0.0) for way in ways]
        layers.append(LayerOptions(name, {}, (Option(None, None, {}, 0.0), *options)))
    return SensitivityTable("", tuple(layers), {})
