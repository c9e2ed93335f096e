"""The layers whose precision is chosen, and what lies between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from trpexport.choose.seams import Sources, in_int8, is_converted
from trpexport.measure.machine import instruction_sets
from trpexport.quantization.formats import number_format
from trpexport.quantization.ort import ready
from trpexport.quantization.wiring import INT8, layers_of, tensor_sizes, wire


@dataclass(frozen=True)
class Places:
    """Which layers have a precision, and what follows them.

    Attributes:
        layers: their names, in the order in which they run.
        followers: names of what is in 8 bits where all that it gets is.
        sources: of each follower, as in :class:`~trpexport.choose.seams.Follower`.
        flows: source and users of each tensor between them, as in
            :class:`~trpexport.choose.seams.Seam`, and how many numbers it holds.
        nodes: of each follower, the names of its nodes in the file.
    """

    layers: tuple[str, ...]
    followers: tuple[str, ...]
    sources: tuple[Sources, ...]
    flows: tuple[tuple[int | None, Sources, int], ...]
    nodes: tuple[tuple[str, ...], ...]

    def inside(self, precisions: Mapping[str, str]) -> frozenset[int | None]:
        """Return the places of what is in int8, given the precisions of layers."""
        return in_int8([precisions.get(name) == INT8 for name in self.layers], self.sources)

    def converted(self, inside: Collection[int | None]) -> list[int]:
        """Return the flows whose tensor is converted, given what is in int8."""
        return [
            flow
            for flow, (source, users, _) in enumerate(self.flows)
            if is_converted(source, users, inside)
        ]


def find_places(file: Path, names: Collection[str], provider: str) -> Places:
    """Return the layers of a float32 file whose precision may be chosen, and what follows them.

    Args:
        file: the file.
        names: those of the layers; which the file does not tell follow what they get.
        provider: who is to run it.

    Raises:
        ModelError: the file can't be quantized, or the provider has no int8.
    """
    model = ready(file)
    wiring = wire(model, number_format(provider, instruction_sets()), tensor_sizes(model))
    owners = layers_of(wiring.units, names)
    layers = tuple(dict.fromkeys(owners.values()))
    rest = [place for place in range(len(wiring.units)) if place not in owners]
    index = {place: layers.index(layer) for place, layer in owners.items()}
    index |= {place: len(layers) + number for number, place in enumerate(rest)}
    return Places(
        layers=layers,
        followers=tuple(wiring.units[place].label for place in rest),
        sources=tuple(_indexed(wiring.sources(place), index) for place in rest),
        flows=tuple(
            (
                None if flow.source is None else index[flow.source],
                _indexed(flow.users, index),
                flow.elements,
            )
            for flow in wiring.flows
        ),
        nodes=tuple(wiring.units[place].nodes for place in rest),
    )


def _indexed(places: Collection[int | None], index: dict[int, int]) -> Sources:
    found = sorted({index[place] for place in places if place is not None})
    return (*found, *([None] if None in places else []))
