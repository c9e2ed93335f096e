"""What each layer of a network takes in each way to write it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trpexport.cost import macs
from trpexport.errors import ModelError
from trpexport.latency.folding import Folded
from trpexport.latency.stopwatch import Timed
from trpexport.latency.store import Store, WayTime
from trpexport.latency.surroundings import signature
from trpexport.latency.timer import Timer
from trpexport.latency.ways import Way, Ways
from trpexport.ops import LinearOp

# Networks that are profiled in turns, besides the original one.
_GROUP = 6
# Runs of each: as many as take so long, within these limits.
_PROFILE_SECONDS, _MIN_RUNS, _MAX_RUNS = 0.1, 8, 60
# A way is timed in so many networks at least, where layers of the same kind allow it.
_TIMES = 2
# A group is profiled again, twice as long, where the median standard error of its times is larger
# than this share of the layers' own; so many times at most.
_MAX_DEVIATION, _ATTEMPTS = 0.03, 3
# A network tells what the profiler costs where it has so many more nodes, relative to the
# original one's, than its time would let expect.
_MIN_NODES = 0.1


@dataclass(frozen=True)
class TimeTable:
    """What each layer of a network takes in each way to write it, in seconds.

    Attributes:
        latency: what a run of the network as it is takes.
        whole: the same, in terms of the profiles that times of layers come from.
        layers: by layer and way; None for the layer as it is.
        original: what each layer takes as it is, those that stay included.
        ops: the operators of these.
        deviation: median standard error of a time, relative to the layer's as it is.
        measured: how many networks were profiled for it; 0 where all was known.
    """

    latency: float
    whole: float
    layers: Mapping[str, Mapping[Way | None, float]]
    original: Mapping[str, float]
    ops: Mapping[str, LinearOp]
    deviation: float
    measured: int = 0

    def speedup(self, ways: Ways) -> float:
        """Return how many times faster a network with chains in the place of layers should be."""
        return self.whole / self.seconds(ways)

    def seconds(self, ways: Ways) -> float:
        """Return what a network with chains in the place of layers should take, as ``whole``."""
        return self.whole + sum(
            self.layers[name][way] - self.layers[name][None] for name, way in ways.items()
        )

    def fitted(self, timer: Timer) -> TimeTable:
        """Return the table with the time of the whole by which what it predicts comes out best.

        What a network takes beside its layers no profile tells. So a few networks are timed that
        have some or all layers in their fastest ways: 1 / speed-up - 1 is what these save, over the
        time of the whole, which least squares find.

        Raises:
            TrpexportError: a network can't be run.
        """
        fastest = list(self.fastest.items())
        networks = [dict(some) for some in (fastest, fastest[::2], fastest[1::2]) if some]
        if not networks:
            return self
        timed = timer.race([{}, *networks])[1:]
        saved = np.array([self.whole - self.seconds(ways) for ways in networks])
        shares = np.array([1 - 1 / one.speedup.mid for one in timed])
        agreement = float(saved @ shares)
        if agreement <= 0:  # they are no faster: whoever asks for the fastest one will find out
            return self
        return replace(self, whole=max(float(saved @ saved) / agreement, float(saved.max())))

    @property
    def fastest(self) -> dict[str, Way]:
        """The fastest way to write each layer, where that is faster than the layer as it is."""
        best = {name: min(times, key=times.__getitem__) for name, times in self.layers.items()}
        return {name: way for name, way in best.items() if way is not None}


def time_layers(
    timer: Timer,
    ways: Mapping[str, Sequence[Way]],
    store: Store,
    say: Callable[[str], None] = lambda line: None,
) -> TimeTable:
    """Time the layers of a network in all ways, as far as the store does not know them.

    Each of a few dozen networks has every layer in one of its ways; the times of nodes under the
    profiler are added up by layer, and held against those of the original network, which takes
    turns with the others.

    Args:
        timer: times networks.
        ways: of each layer that may be rewritten; those that are not in the file are left out.
        store: what is known already; gets what is measured.
        say: called with a line on what is going on.

    Raises:
        ModelError: the profiler does not tell layers apart.
        TrpexportError: a network can't be run there.
    """
    facts = timer.facts()
    wanted = {name: some for name, some in ways.items() if some and name in timer.blanks.layers}
    kinds = {name: signature(timer.blanks.nodes(name)) for name in wanted}
    known = {kind: store.times(facts, kind) for kind in set(kinds.values())}
    networks = list(_networks(wanted, kinds, known))
    say("time the network as it is")
    profiler = _Profiler.of(
        timer, {name: min(some, key=_macs(timer, name)) for name, some in wanted.items()}
    )
    seen: dict[tuple[str, Way], list[WayTime]] = defaultdict(list)
    for start in range(0, len(networks), _GROUP):
        group = networks[start : start + _GROUP]
        say(f"profile networks {start + 1} to {start + len(group)} of {len(networks)}")
        found: dict[str, dict[Way, WayTime]] = defaultdict(dict)
        for name, way, time in profiler.times(group):
            samples = seen[kinds[name], way]
            samples.append(time)
            found[kinds[name]][way] = WayTime.mean(samples)
        store.put(facts, found)  # what was measured stays, whatever ends the work
        for kind, times in found.items():
            known[kind].update(times)
    original = profiler.original()
    if wanted and not original.layers.keys() & wanted.keys():
        raise ModelError(
            f"a profile on the provider {timer.stopwatch.conditions.provider} tells no layer from "
            "the others, as where all are compiled into one: choose ranks by a share of the MACs, "
            "and bench what comes out",
            parameters=("provider",),
        )
    layers: dict[str, dict[Way | None, float]] = {}
    deviations: list[float] = []
    for name, some in wanted.items():
        if name in original.layers:
            times = known[kinds[name]]
            now = original.layers[name].seconds
            layers[name] = {None: now}
            layers[name].update((way, now * times[way].ratio) for way in some if way in times)
            deviations += [time.relative_deviation for time in times.values()]
    deviation = float(np.median(deviations)) if deviations else 0.0
    return TimeTable(
        latency=profiler.latency,
        whole=original.seconds,
        layers=layers,
        original={name: time.seconds for name, time in original.layers.items()},
        ops={name: timer.blanks.nodes(name)[0].op for name in original.layers},
        deviation=deviation,
        measured=len(networks),
    )


def profiled_runs(latency: float) -> int:
    """Return how often a network that takes so many seconds is run under the profiler."""
    return int(np.clip(round(_PROFILE_SECONDS / latency), _MIN_RUNS, _MAX_RUNS))


def _networks(
    wanted: Mapping[str, Sequence[Way]],
    kinds: Mapping[str, str],
    known: Mapping[str, Mapping[Way, Any]],
) -> Iterator[dict[str, Way]]:
    """Yield networks in which each unknown way of each kind of layer stands at least twice.

    Layers of one kind share its ways out among them; of a single layer each way stands once.
    """
    by_kind: dict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        by_kind[kind].append(name)
    pending = {
        kind: [way for way in wanted[names[0]] if way not in known[kind]]
        for kind, names in by_kind.items()
    }
    count = max(
        (
            min(len(pending[kind]), math.ceil(_TIMES * len(pending[kind]) / len(names)))
            for kind, names in by_kind.items()
        ),
        default=0,
    )
    for index in range(count):
        yield {
            name: pending[kind][(index * len(names) + place) % len(pending[kind])]
            for kind, names in by_kind.items()
            if pending[kind]
            for place, name in enumerate(names)
        }


class _Profiler:
    """Profiles networks beside the original one, and takes off what the profiler itself costs.

    It writes down what a node got before it looks at the clock again: microseconds a node, as much
    as a small convolution takes. They are told by a network that is timed as a whole as well: its
    speed-up must come out, so that

        (S0 - c N0) / (S1 - c N1) = speed-up

    with S the seconds of N nodes, of the original network and of that one.

    Args:
        timer: times networks.
        known: the ways of the network whose speed-up is known.
        timed: the original one and that one, as whole networks.
    """

    def __init__(self, timer: Timer, known: Ways, timed: Sequence[Timed]) -> None:
        self._timer = timer
        self._known = known
        self.latency = timed[0].seconds
        self._speedup = timed[1].speedup.mid
        self._runs = profiled_runs(self.latency)

    @classmethod
    def of(cls, timer: Timer, known: Ways) -> _Profiler:
        """Return a profiler, given the ways of a network that it may time as a whole."""
        return cls(timer, known, timer.race([{}, known]))

    def original(self) -> Folded:
        """Return where the original network spends its time."""
        return self._folded([], 2 * self._runs)[0]

    def times(self, group: Sequence[Ways]) -> list[tuple[str, Way, WayTime]]:
        """Return the time of each layer in each of a few networks, beside that in the original."""
        for attempt in range(_ATTEMPTS):
            original, *others = self._folded(group, self._runs << attempt)
            times = [
                (
                    name,
                    way,
                    WayTime(
                        other.layers[name].seconds,
                        original.layers[name].seconds,
                        other.layers[name].deviation,
                    ),
                )
                for ways, other in zip(group, others, strict=True)
                for name, way in ways.items()
                if name in original.layers and name in other.layers
            ]
            found = [time.relative_deviation for _, _, time in times]
            if not found or np.median(found) <= _MAX_DEVIATION:
                break
        return times

    def _folded(self, group: Sequence[Ways], runs: int) -> list[Folded]:
        original, known, *others = self._timer.folded([{}, self._known, *group], runs)
        cost = _profiler_cost(original, known, self._speedup)
        return [some.without(cost) for some in (original, *others)]


def _profiler_cost(original: Folded, known: Folded, speedup: float) -> float:
    """Return what the profiler costs a node, in seconds, given a speed-up that was measured."""
    nodes = speedup * known.nodes - original.nodes
    if nodes < _MIN_NODES * original.nodes:
        return 0.0
    return max(0.0, (speedup * known.seconds - original.seconds) / nodes)


def _macs(timer: Timer, name: str) -> Callable[[Way], int]:
    """Return what orders the ways of a layer by what they multiply."""
    layer = timer.blanks.nodes(name)[0]
    return lambda way: macs(way.ops(layer.op), layer.calls)
