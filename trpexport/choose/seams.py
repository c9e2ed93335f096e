"""The multiple-choice knapsack problem with seams: layers in 8 bits or not, and what lies between.

One entry is chosen of each layer's. What follows a layer, as a sum or a pooling, is in 8 bits where
all that it gets is; and wherever a tensor goes from float32 to 8 bits or back, its conversion has a
price. A mixed-integer linear program, solved by HiGHS (Huangfu and Hall, "Parallelizing the dual
revised simplex method", Mathematical Programming Computation 10, 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import NothingToDoError

Floats = NDArray[np.float64]
Sources = tuple[int | None, ...]

_OUT_OF_REACH = 10.0  # times the room: what takes more is as if it took so much
_GAP = 1e-6  # how far from the best a choice may stay, relative to it
_SECONDS = 60.0  # after which the best that was found has to do


class Entry(NamedTuple):
    """One way to write a layer.

    Attributes:
        is_int8: in 8 bits.
        seconds: what it takes.
        error: what it adds to the squared error.
    """

    is_int8: bool
    seconds: float
    error: float


class Follower(NamedTuple):
    """What is in 8 bits where all that it gets is.

    Attributes:
        sources: places of what it gets tensors from, layers first and then those of the followers
            before it; None for what is never in 8 bits.
        seconds: what it takes in 8 bits more than in float32.
        error: what it then adds to the squared error.
    """

    sources: Sources
    seconds: float
    error: float


class Seam(NamedTuple):
    """A tensor that is converted where not all that touch it are of one precision.

    Attributes:
        source: place of what gives it, as in :class:`Follower`.
        users: places of what takes it.
        into: what its conversion to 8 bits takes.
        out: what that from 8 bits takes.
    """

    source: int | None
    users: Sources
    into: float
    out: float


class Sums(NamedTuple):
    """What a choice takes and loses.

    Attributes:
        seconds: time.
        error: squared error.
    """

    seconds: float
    error: float


Scarce = Literal["seconds", "error"]


@dataclass(frozen=True)
class Program:
    """A choice to make.

    Attributes:
        layers: the entries of each.
        followers: what stands between layers, each behind what it gets tensors from.
        seams: tensors between layers and followers.
        fixed: seconds that no choice changes.
    """

    layers: Sequence[Sequence[Entry]]
    followers: Sequence[Follower] = ()
    seams: Sequence[Seam] = ()
    fixed: float = 0.0

    def sums(self, chosen: Sequence[int]) -> Sums:
        """Return what a choice takes and loses.

        Args:
            chosen: place of the entry of each layer.
        """
        entries = [row[place] for row, place in zip(self.layers, chosen, strict=True)]
        inside = in_int8(
            [entry.is_int8 for entry in entries], [one.sources for one in self.followers]
        )
        seconds = self.fixed + sum(entry.seconds for entry in entries)
        error = sum(entry.error for entry in entries)
        for place, follower in enumerate(self.followers, len(entries)):
            if place in inside:
                seconds += follower.seconds
                error += follower.error
        for seam in self.seams:
            if is_converted(seam.source, seam.users, inside):
                seconds += seam.out if seam.source in inside else seam.into
        return Sums(seconds, error)

    def least(self, what: Scarce, within: float) -> list[int]:
        """Return the choice that takes, or loses, least while it does not lose, or take, too much.

        Args:
            what: is to be least.
            within: how much of the other there may be.

        Raises:
            NothingToDoError: no choice is within the limit.
        """
        rows = _Rows(self)
        if what == "seconds":
            return rows.solved(rows.seconds, rows.errors, within)
        return rows.solved(rows.errors, rows.seconds, within - self.fixed)


def in_int8(layers: Sequence[bool], sources: Sequence[Sources]) -> frozenset[int | None]:
    """Return the places of what is in 8 bits.

    Args:
        layers: which of the layers are.
        sources: of each follower.
    """
    inside: set[int | None] = {place for place, is_int8 in enumerate(layers) if is_int8}
    for place, some in enumerate(sources, len(layers)):
        if some and inside.issuperset(some):
            inside.add(place)
    return frozenset(inside)


def is_converted(source: int | None, users: Sources, inside: Collection[int | None]) -> bool:
    """Whether not all that touch a tensor are of one precision."""
    return len({place in inside for place in (source, *users)}) > 1


class _Rows:
    """A program as rows of a matrix: an entry or a follower a column, a seam two."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._counts = [len(row) for row in program.layers]
        self._starts = np.cumsum([0, *self._counts])
        self._entries = int(self._starts[-1])
        self._width = self._entries + len(program.followers) + 2 * len(program.seams)
        entries = [entry for row in program.layers for entry in row]
        followers, seams = program.followers, program.seams
        self.seconds = _floats(
            [
                *(entry.seconds for entry in entries),
                *(follower.seconds for follower in followers),
                *(price for seam in seams for price in (seam.into, seam.out)),
            ]
        )
        self.errors = _floats(
            [
                *(entry.error for entry in entries),
                *(follower.error for follower in followers),
                *(0.0 for _ in seams for _ in range(2)),
            ]
        )

    def solved(self, goal: Floats, scarce: Floats, room: float) -> list[int]:
        """Return the entry of each layer for which ``goal`` is least and ``scarce`` within room."""
        # Tolerances of a solver are absolute: the room is 1 in its eyes, and what is far above it
        # does not blur that; what is to be least is about 1.
        size = room if 0 < room < np.inf else float(np.abs(scarce).max(initial=0.0)) or 1.0
        taken = np.minimum(scarce / size, _OUT_OF_REACH)
        constraints = [*self._constraints(), self._row(taken, high=room / size)]
        relaxed = self._solution(
            goal / (np.abs(goal).max(initial=0.0) or 1.0), constraints, whole=0
        )
        scale = abs(float(goal @ relaxed)) or float(np.abs(goal).max(initial=0.0)) or 1.0
        found = self._solution(goal / scale, constraints, whole=1)
        return [
            int(found[start : start + count].argmax())
            for start, count in zip(self._starts, self._counts, strict=False)
        ]

    def _solution(self, goal: Floats, constraints: Sequence[Any], *, whole: int) -> Floats:
        from scipy.optimize import milp

        integrality = np.zeros(self._width)
        integrality[: self._entries] = whole
        result = milp(
            goal,
            integrality=integrality,
            bounds=(0, 1),
            constraints=constraints,
            options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
        )
        if result.x is None:
            raise NothingToDoError("no choice of ranks and precisions is within the limit")
        found: Floats = result.x
        return found

    def _constraints(self) -> list[Any]:
        rows: list[Floats] = []
        lows: list[float] = []
        highs: list[float] = []

        def add(row: Floats, low: float, high: float) -> None:
            rows.append(row)
            lows.append(low)
            highs.append(high)

        for start, count in zip(self._starts, self._counts, strict=False):
            row = np.zeros(self._width)
            row[start : start + count] = 1
            add(row, 1, 1)
        for index, follower in enumerate(self._program.followers):
            own, sources = self._own(self._entries + index), follower.sources
            inside = [self._is_int8(place) for place in sources]
            for one in inside:
                add(own - one, -np.inf, 0)
            if not sources:
                add(own, 0, 0)
            else:
                add(own - sum(inside), 1 - len(sources), np.inf)
        first = self._entries + len(self._program.followers)
        for index, seam in enumerate(self._program.seams):
            into, out = (self._own(first + 2 * index + way) for way in range(2))
            for user in seam.users:
                difference = self._is_int8(seam.source) - self._is_int8(user)
                add(into + difference, 0, np.inf)
                add(out - difference, 0, np.inf)
        return [self._row(np.array(rows).reshape(-1, self._width), lows, highs)]

    def _is_int8(self, place: int | None) -> Floats:
        """Return the row that is 1 where a layer or a follower is in 8 bits."""
        row = np.zeros(self._width)
        layers = len(self._counts)
        if place is None:
            return row
        if place >= layers:
            return self._own(self._entries + place - layers)
        for index, entry in enumerate(self._program.layers[place], int(self._starts[place])):
            row[index] = float(entry.is_int8)
        return row

    def _own(self, index: int) -> Floats:
        row = np.zeros(self._width)
        row[index] = 1
        return row

    @staticmethod
    def _row(matrix: Floats, low: Any = -np.inf, high: Any = np.inf) -> Any:
        from scipy.optimize import LinearConstraint
        from scipy.sparse import csr_array

        return LinearConstraint(csr_array(np.atleast_2d(matrix)), low, high)


def _floats(numbers: Sequence[float]) -> Floats:
    return np.array(numbers, dtype=np.float64)
