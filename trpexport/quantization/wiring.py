"""How the units of a graph hang together: where numbers change their type if one is in 8 bits.

Units with a layer's weight are in 8 bits or in float32 as somebody chose. What stands between them
follows: it is in 8 bits where all that it gets is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.linear import names_in_bodies, stored_tensors
from trpexport.quantization.observing import watched
from trpexport.quantization.search import PASSED_ON, Unit, find_units

if TYPE_CHECKING:
    from onnx import ModelProto

INT8 = "int8"


@dataclass(frozen=True)
class Flow:
    """A tensor that units hand on.

    Attributes:
        source: place of the unit that gives it; None where float32 comes from elsewhere: an input,
            or an operator that stays in it.
        users: places of the units that take it, None for all else that does.
        elements: how many numbers it holds.
    """

    source: int | None
    users: frozenset[int | None]
    elements: int


@dataclass(frozen=True)
class Wiring:
    """The units of a graph, and what flows between them.

    Attributes:
        units: in the order in which they run.
        flows: every tensor that leaves a unit or enters one.
    """

    units: tuple[Unit, ...]
    flows: tuple[Flow, ...]

    def sources(self, place: int) -> frozenset[int | None]:
        """Return what a unit gets its tensors from."""
        return frozenset(flow.source for flow in self.flows if place in flow.users)

    def in_int8(self, layers: Mapping[int, str], precisions: Mapping[str, str]) -> frozenset[int]:
        """Return the places of all units in 8 bits, given the precisions of layers.

        Args:
            layers: by place, the layer whose unit it is; all other units follow what they get.
            precisions: of these layers.
        """
        found: set[int | None] = set()
        for place in range(len(self.units)):
            if place in layers:
                is_int8 = precisions[layers[place]] == INT8
            else:
                sources = self.sources(place)
                is_int8 = bool(sources) and sources <= found
            if is_int8:
                found.add(place)
        return frozenset(place for place in found if place is not None)


def wire(model: ModelProto, numbers: NumberFormat, sizes: Mapping[str, int]) -> Wiring:
    """Return how the units of a graph hang together.

    Args:
        model: the network, its nodes in the order in which they run.
        numbers: in which it is to be written.
        sizes: by tensor of float32, how many numbers it holds.
    """
    units = tuple(find_units(model, numbers, sizes))
    owner = {name: place for place, unit in enumerate(units) for name in unit.nodes}
    stored = stored_tensors(model)
    origin: dict[str, str] = {}  # of what was only moved
    source: dict[str, int | None] = {}
    users: dict[str, set[int | None]] = {}
    for node in model.graph.node:
        place = owner.get(node.name)
        taken = [origin.get(name, name) for name in (*node.input, *names_in_bodies(node))]
        taken = [name for name in taken if name and name not in stored]
        if place is None and node.op_type in PASSED_ON and taken:
            origin |= dict.fromkeys(node.output, taken[0])
            continue
        for name in taken:
            if place is None or source.get(name) != place:  # not what a unit hands on inside
                users.setdefault(name, set()).add(place)
        source |= dict.fromkeys(node.output, place)
    for value in model.graph.output:
        users.setdefault(origin.get(value.name, value.name), set()).add(None)
    flows = [
        Flow(source.get(name), frozenset(some), sizes.get(name, 0)) for name, some in users.items()
    ]
    return Wiring(units, tuple(flow for flow in flows if {flow.source, *flow.users} != {None}))


def tensor_sizes(model: ModelProto) -> dict[str, int]:
    """Return how many numbers each tensor of float32 holds that a network computes or takes.

    Raises:
        ModelError: it can't be run.
    """
    produced = [name for node in model.graph.node for name in node.output if name]
    session = watched(model, produced)
    inputs = session.random_inputs()
    arrays = {**inputs, **session.run(inputs)}
    return {name: array.size for name, array in arrays.items() if array.dtype == "float32"}


def staying(wiring: Wiring, precisions: Mapping[str, str]) -> tuple[Unit, ...]:
    """Return the units that stay in float32, given the precisions of layers; none without any."""
    if not precisions:
        return ()
    inside = wiring.in_int8(layers_of(wiring.units, precisions), precisions)
    return tuple(unit for place, unit in enumerate(wiring.units) if place not in inside)


def layers_of(units: Iterable[Unit], layers: Collection[str]) -> dict[int, str]:
    """Return by place the layer whose unit it is, for units whose names tell.

    Args:
        units: they; those of a chain are numbered behind the layer's name.
        layers: names of the layers.
    """
    found = ((place, _layer(unit, layers)) for place, unit in enumerate(units) if unit.is_linear)
    return {place: layer for place, layer in found if layer is not None}


def _layer(unit: Unit, layers: Collection[str]) -> str | None:
    chain, _, index = unit.label.rpartition(".")
    if unit.label in layers:
        return unit.label
    return chain if index.isdecimal() and chain in layers else None
