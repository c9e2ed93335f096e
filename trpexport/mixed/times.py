"""What a network in two precisions takes: layers and what lies between them, each as profiled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trpexport.bundle import FLOAT32
from trpexport.choose.seams import Entry, Follower, Program, Seam
from trpexport.latency.blanks import Blanks
from trpexport.latency.stopwatch import Stopwatch
from trpexport.latency.timer import RACE_SECONDS
from trpexport.latency.timetable import TimeTable, profiled_runs
from trpexport.latency.ways import Way
from trpexport.measure.statistics import Interval
from trpexport.mixed.between import Between, Prices, spent_between
from trpexport.mixed.mix import Mix, whole
from trpexport.mixed.places import Places
from trpexport.quantization.wiring import INT8

# Networks of which some layers are in int8, by which prices are found: every other layer, so that
# there are many conversions, and halves, so that there are few.
_SHARES = 2
# How far a price may be off, relative to it: that of a layer, and that of anything else. How exact
# the time of a whole network is.
_LAYER, _OTHER, _EXACT = 0.1, 0.5, 0.002

Part = tuple[str, object]
"""Something that takes time: its kind, and which of that kind it is."""


class MixTimes:
    """What layers take in each way and precision, as shares of the time of the original network.

    Profiles say what each part of a network takes. Where whole networks take something else, prices
    are corrected: those of a kind together and each by itself, as little as possible in relation to
    how far they may be off, so that what was measured comes out. It is the best linear prediction
    (kriging) if errors of prices are independent.

    Args:
        places: the layers, and what follows them.
        float32: times of layers in float32.
        int8: times of layers where all is in int8.
        gain: how many times faster that whole network is.
        beside: what precisions cost beside the layers, as shares too.

    Attributes:
        places: as it was given.
        latency: seconds of a run of the original network.
        ops: the operators of the layers.
        deviation: median relative error of the times of layers.
        measured: how many networks were profiled.
    """

    def __init__(
        self,
        places: Places,
        float32: TimeTable,
        int8: TimeTable,
        gain: Interval,
        beside: Prices,
    ) -> None:
        self.places = places
        self.deviation = max(float32.deviation, int8.deviation)
        self.latency = float32.latency
        self.measured = float32.measured + int8.measured
        self.ops = float32.ops
        behind = dict(zip(places.layers, beside.int8, strict=False))
        self._shares = {
            FLOAT32: _shares(float32, 1 / float32.whole if float32.whole else 0.0, {}),
            INT8: _shares(int8, 1 / (int8.whole * gain.mid) if int8.whole else 0.0, behind),
        }
        layers = sum(self._shares[FLOAT32].get(name, {}).get(None, 0.0) for name in places.layers)
        self._others: dict[Part, float] = {
            ("fixed", None): 1 - layers,
            **{("follower", i): one for i, one in enumerate(beside.int8[len(places.layers) :])},
            **{("into", flow): one for flow, one in enumerate(beside.into)},
            **{("out", flow): one for flow, one in enumerate(beside.out)},
        }
        self._off: Mapping[object, float] = {}
        self._seen: list[tuple[Mapping[Part, float], float]] = []
        self.observe(whole(places.layers), Interval(1.0, 1.0, 1.0))
        self.observe(whole(places.layers, INT8), gain)

    def share(self, layer: str, way: Way | None, precision: str) -> float | None:
        """Return what a layer takes; None where that is not known."""
        price = self._shares[precision].get(layer, {}).get(way)
        return None if price is None else self._corrected(_layer(layer, way, precision), price)

    def ways(self, layer: str) -> list[Way | None]:
        """Return the ways to write a layer whose times are known in any precision."""
        return [*{way for some in self._shares.values() for way in some.get(layer, {})}]

    def program(self, entries: Sequence[Sequence[Entry]], errors: Sequence[float] = ()) -> Program:
        """Return the choice among entries of the layers.

        Args:
            entries: of each layer.
            errors: what each follower adds to the squared error in int8; nothing where empty.
        """
        price = {part: self._corrected(part, one) for part, one in self._others.items()}
        places = self.places
        return Program(
            entries,
            [
                Follower(sources, price["follower", i], error)
                for i, (sources, error) in enumerate(
                    zip(places.sources, errors or [0.0] * len(places.sources), strict=True)
                )
            ],
            [
                Seam(source, users, price["into", flow], price["out", flow])
                for flow, (source, users, _) in enumerate(places.flows)
            ],
            price["fixed", None],
        )

    def predicted(self, mix: Mix) -> float:
        """Return what a network takes."""
        return sum(self._corrected(part, one) for part, one in self._parts(mix).items())

    def conversions(self, mix: Mix) -> float:
        """Return what conversions take in a network."""
        return sum(
            self._corrected(part, one)
            for part, one in self._parts(mix).items()
            if part[0] in ("into", "out")
        )

    def observe(self, mix: Mix, speedup: Interval) -> None:
        """Take in how many times faster than the original a network is."""
        self._seen.append((self._parts(mix), 1 / speedup.mid))
        # A column a part and a column a kind: what each takes in a network if it is off by as much
        # as it may be.
        columns: dict[object, int] = {}
        rows = []
        for parts, _ in self._seen:
            row: dict[int, float] = defaultdict(float)
            for part, price in parts.items():
                for key in (part, part[0]):
                    row[columns.setdefault(key, len(columns))] += price * _doubt(part)
            rows.append(row)
        features = np.zeros((len(rows), len(columns)))
        for index, row in enumerate(rows):
            features[index, [*row]] = [*row.values()]
        taken = np.array([one for _, one in self._seen])
        rest = taken - [sum(parts.values()) for parts, _ in self._seen]
        noise = np.diag((_EXACT * taken) ** 2)
        off = features.T @ np.linalg.solve(features @ features.T + noise, rest)
        self._off = {key: float(off[column]) for key, column in columns.items()}

    def fastest(self) -> list[Mix]:
        """Return the networks with each layer in its fastest way, one in each precision."""
        found = []
        for precision, shares in self._shares.items():
            best = {
                name: min(shares[name], key=shares[name].__getitem__)
                for name in self.places.layers
                if name in shares
            }
            ways = {name: way for name, way in best.items() if way is not None}
            found.append(replace(whole(self.places.layers, precision), ways=ways))
        return [mix for mix in found if mix.ways]

    def _corrected(self, part: Part, price: float) -> float:
        off = self._off.get(part, 0.0) + self._off.get(part[0], 0.0)
        return price * max(0.0, 1 + off * _doubt(part))

    def _parts(self, mix: Mix) -> dict[Part, float]:
        """Return what each part of a network takes by the profiles alone."""
        places = self.places
        inside = places.inside(mix.precisions)
        layers = len(places.layers)
        found: list[Part] = [("fixed", None)]
        found += [("follower", i) for i in range(len(places.followers)) if layers + i in inside]
        for flow in places.converted(inside):
            found.append(("out" if places.flows[flow][0] in inside else "into", flow))
        parts = {part: self._others[part] for part in found}
        for name in places.layers:
            way, precision = mix.ways.get(name), mix.precisions.get(name, FLOAT32)
            price = self._shares[precision].get(name, {}).get(way, 0.0)
            parts[_layer(name, way, precision)] = price
        return parts


def _layer(name: str, way: Way | None, precision: str) -> Part:
    return f"{'layer' if way is None else 'chain'} in {precision}", (name, way)


def _doubt(part: Part) -> float:
    """Return how far the price of a part may be off, relative to it."""
    return _OTHER if part[0] in ("follower", "into", "out") else _LAYER


def _shares(
    table: TimeTable, unit: float, behind: Mapping[str, float]
) -> dict[str, dict[Way | None, float]]:
    """Return the times of a table in other units, with what is behind layers, of all layers."""
    return {
        name: {
            way: max(0.0, unit * one + behind.get(name, 0.0))
            for way, one in {None: seconds, **table.layers.get(name, {})}.items()
        }
        for name, seconds in table.original.items()
    }


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
        if missing:
            with self._written(missing.values()) as (files, _):
                self._known |= dict(zip(missing, self.race(files), strict=True))
        return [self._known[mix.key] for mix in mixes]

    def between(self, places: Places, mixes: Sequence[Mix]) -> list[Between]:
        """Return what networks spend outside their layers, as shares of the original's time.

        Raises:
            TrpexportError: one can't be run.
        """
        with self._written(mixes) as (files, owners):
            timed = self._stopwatch.race([self._blanks.original, *files], RACE_SECONDS)
            self._known |= {mix.key: one.speedup for mix, one in zip(mixes, timed[1:], strict=True)}
            runs = profiled_runs(timed[0].seconds)
            return [
                spent_between(
                    profile,
                    file,
                    own,
                    places,
                    inside=places.inside(mix.precisions),
                    whole=1 / self._known[mix.key].mid,
                )
                for profile, file, own, mix in zip(
                    self._stopwatch.profiles(files, runs), files, owners, mixes, strict=True
                )
            ]

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

    @contextmanager
    def _written(self, mixes: Collection[Mix]) -> Iterator[tuple[list[Path], list[dict[str, str]]]]:
        """Write networks for as long as the block lasts."""
        with TemporaryDirectory(prefix="trpexport-latency-") as folder:
            files = [Path(folder) / f"mix{number}.onnx" for number in range(len(mixes))]
            yield (
                files,
                [
                    self._blanks.into(mix.form).write(file, mix.ways)
                    for file, mix in zip(files, mixes, strict=True)
                ],
            )


def probes(places: Places) -> list[Mix]:
    """Return networks that tell what lies between layers of one precision, and of both."""
    layers = places.layers
    half = len(layers) // 2
    parts = [layers[start::_SHARES] for start in range(_SHARES)] + [layers[:half], layers[half:]]
    return [
        Mix({}, {name: INT8 if name in some else FLOAT32 for name in layers})
        for some in ((), layers, *(some for some in parts if 0 < len(some) < len(layers)))
    ]


def fit(times: MixTimes, timer: MixTimer) -> None:
    """Have times tell a few whole networks as they are.

    Raises:
        TrpexportError: one can't be run.
    """
    known = [*probes(times.places), *times.fastest()]
    for mix, speedup in zip(known, timer.speedups(known), strict=True):
        times.observe(mix, speedup)


def told(speedup: Interval) -> str:
    """Return a speed-up with its interval, for messages."""
    return f"{speedup.mid:.2f}x ({speedup.low:.2f} to {speedup.high:.2f})"
