"""What each layer of a network takes in each way to write it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trpexport.latency.folding import LayerTime
from trpexport.latency.profiler_cost import profiler_cost
from trpexport.latency.store import Store, WayTime
from trpexport.latency.surroundings import signature
from trpexport.latency.timer import Timer
from trpexport.latency.ways import Way, Ways

# Networks that are profiled in turns, besides the original one.
_GROUP = 6
# Runs of each: as many as take so long, within these limits.
_PROFILE_SECONDS, _MIN_RUNS, _MAX_RUNS = 0.1, 8, 60
# A way is timed in so many networks at least, where layers of the same kind allow it.
_TIMES = 2
# A group is profiled again, twice as long, where the median standard error of its times is larger
# than this share of the layers' own; so many times at most.
_MAX_DEVIATION, _ATTEMPTS = 0.03, 3

@dataclass(frozen=True)
class TimeTable:
    """What each layer of a network takes in each way to write it, in seconds.

    Attributes:
        whole: the network as it is.
        layers: by layer and way; None for the layer as it is.
        deviation: median standard error of a time, relative to the layer's as it is.
        measured: how many networks were profiled for it; 0 where all was known.
    """

    whole: float
    layers: Mapping[str, Mapping[Way | None, float]]
    deviation: float
    measured: int = 0

    def seconds(self, ways: Ways) -> float:
        """Return what a network with chains in the place of layers should take."""
        return self.whole + sum(
            self.layers[name][way] - self.layers[name][None] for name, way in ways.items()
        )

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
    turns with the others. What the profiler itself costs a node is taken off.

    Args:
        timer: times networks.
        ways: of each layer that may be rewritten; those that are not in the file are left out.
        store: what is known already; gets what is measured.
        say: called with a line on what is going on.

    Raises:
        TrpexportError: a network can't be run there.
    """
    facts = timer.stopwatch.facts()
    wanted = {name: some for name, some in ways.items() if some and name in timer.blanks.layers}
    kinds = {name: signature(timer.blanks.nodes(name)) for name in wanted}
    known = {kind: store.times(facts, kind) for kind in set(kinds.values())}
    node_seconds = store.node_seconds(facts)
    networks = list(_networks(wanted, kinds, known))
    say("time the network as it is")
    (whole,) = timer.race([{}])
    runs = _runs(whole.seconds)
    found = _profiled(timer, networks, kinds, runs, say)
    if node_seconds is None:
        say("time the profiler itself")
        node_seconds = profiler_cost(timer.stopwatch)
    store.put(facts, node_seconds, found)
    (original,) = timer.folded([{}], _MAX_RUNS if runs == _MAX_RUNS else 2 * runs)
    layers, deviations = {}, []
    for name in wanted:
        if name in original.layers:
            times = {**known[kinds[name]], **found.get(kinds[name], {})}
            layers[name] = _layer_times(original.layers[name], wanted[name], times, node_seconds)
            deviations += [time.relative_deviation for time in times.values()]
    deviation = float(np.median(deviations)) if deviations else 0.0
    return TimeTable(whole.seconds, layers, deviation, len(networks))


def _layer_times(
    now: LayerTime, ways: Sequence[Way], known: Mapping[Way, WayTime], node_seconds: float
) -> dict[Way | None, float]:
    """Return the times of a layer, in terms of what it takes as it is now."""
    seconds = max(now.seconds - node_seconds * now.nodes, 0.0)
    return {None: seconds} | {
        way: seconds * known[way].ratio(node_seconds) for way in ways if way in known
    }


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


def _runs(seconds: float) -> int:
    return int(np.clip(round(_PROFILE_SECONDS / seconds), _MIN_RUNS, _MAX_RUNS))


def _profiled(
    timer: Timer,
    networks: Sequence[Ways],
    kinds: Mapping[str, str],
    runs: int,
    say: Callable[[str], None],
) -> dict[str, dict[Way, WayTime]]:
    """Return the times of all ways in some networks, by kind of layer."""
    seen: dict[tuple[str, Way], list[WayTime]] = defaultdict(list)
    for start in range(0, len(networks), _GROUP):
        group = networks[start : start + _GROUP]
        say(f"profile networks {start + 1} to {start + len(group)} of {len(networks)}")
        for name, way, time in _group_times(timer, group, runs):
            seen[kinds[name], way].append(time)
    found: dict[str, dict[Way, WayTime]] = defaultdict(dict)
    for (kind, way), times in seen.items():
        found[kind][way] = WayTime.mean(times)
    return found


def _group_times(
    timer: Timer, group: Sequence[Ways], runs: int
) -> list[tuple[str, Way, WayTime]]:
    """Return the time of each layer in each of a few networks, beside that in the original one."""
    for attempt in range(_ATTEMPTS):
        original, *others = timer.folded([{}, *group], runs << attempt)
        times = [
            (
                name,
                way,
                WayTime(
                    other.layers[name].seconds,
                    other.layers[name].nodes,
                    original.layers[name].seconds,
                    original.layers[name].nodes,
                    other.layers[name].deviation,
                ),
            )
            for ways, other in zip(group, others, strict=True)
            for name, way in ways.items()
            if name in original.layers and name in other.layers
        ]
        if np.median([time.relative_deviation for _, _, time in times] or [0]) <= _MAX_DEVIATION:
            break
    return times
