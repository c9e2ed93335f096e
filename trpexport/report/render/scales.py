"""Where values are along an axis, and which of them are written there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from trpexport.report.blocks import Kind

_STEPS = (1, 2, 2.5, 5, 10)
_TICKS = {Kind.SHARE: (100, 0), Kind.RATIO: (1, 1)}  # what 1 is shown as, and its least digits
_DECADES = 20  # the largest over the least, from which on an axis is logarithmic


@dataclass(frozen=True)
class Scale:
    """How an interval of values is spread over a length.

    Attributes:
        low: the value at 0.
        high: the value at 1.
        is_log: whether equal ratios are equally long.
    """

    low: float
    high: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return where a value is, from 0 to 1."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def ticks(self, most: int = 6, *, whole: bool = False) -> list[float]:
        """Return round values within the interval, about as many as there is room for."""
        if self.is_log:
            return self._decades(most)
        step = _round_step((self.high - self.low) / most)
        step = max(1.0, math.ceil(step)) if whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 12) for index in range(first, last + 1)]

    def _decades(self, most: int) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        wide = last - first > most / 2
        steps = (1,) if wide else (1, 2, 5)
        powers = range(first, last + 1, max(1, math.ceil((last - first) / (2 * most))))
        found = [factor * 10.0**power for power in powers for factor in steps]
        return [value for value in found if self.low <= value <= self.high]


def scale(values: Iterable[float], *, from_zero: bool = False, may_be_log: bool = False) -> Scale:
    """Return a scale that holds all values, with some room beside them.

    Args:
        values: what is drawn.
        from_zero: whether it begins at zero.
        may_be_log: whether it is logarithmic where values are of very different sizes.
    """
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if may_be_log and low > 0 and high / low > _DECADES:
        return Scale(low / 1.2, high * 1.2, is_log=True)
    if from_zero and low >= 0:
        return Scale(0.0, high * 1.05 or 1.0)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room)


def _round_step(least: float) -> float:
    """Return the smallest round number that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))


def tick_digits(value: float, kind: Kind) -> int | None:
    """Return with how many digits a tick is written, so that none is lost; as usual where None."""
    if kind not in _TICKS:
        return None
    unit, least = _TICKS[kind]
    shown = value * unit
    return next((n for n in range(least, 6) if abs(round(shown, n) - shown) < 1e-9), 6)
