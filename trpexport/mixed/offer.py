"""What to choose from: ways and precisions of each layer, with what they take and lose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from trpexport.bundle import FLOAT32
from trpexport.choose.budget import OTHER_SCHEME
from trpexport.choose.seams import Entry, Program, Scarce, Sums
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.errors import NothingToDoError
from trpexport.latency.ways import Way
from trpexport.mixed.mix import Mix
from trpexport.mixed.times import MixTimes
from trpexport.quantization.wiring import INT8

_WHOLE = Option(None, None, {}, 0.0)


class Offer:
    """Chooses a way and a precision of each layer, by what was measured so far.

    Squared errors add up: that of low rank, and that of int8, which each factor of a chain makes
    anew, as long as nobody has measured what it makes.

    Args:
        times: what each takes.
        table: what low rank loses.
        alone: by unit of the network as it is, the error of its output where that alone is in int8.
    """

    def __init__(
        self, times: MixTimes, table: SensitivityTable, alone: Mapping[str, float]
    ) -> None:
        self.times = times
        known = {layer.name: layer for layer in table.layers}
        bare = {name: LayerOptions(name, {}, (_WHOLE,)) for name in times.places.layers}
        self._layers = {name: known.get(name, one) for name, one in bare.items()}
        self._schemes = table.schemes
        self._alone = {name: error**2 for name, error in alone.items()}
        self._measured: dict[str, float] = {}
        self._base: str | None = None

    def least(self, what: Scarce, within: float) -> Mix:
        """Return the network that takes, or loses, least while it does not lose, or take, too much.

        Args:
            what: is to be least.
            within: the squared error, or the share of the original's time, that is allowed.

        Raises:
            NothingToDoError: none is within the limit.
        """
        if self._base is None and len(self._schemes) > 1 and math.isfinite(within):
            self._base = self._best_scheme(what, within)
        return self._solved(self._offered(), what, within)

    def predicted(self, mix: Mix) -> Sums:
        """Return the share of the time that a network takes, and its squared error."""
        entries = []
        for name in self.times.places.layers:
            layer, way = self._layers[name], mix.ways.get(name)
            option = next(one for one in layer.options if one.way == way)
            entries.append([self._entry(layer, option, mix.precisions.get(name, FLOAT32))])
        return self._program(entries).sums([0] * len(entries))

    def int8_error(self, name: str, way: Way | None) -> float:
        """Return the squared error that a layer's being in int8 makes."""
        found = self._alone.get(name, 0.0)
        if way is None:
            return found
        return found * len(way.ops(self.times.ops[name])) * self._measured.get(name, 1.0)

    def learn(self, mix: Mix, alone: Mapping[str, float]) -> None:
        """Take in what chains lose in int8 as they were calibrated.

        Args:
            mix: the network.
            alone: by unit of it, the error of its output where that alone is in int8.
        """
        for name, way in mix.ways.items():
            found = [error**2 for unit, error in alone.items() if unit.rpartition(".")[0] == name]
            expected = self.int8_error(name, way) / self._measured.get(name, 1.0)
            if mix.precisions.get(name) == INT8 and found and expected:
                self._measured[name] = sum(found) / expected

    def _best_scheme(self, what: Scarce, within: float) -> str | None:
        """Return the scheme with which alone as much can be had as with any other."""
        found: dict[str, float] = {}
        for scheme in self._schemes:
            offered = {name: layer.only(scheme) for name, layer in self._layers.items()}
            with suppress(NothingToDoError):
                mix = self._solved(offered, what, within)
                found[scheme] = getattr(self.predicted(mix), what)
        return min(found, key=found.__getitem__, default=None)

    def _offered(self) -> dict[str, LayerOptions]:
        """Return all options; departures from the best scheme count more, as in budgets."""
        base = self._base
        if base is None:
            return self._layers
        return {
            name: replace(
                layer,
                gains={base: layer.gains.get(base, layer.gain)},
                options=tuple(
                    option
                    if option.scheme in (None, base)
                    else replace(option, error=OTHER_SCHEME * option.error)
                    for option in layer.options
                ),
            )
            for name, layer in self._layers.items()
        }

    def _solved(self, offered: Mapping[str, LayerOptions], what: Scarce, within: float) -> Mix:
        untimed = [(Entry(False, 0.0, 0.0), None)]
        rows = [list(_undominated(self._choices(layer))) or untimed for layer in offered.values()]
        program = self._program([[entry for entry, _ in row] for row in rows])
        chosen = program.least(what, within)
        ways: dict[str, Way] = {}
        precisions = {}
        for name, row, place in zip(offered, rows, chosen, strict=True):
            entry, way = row[place]
            precisions[name] = INT8 if entry.is_int8 else FLOAT32
            if way is not None:
                ways[name] = way
        return Mix(ways, precisions)

    def _choices(self, layer: LayerOptions) -> Iterator[tuple[Entry, Way | None]]:
        for option in layer.options:
            for precision in (FLOAT32, INT8):
                if self.times.share(layer.name, option.way, precision) is not None:
                    yield self._entry(layer, option, precision), option.way

    def _entry(self, layer: LayerOptions, option: Option, precision: str) -> Entry:
        seconds = self.times.share(layer.name, option.way, precision) or 0.0
        added = self.int8_error(layer.name, option.way) if precision == INT8 else 0.0
        return Entry(precision == INT8, seconds, layer.gain * option.error + added)

    def _program(self, entries: Sequence[Sequence[Entry]]) -> Program:
        names = self.times.places.followers
        return self.times.program(entries, [self._alone.get(name, 0.0) for name in names])


def _undominated(
    choices: Iterator[tuple[Entry, Way | None]],
) -> Iterator[tuple[Entry, Way | None]]:
    """Yield what nothing of the same precision beats in both time and error."""
    least = {True: float("inf"), False: float("inf")}
    for entry, way in sorted(choices, key=lambda one: (one[0].seconds, one[0].error)):
        if entry.error < least[entry.is_int8]:
            least[entry.is_int8] = entry.error
            yield entry, way
