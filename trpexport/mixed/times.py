"""What a network in two precisions takes: layers as profiled, what lies between them as fitted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from trpexport.bundle import FLOAT32
from trpexport.choose.seams import Entry
from trpexport.latency.blanks import Blanks
from trpexport.latency.stopwatch import Stopwatch
from trpexport.latency.timer import RACE_SECONDS
from trpexport.latency.timetable import TimeTable
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval
from trpexport.mixed.mix import Mix, whole
from trpexport.mixed.places import Places
from trpexport.quantization.wiring import INT8

# Networks of which some layers are in int8, by which the price of conversions is found: every
# other layer, so that there are many, and halves, so that there are few.
_SHARES = 2


class MixTimes:
    """What layers take in each way and precision, as shares of the time of the original network.

    What a conversion costs for each number, and what int8 gains or loses beside the layers, no
    profile tells: least squares find both from whole networks that were timed.

    Args:
        places: the layers, and what follows them.
        float32: times of layers in float32.
        int8: times of layers where all is in int8.
        gain: how many times faster that whole network is.

    Attributes:
        places: as it was given.
        seam: what the conversion of a number takes.
        follower: what a number takes more in int8 in what follows the layers.
        fixed: what all takes that is no layer, in float32.
        latency: seconds of a run of the original network.
        ops: the operators of the layers.
        deviation: median relative error of the times of layers.
        measured: how many networks were profiled.
    """

    def __init__(self, places: Places, float32: TimeTable, int8: TimeTable, gain: Interval) -> None:
        self.places = places
        self.deviation = max(float32.deviation, int8.deviation)
        self.latency = float32.latency
        self.measured = float32.measured + int8.measured
        self.ops = float32.ops
        self._shares = {
            FLOAT32: _shares(float32, 1 / float32.whole if float32.whole else 0.0),
            INT8: _shares(int8, 1 / (int8.whole * gain.mid) if int8.whole else 0.0),
        }
        self.fixed = 1 - sum(self.share(name, None, FLOAT32) or 0.0 for name in places.layers)
        self.seam = self.follower = 0.0
        self._seen: list[tuple[Mix, float]] = [(whole(places.layers, INT8), 1 / gain.mid)]
        self._fit()

    def share(self, layer: str, way: Way | None, precision: str) -> float | None:
        """Return what a layer takes; None where that is not known."""
        return self._shares[precision].get(layer, {}).get(way)

    def ways(self, layer: str) -> list[Way | None]:
        """Return the ways to write a layer whose times are known in any precision."""
        return [*{way for some in self._shares.values() for way in some.get(layer, {})}]

    def predicted(self, mix: Mix) -> float:
        """Return what a network takes."""
        parts, followed, converted = self._amounts(mix)
        return parts + self.follower * followed + self.seam * converted

    def observe(self, mix: Mix, speedup: Interval) -> None:
        """Take in how many times faster than the original a network is."""
        self._seen.append((mix, 1 / speedup.mid))
        self._fit()

    def probes(self) -> list[Mix]:
        """Return networks that tell what conversions cost."""
        layers = self.places.layers
        half = len(layers) // 2
        chosen = [layers[start::_SHARES] for start in range(_SHARES)] + [
            layers[:half],
            layers[half:],
        ]
        return [
            Mix({}, {name: INT8 if name in some else FLOAT32 for name in layers})
            for some in chosen
            if some and len(some) < len(layers)
        ]

    def _amounts(self, mix: Mix) -> tuple[float, float, float]:
        """Return what layers take, and how many numbers followers give and seams convert."""
        entries = []
        for name in self.places.layers:
            precision = mix.precisions.get(name, FLOAT32)
            share = self.share(name, mix.ways.get(name), precision)
            entries.append([Entry(precision == INT8, share or 0.0, 0.0)])
        only = [0] * len(entries)
        parts = self.places.program(entries, fixed=self.fixed).sums(only).seconds
        bare = [[Entry(one.is_int8, 0.0, 0.0)] for (one,) in entries]
        followed = self.places.program(bare, follower=1.0).sums(only).seconds
        converted = self.places.program(bare, seam=1.0).sums(only).seconds
        return parts, followed, converted

    def _fit(self) -> None:
        """Find what a number costs where it is converted, at least nothing, and in followers."""
        amounts = [self._amounts(mix) for mix, _ in self._seen]
        rest = np.array([taken for _, taken in self._seen]) - [parts for parts, _, _ in amounts]
        numbers = np.array([[followed, converted] for _, followed, converted in amounts])
        self.follower, self.seam = _least_squares(numbers, rest)
        if self.seam < 0:
            self.seam = 0.0
            (self.follower,) = _least_squares(numbers[:, :1], rest)


def _least_squares(numbers: NDArray[np.float64], rest: NDArray[np.float64]) -> list[float]:
    scale = np.maximum(np.abs(numbers).max(axis=0), 1.0)
    found = np.linalg.lstsq(numbers / scale, rest, rcond=None)[0]
    return [float(one) for one in found / scale]


def _shares(table: TimeTable, unit: float) -> dict[str, dict[Way | None, float]]:
    """Return the times of a table in other units, those of layers that stay included."""
    found: dict[str, dict[Way | None, float]] = {}
    for name, seconds in table.original.items():
        found[name] = {None: unit * seconds}
        found[name] |= {way: unit * one for way, one in table.layers.get(name, {}).items()}
    return found


class MixTimer:
    """Times networks in two precisions beside the original one, each once.

    Args:
        blanks: writes them, in float32.
        stopwatch: times them.
    """

    def __init__(self, blanks: Blanks, stopwatch: Stopwatch) -> None:
        self._blanks = blanks
        self._stopwatch = stopwatch
        self._known: dict[tuple[object, ...], Interval] = {}

    def speedups(self, mixes: Sequence[Mix]) -> list[Interval]:
        """Return how many times faster than the original networks are, timed in turns with it.

        Raises:
            TrpexportError: one can't be run.
        """
        missing = {mix.key: mix for mix in mixes if mix.key not in self._known}
        with TemporaryDirectory(prefix="trpexport-latency-") as folder:
            files = [Path(folder) / f"mix{number}.onnx" for number in range(len(missing))]
            for file, mix in zip(files, missing.values(), strict=True):
                self._blanks.into(mix.form).write(file, mix.ways)
            if missing:
                timed = self.race(files)
                self._known |= dict(zip(missing, timed, strict=True))
        return [self._known[mix.key] for mix in mixes]

    def race(self, files: Sequence[Path], base: Path | None = None) -> list[Interval]:
        """Return how many times faster than another file files are, timed in turns with it.

        Args:
            files: they.
            base: the other file; the original network where it is None.

        Raises:
            TrpexportError: one can't be run.
        """
        raced = self._stopwatch.race([base or self._blanks.original, *files], RACE_SECONDS)
        return [one.speedup for one in raced[1:]]


def fit(times: MixTimes, timer: MixTimer) -> None:
    """Have times tell whole networks as they are.

    Raises:
        TrpexportError: one can't be run.
    """
    probes = times.probes()
    for mix, speedup in zip(probes, timer.speedups(probes), strict=True):
        times.observe(mix, speedup)


def told(speedup: Interval) -> str:
    """Return a speed-up with its interval, for messages."""
    return f"{speedup.mid:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})"
