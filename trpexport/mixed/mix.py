"""What is chosen of each layer: a way to write it, and a precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trpexport.artifact.variants import BlankForm
from trpexport.bundle import FLOAT32
from trpexport.latency.ways import Ways
from trpexport.quantization.wiring import INT8


@dataclass(frozen=True)
class Mix:
    """A network in two precisions.

    Attributes:
        ways: what stands in for which layer.
        precisions: of each layer of which that may be chosen.
    """

    ways: Ways = field(default_factory=dict)
    precisions: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_int8(self) -> bool:
        """Whether any layer is in int8."""
        return INT8 in self.precisions.values()

    @property
    def is_all_int8(self) -> bool:
        """Whether each is, at its full rank."""
        return not self.ways and {*self.precisions.values()} == {INT8}

    @property
    def form(self) -> BlankForm | None:
        """What a float32 file of it is turned into to be timed; None where it stays."""
        return BlankForm(INT8, self.precisions) if self.has_int8 else None

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from others."""
        return (*sorted(self.ways.items()), *sorted(self.precisions.items()))

    def __str__(self) -> str:
        inside = sum(one == INT8 for one in self.precisions.values())
        return f"{len(self.ways)} layers in low rank, {inside} of {len(self.precisions)} in {INT8}"


def whole(layers: Iterable[str], precision: str = FLOAT32) -> Mix:
    """Return the network as it is, in one precision."""
    return Mix({}, dict.fromkeys(layers, precision))
