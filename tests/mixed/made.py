"""Tables of times and losses of a network that is not there, and a machine that knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from trpexport.bundle import FLOAT32
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.latency.timetable import TimeTable
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval
from trpexport.mixed.between import Between, prices
from trpexport.mixed.building import Built
from trpexport.mixed.mix import Mix
from trpexport.mixed.offer import Offer
from trpexport.mixed.places import Places
from trpexport.mixed.times import MixTimer, MixTimes, probes
from trpexport.ops import LinearOp, Window

INT8 = "int8"
HALF, QUARTER = Way("channel", 8), Way("spatial", 8)
PARTS = {None: 1.0, HALF: 0.5, QUARTER: 0.25}  # of the time of a layer
OP = LinearOp(16, 16, window=Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)))


@dataclass
class Row:
    """Layers one behind the other, each of 10 of 100 seconds in float32.

    Attributes:
        int8: what each takes in int8.
        errors: what each loses in int8 alone.
        low_rank: squared error of each at half its rank, in which it takes half as long.
        conversion: what a conversion takes, whatever its size.
        back: what one back to float32 takes; the same where it is None.
        profiled: how many times as long profiles say that conversions take.
    """

    int8: Sequence[float]
    errors: Sequence[float]
    low_rank: float = 0.01
    conversion: float = 0.0
    back: float | None = None
    profiled: float = 1.0
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = [f"layer{index}" for index in range(len(self.int8))]

    @property
    def places(self) -> Places:
        count = len(self.names)
        ends = [None, *range(count), None]
        return Places(
            tuple(self.names),
            (),
            (),
            tuple((ends[i], (ends[i + 1],), 1000) for i in range(count + 1)),
            (),
        )

    def seconds(self, mix: Mix) -> float:
        """Return what a network really takes."""
        total = 100.0 - 10 * len(self.names)
        for name, int8 in zip(self.names, self.int8, strict=True):
            precision = mix.precisions.get(name, FLOAT32)
            part = int8 if precision == INT8 else 10.0
            total += part * PARTS[mix.ways.get(name)]
        return total + sum(self.converted(mix).values())

    def converted(self, mix: Mix) -> dict[int | None, float]:
        """Return by place what conversions behind it really take."""
        kinds = [FLOAT32, *(mix.precisions.get(name, FLOAT32) for name in self.names), FLOAT32]
        out = self.conversion if self.back is None else self.back
        places = [None, *range(len(self.names))]
        return {
            place: self.conversion if before == FLOAT32 else out
            for place, (before, after) in zip(places, pairwise(kinds), strict=True)
            if before != after
        }

    def between(self, mix: Mix) -> Between:
        """Return what a profile tells of what lies between the layers."""
        behind = {
            place: self.profiled * seconds / 100 for place, seconds in self.converted(mix).items()
        }
        return Between(self.places.inside(mix.precisions), {}, behind)

    def speedup(self, mix: Mix) -> Interval:
        found = 100 / self.seconds(mix)
        return Interval(found, found, found)

    def table(self, seconds: Sequence[float], whole: float) -> TimeTable:
        layers: dict[str, dict[Way | None, float]] = {
            name: {None: one, HALF: one / 2, QUARTER: one / 4}
            for name, one in zip(self.names, seconds, strict=True)
        }
        return TimeTable(
            latency=whole,
            whole=whole,
            layers=layers,
            original=dict(zip(self.names, seconds, strict=True)),
            ops=dict.fromkeys(self.names, OP),
            deviation=0.0,
        )

    def times(self) -> MixTimes:
        """Return what profiles tell, and of whole networks those in one precision."""
        all_int8 = Mix({}, dict.fromkeys(self.names, INT8))
        return MixTimes(
            self.places,
            self.table([10.0] * len(self.names), 100.0),
            self.table(self.int8, self.seconds(all_int8)),
            self.speedup(all_int8),
            prices(self.places, [self.between(mix) for mix in probes(self.places)]),
        )

    def losses(self) -> SensitivityTable:
        options = (Option(None, None, {}, 0.0), Option("channel", 8, {}, self.low_rank))
        layers = [LayerOptions(name, {"channel": 1.0}, options) for name in self.names]
        return SensitivityTable("", tuple(layers), {})

    def offer(self) -> Offer:
        return Offer(self.times(), self.losses(), dict(zip(self.names, self.errors, strict=True)))

    def built(self, mix: Mix, times_worse: float = 1.0) -> Built:
        """Return a network whose error is so many times as large as the table says."""
        error = self.low_rank * len(mix.ways) + sum(
            (2 if name in mix.ways else 1) * one**2
            for name, one in zip(self.names, self.errors, strict=True)
            if mix.precisions.get(name) == INT8
        )
        return Built(
            mix, cast(Any, None), Path(str(mix)), times_worse * error**0.5, self.speedup(mix)
        )


class Truth(MixTimer):
    """Says what networks of a row really take."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.raced: Mapping[str, Interval] = {}

    def speedups(self, mixes: Sequence[Mix]) -> list[Interval]:
        return [self._row.speedup(mix) for mix in mixes]

    def race(self, files: Sequence[Path], base: Path | None = None) -> list[Interval]:
        return [self.raced[str(file)] for file in files]
