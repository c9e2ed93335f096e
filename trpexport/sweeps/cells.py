"""The cells of a sweep: a scheme, a share of the MACs and a precision each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from trpexport.bundle import FLOAT32
from trpexport.errors import TrpexportError

_STEP = 0.1
_MAX_CELLS = 10_000
_DIGITS = 6  # of a target
_NUMBER = r"\d*\.?\d+"
_RANGE = re.compile(rf"(?P<first>{_NUMBER})\.\.(?P<last>{_NUMBER})(/(?P<step>{_NUMBER}))?")


@dataclass(frozen=True, order=True)
class Cell:
    """One way to make a network smaller.

    Attributes:
        scheme: name of the scheme, or ``auto``.
        target: share of the MACs that may remain.
        precision: in which it is written.
    """

    scheme: str
    target: float
    precision: str = FLOAT32

    @property
    def folder(self) -> str:
        """Name of its bundle, which holds all precisions."""
        return f"{self.scheme}-{self.target:g}"

    @property
    def label(self) -> str:
        """What it is called."""
        return f"{self.scheme} {self.target:g} {self.precision}"


def grid(
    schemes: Sequence[str], targets: Sequence[float], precisions: Sequence[str]
) -> tuple[Cell, ...]:
    """Return all cells, those of one bundle beside each other.

    Raises:
        TrpexportError: there are none, too many, or one twice.
    """
    for name, given in (("scheme", schemes), ("target", targets), ("precision", precisions)):
        if not given or len({*given}) < len(given):
            raise TrpexportError(
                f"a sweep needs each {name} once, and at least one: "
                f"{', '.join(map(str, given)) or 'there is none'}",
                parameters=(f"{name}s",),
            )
    cells = tuple(Cell(*one) for one in product(schemes, targets, precisions))
    if len(cells) > _MAX_CELLS:
        raise TrpexportError(
            f"{len(cells)} cells are too many, {_MAX_CELLS} at most: take larger steps",
            parameters=("targets",),
        )
    return cells


def parse_targets(text: str) -> tuple[float, ...]:
    """Return the targets that a text names: ``0.7,0.5``, ``0.7..0.3``, ``0.7..0.3/0.05``.

    A range has steps of 0.1, or of what stands behind the slash.

    Raises:
        TrpexportError: it is something else, or a target is not between 0 and 1.
    """
    found: list[float] = []
    for part in text.split(","):
        ends = _RANGE.fullmatch(part.strip())
        if ends is not None:
            step = float(ends["step"] or _STEP)
            found += _steps(float(ends["first"]), float(ends["last"]), step, text)
        elif re.fullmatch(_NUMBER, part.strip()):
            found.append(round(float(part), _DIGITS))
        else:
            raise _no_targets(text)
    if not all(0 < target < 1 for target in found):
        raise _no_targets(text)
    return tuple(dict.fromkeys(found))


def _steps(first: float, last: float, step: float, text: str) -> list[float]:
    count = abs(first - last) / step if step else _MAX_CELLS
    if count >= _MAX_CELLS:
        raise _no_targets(text)
    sign = 1 if last >= first else -1
    # A last step that rounding alone makes too long is one.
    return [round(first + sign * step * index, _DIGITS) for index in range(int(count + 1e-6) + 1)]


def _no_targets(text: str) -> TrpexportError:
    return TrpexportError(
        f"targets {text!r} must be shares of the MACs between 0 and 1, as in 0.7..0.3, "
        "0.7..0.3/0.05 or 0.7,0.5",
        parameters=("targets",),
    )
