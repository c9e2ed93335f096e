"""What a network spends outside its layers, place by place, as profiles of mixtures tell it.

A layer takes about as long beside float32 as beside int8. What differs lies between layers:
numbers are converted and change their layout, additions are no longer fused into convolutions,
pools and resizes run in another precision or layout. So all that is no layer is added up by the
place behind which it runs, in networks of which some layers are in int8, and prices are differences
of these.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trpexport.latency.folding import trimmed
from trpexport.measure.profile.matching import match_nodes
from trpexport.measure.profile.optimized_graph import OptimizedNode, link, read_optimized
from trpexport.measure.profile.profile import Profile
from trpexport.mixed.places import Places
from trpexport.quantization.wiring import INT8

_MADE_UNIQUE = re.compile(r"(_nchwc|_token_\d+)+$")  # what ONNX Runtime appends to a node's name

Place = int | None


@dataclass(frozen=True)
class Between:
    """What one network spends outside its layers.

    Attributes:
        inside: places of what is in int8.
        own: by place of a follower, what it takes.
        behind: by place, what is spent behind it, up to what comes next there; by None, what is
            before all of them.
    """

    inside: frozenset[Place]
    own: Mapping[Place, float]
    behind: Mapping[Place, float]


@dataclass(frozen=True)
class Prices:
    """What precisions cost beside the layers, in the unit of what they were told by.

    Attributes:
        int8: by place, what it takes more in int8 than in float32, itself where it is a follower
            and what is behind it.
        into: by flow, what its conversion to int8 takes.
        out: by flow, what that to float32 takes; nothing where some user is never in int8, as it
            then counts to the source.
    """

    int8: tuple[float, ...]
    into: tuple[float, ...]
    out: tuple[float, ...]


def spent_between(
    profile: Profile,
    file: Path,
    owners: Mapping[str, str],
    places: Places,
    *,
    inside: frozenset[Place],
    whole: float,
) -> Between:
    """Add up what a network spends outside its layers.

    Args:
        profile: the profile of ``file``.
        file: the ONNX file.
        owners: name of the layer that each node of the file computes, by name of the node.
        places: the layers and what follows them.
        inside: places of what is in int8.
        whole: what the network takes, to which all times are made to add up: the profiler costs
            each node some time.

    Raises:
        ModelError: the file can't be read.
    """
    matching = match_nodes(profile, file)
    graph = read_optimized(profile.optimized or file.read_bytes())
    nodes = link(profile.nodes, graph)
    layers = {name: place for place, name in enumerate(places.layers)}
    followers = {
        name: place
        for place, names in enumerate(places.nodes, len(places.layers))
        for name in names
    }
    found: list[Place] = []
    for executed in matching.executed:
        product = None if executed.product is None else matching.products[executed.product]
        owner = None if product is None else owners.get(product.node.name)
        name = _MADE_UNIQUE.sub("", executed.time.name)
        found.append(followers.get(name) if owner is None else layers.get(owner))
    seconds = [trimmed(np.array(node.samples))[0] for node in profile.nodes]
    unit = whole / sum(seconds) if sum(seconds) else 0.0
    own: dict[Place, float] = defaultdict(float)
    behind: dict[Place, float] = defaultdict(float)
    for place, after, one in zip(found, _after(nodes, found, places), seconds, strict=True):
        if place is None:
            behind[after] += unit * one
        elif place >= len(places.layers):
            own[place] += unit * one
    return Between(inside, own, behind)


def _after(
    nodes: Sequence[OptimizedNode | None], found: Sequence[Place], places: Places
) -> list[Place]:
    """Return the place that each node runs behind; a node of a place is that itself.

    A follower that has no node is fused into the last one of what it gets tensors from.
    """
    last = {place: index for index, place in enumerate(found) if place is not None}
    stand_in: dict[int, Place] = {}
    for follower, sources in enumerate(places.sources, len(places.layers)):
        some = [last[one] for one in sources if one is not None and one in last]
        if follower not in last and some:
            last[follower] = max(some)
            stand_in[last[follower]] = follower
    made: dict[str, Place] = {}
    after: list[Place] = []
    for index, (node, place) in enumerate(zip(nodes, found, strict=True)):
        one = stand_in.get(index, place)
        if one is None and node is not None:
            one = next((made[name] for name in node.inputs if name in made), None)
        after.append(one)
        made |= dict.fromkeys(() if node is None else node.outputs, one)
    return after


def prices(places: Places, networks: Sequence[Between]) -> Prices:
    """Return what precisions cost, as the mean of what networks tell.

    Where none tells, a conversion takes for each number what others of its direction take.

    Args:
        places: the layers and what follows them.
        networks: that in float32 among them.
    """
    usual = _Usual(places, networks)
    seen: dict[bool, dict[int, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for network in networks:
        for flow, extra in usual.extras(network):
            seen[places.flows[flow][0] in network.inside][flow].append(extra)
    into, out = (_filled(places, seen[is_out]) for is_out in (False, True))
    int8 = [usual.int8(place) for place in range(len(places.layers) + len(places.followers))]
    most = places.inside(dict.fromkeys(places.layers, INT8))
    for flow, (source, users, _) in enumerate(places.flows):
        if source is not None and not most.issuperset(users):
            int8[source] += out[flow]  # whenever the source is in int8
            out[flow] = 0.0
    return Prices(tuple(int8), *(tuple(max(0.0, one) for one in some) for some in (into, out)))


class _Usual:
    """What is spent where nothing is converted, in both precisions.

    Args:
        places: the layers and what follows them.
        networks: that in float32 among them.
    """

    def __init__(self, places: Places, networks: Sequence[Between]) -> None:
        self._places = places
        own: dict[tuple[Place, bool], list[float]] = defaultdict(list)
        behind: dict[tuple[Place, bool], list[float]] = defaultdict(list)
        for network in networks:
            crossed = {places.flows[flow][0] for flow in places.converted(network.inside)}
            for place in (None, *range(len(places.layers) + len(places.followers))):
                is_int8 = place in network.inside
                if place not in crossed:
                    behind[place, is_int8].append(network.behind.get(place, 0.0))
                if is_int8 or self._sources(place).isdisjoint(network.inside):
                    own[place, is_int8].append(network.own.get(place, 0.0))
        self._own = {key: float(np.mean(some)) for key, some in own.items()}
        self._behind = {key: float(np.mean(some)) for key, some in behind.items()}

    def int8(self, place: int) -> float:
        """Return what a place and what is behind it takes more in int8."""
        return sum(
            times.get((place, True), usual) - usual
            for times in (self._own, self._behind)
            for usual in [times.get((place, False), 0.0)]
        )

    def extras(self, network: Between) -> Iterator[tuple[int, float]]:
        """Yield the flows that are converted in a network, and what that costs.

        What is spent behind a place goes to all that is converted there, by size. Followers that
        stay in float32 for one of their sources may no longer be fused, at the cost of the others.
        """
        flows = self._places.flows
        crossed = self._places.converted(network.inside)
        found = dict.fromkeys(crossed, 0.0)
        for source in {flows[flow][0] for flow in crossed}:
            # What never goes on in int8 is held against itself in float32.
            float32 = self._behind.get((source, False), 0.0)
            usual = self._behind.get((source, source in network.inside), float32)
            extra = network.behind.get(source, 0.0) - usual
            for flow, part in self._parts(flow for flow in crossed if flows[flow][0] == source):
                found[flow] += part * extra
        first = len(self._places.layers)
        for place in range(first, first + len(self._places.followers)):
            if place not in network.inside:
                extra = network.own.get(place, 0.0) - self._own.get((place, False), 0.0)
                taken = (flow for flow in crossed if place in flows[flow][1])
                some = (flow for flow in taken if flows[flow][0] in network.inside)
                for flow, part in self._parts(some):
                    found[flow] += part * extra
        yield from found.items()

    def _parts(self, flows: Iterable[int]) -> list[tuple[int, float]]:
        """Return flows and what share each has of what they hold together."""
        sizes = {flow: self._places.flows[flow][2] for flow in flows}
        total = sum(sizes.values())
        return [(flow, size / total if total else 1 / len(sizes)) for flow, size in sizes.items()]

    def _sources(self, place: Place) -> frozenset[Place]:
        first = len(self._places.layers)
        if place is None or place < first:
            return frozenset()
        return frozenset(self._places.sources[place - first])


def _filled(places: Places, seen: Mapping[int, Sequence[float]]) -> list[float]:
    """Return what each flow costs, by its size where none was seen."""
    known = {flow: float(np.mean(some)) for flow, some in seen.items()}
    numbers = sum(places.flows[flow][2] for flow in known)
    each = max(0.0, sum(known.values())) / numbers if numbers else 0.0
    return [known.get(flow, each * size) for flow, (_, _, size) in enumerate(places.flows)]
