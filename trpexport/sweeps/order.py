"""In which order the cells of a sweep are worked on by several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trpexport.sweeps.cells import Cell


@dataclass(frozen=True)
class Turn:
    """What one worker does next.

    Attributes:
        group: the cells of one bundle, that in float32 first.
        place: which of them is made; None where what all cells of their scheme share is measured.
    """

    group: tuple[Cell, ...]
    place: int | None = None

    @property
    def cell(self) -> Cell:
        """The cell that is made, or one of those that it is measured for."""
        return self.group[self.place or 0]

    @property
    def label(self) -> str:
        """What to say of it."""
        if self.place is None:
            return f"what each layer loses under {self.cell.scheme}"
        return self.cell.label

    def following(self) -> Turn | None:
        """Return the turn of the bundle's next cell, if there is one."""
        assert self.place is not None
        place = self.place + 1
        return Turn(self.group, place) if place < len(self.group) else None


class Order:
    """Says what may be begun: bundles of a scheme once what they share is measured.

    Args:
        groups: cells of one bundle each.
    """

    def __init__(self, groups: Sequence[Sequence[Cell]]) -> None:
        self._waiting: dict[str, list[Turn]] = {}
        for group in groups:
            self._waiting.setdefault(group[0].scheme, []).append(Turn(tuple(group), 0))

    def first(self) -> list[Turn]:
        """Return what may be begun at once; where there is one bundle, nothing is shared."""
        return [
            Turn(turns[0].group) if len(turns) > 1 else self._waiting.pop(scheme)[0]
            for scheme, turns in [*self._waiting.items()]
        ]

    def after(self, measured: Turn) -> list[Turn]:
        """Return what may be begun once something is measured."""
        return self._waiting.pop(measured.cell.scheme)
