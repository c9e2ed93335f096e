"""The layers whose precision is chosen, and what lies between them, in the words of a program."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trpexport.choose.seams import Entry, Follower, Program, Seam
from trpexport.measure.machine import instruction_sets
from trpexport.quantization.formats import number_format
from trpexport.quantization.ort import ready
from trpexport.quantization.wiring import Wiring, layers_of, tensor_sizes, wire


@dataclass(frozen=True)
class Places:
    """Which layers have a precision, and what follows them.

    Attributes:
        layers: their names, in the order in which they run.
        followers: names of what is in 8 bits where all that it gets is.
        sources: of each follower, as in :class:`~trpexport.choose.seams.Follower`.
        sizes: of each follower, how many numbers it gives.
        flows: source and users of each tensor between them, as in
            :class:`~trpexport.choose.seams.Seam`, and how many numbers it holds.
    """

    layers: tuple[str, ...]
    followers: tuple[str, ...]
    sources: tuple[tuple[int | None, ...], ...]
    sizes: tuple[int, ...]
    flows: tuple[tuple[int | None, tuple[int | None, ...], int], ...]

    def program(
        self,
        entries: Sequence[Sequence[Entry]],
        *,
        fixed: float = 0.0,
        follower: float = 0.0,
        seam: float = 0.0,
        errors: Sequence[float] = (),
    ) -> Program:
        """Return the choice among entries of the layers.

        Args:
            entries: of each layer.
            fixed: seconds that nothing changes.
            follower: seconds that a number takes a follower in int8 more than in float32.
            seam: seconds that the conversion of a number takes.
            errors: what each follower adds to the squared error in int8; nothing where empty.
        """
        costs = zip(self.sources, self.sizes, errors or [0.0] * len(self.sizes), strict=True)
        return Program(
            entries,
            [Follower(sources, follower * size, error) for sources, size, error in costs],
            [Seam(source, users, seam * size) for source, users, size in self.flows],
            fixed,
        )


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
        sizes=tuple(_given(wiring, place) for place in rest),
        flows=tuple(
            (
                None if flow.source is None else index[flow.source],
                _indexed(flow.users, index),
                flow.elements,
            )
            for flow in wiring.flows
        ),
    )


def _indexed(places: Collection[int | None], index: dict[int, int]) -> tuple[int | None, ...]:
    found = sorted({index[place] for place in places if place is not None})
    return (*found, *([None] if None in places else []))


def _given(wiring: Wiring, place: int) -> int:
    return sum(flow.elements for flow in wiring.flows if flow.source == place)
