"""The free diagonal between two linear operators, chosen for the quantizer.

Where nothing stands between ``h = A x + a`` and ``y = B h + b``, any diagonal D that can be
inverted leaves what they compute as it is: ``D A``, ``D a`` and ``B D^-1`` do the same. What it
changes is what quantization does to y. h gets one step for all of its channels, in proportion to
the sum of its largest value and its lowest one's distance below zero; B gets one for each of its
outputs, in proportion to the largest weight of the row. A has one a row as well, so it does not
care about D. A step s leaves an error of s²/12, and errors of different values are independent, so
that 12 times the expected squared error of y, summed over its channels, is ::

    J(d) = s(d)² sum_i v_i / d_i²  +  sum_j t_j(d)² sum_i d_i² q_i

    s(d) = (max_i d_i high_i + max_i d_i low_i) / 255,  v_i = sum_j B_ji²
    t_j(d) = max_i |B_ji| / d_i / 127,                  q_i = mean of h_i²

The first term alone would have all channels of h use the same range, the second all columns of B.
The sign of d_i is free as well: a channel whose values lie below zero is flipped, so that fewer
channels ask for the other side. As a function of ``log d``, J is a sum of exponentials of convex
functions: it is convex, and a descent finds its minimum. For it the maxima are smoothed into norms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEPS, _WEIGHT_STEPS = 255, 127  # of an activation's range, and of a weight's absolute value
_NORM = 24  # that stands for a maximum while descending
_DESCENTS = 60
_SHARES = np.linspace(0, 1, 11)  # of ranges against columns, where a descent begins
_TINY = 1e-30

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What is known of the channels of the tensor between two operators.

    Attributes:
        high: largest value of each, at least 0.
        low: how far each goes below 0, at least 0.
        square: mean square of each.
    """

    high: Floats
    low: Floats
    square: Floats


@dataclass(frozen=True)
class Diagonal:
    """A diagonal between two operators.

    Attributes:
        factors: what each channel is multiplied with; none is 0.
        before: expected squared error of the outputs without it, in the units of the outputs.
        after: with it; at most as much.
    """

    factors: Floats
    before: float
    after: float


def best_diagonal(kernel: Floats, channels: Statistics, *, is_symmetric: bool) -> Diagonal:
    """Return the diagonal that the second of two operators loses least by when both are quantized.

    Args:
        kernel: of the second operator, (groups, outputs, inputs, taps), both of a group.
        channels: of the tensor between the two, group after group.
        is_symmetric: whether that tensor's range is as large on both sides of 0.
    """
    size = np.maximum(channels.high, channels.low)
    is_alive = (size > 0) & (np.abs(kernel).max((1, 3)).reshape(-1) > 0)
    is_flipped = (channels.low > channels.high) & (not is_symmetric)
    high = size if is_symmetric else np.where(is_flipped, channels.low, channels.high)
    low = size if is_symmetric else np.where(is_flipped, channels.high, channels.low)
    # What is always 0, or is not used, takes part in nothing: it keeps a factor of 1.
    loss = _Loss(
        kernel, *(np.where(is_alive, values, 0) for values in (high, low, channels.square))
    )
    unchanged = _Loss(
        kernel,
        size if is_symmetric else channels.high,
        size if is_symmetric else channels.low,
        channels.square,
    )
    start = np.zeros(len(size))
    before = unchanged(start)
    if not is_alive.any():
        return Diagonal(np.ones(len(size)), before, before)
    spread = np.log(np.where(is_alive, high + low, 1)), np.log(np.where(is_alive, loss.columns, 1))
    starts = [start, *((1 - share) * spread[1] - share * spread[0] for share in _SHARES)]
    best = _descended(loss, min(starts, key=loss), is_alive)
    after = loss(best)
    if not after < before:
        return Diagonal(np.ones(len(size)), before, before)
    factors = np.where(is_alive, np.exp(best), 1)
    # J does not see a common factor: this one keeps the range of the tensor as it was.
    factors[is_alive] *= (high + low)[is_alive].max() / (factors * (high + low))[is_alive].max()
    return Diagonal(np.where(is_flipped & is_alive, -factors, factors), before, after)


class _Loss:
    """J of the logarithms of a diagonal."""

    def __init__(self, kernel: Floats, high: Floats, low: Floats, square: Floats) -> None:
        groups, _, inputs, taps = kernel.shape
        self._shape = (groups, inputs)
        self._sides = high, low
        self._taps = taps
        self._largest = np.abs(kernel).max(3)  # of each output for each input
        self.columns = self._largest.max(1).reshape(-1)
        self._energy = np.square(kernel).sum((1, 3)).reshape(-1)
        self._square = square

    def __call__(self, logs: Floats) -> float:
        """Return J / 12."""
        value, _ = self._terms(logs, None)
        return value / 12

    def smoothed(self, logs: Floats) -> tuple[float, Floats]:
        """Return the logarithm of J, with norms for maxima, and its gradient."""
        value, gradient = self._terms(logs, _NORM)
        return float(np.log(value)), gradient / value

    def _terms(self, logs: Floats, norm: int | None) -> tuple[float, Floats]:
        d = np.exp(logs)
        sides = [_largest(d * side, norm) for side in self._sides]
        step = sum(size for size, _ in sides) / _STEPS
        noise = self._energy / np.square(d)
        rows = self._largest / d.reshape(self._shape)[:, None]
        steps, shares = _largest(rows, norm)
        squares = np.square(steps) * self._taps / _WEIGHT_STEPS**2  # of each output
        power = np.square(d) * self._square
        powers = power.reshape(self._shape).sum(1)
        value = step**2 * noise.sum() + float((squares.sum(1) * powers).sum())
        by_step = sum(size * share for size, share in sides) / _STEPS
        by_row = (squares[:, :, None] * shares).sum(1) * powers[:, None]
        gradient = 2 * (
            step * by_step * noise.sum()
            - step**2 * noise
            - by_row.reshape(-1)
            + (squares.sum(1)[:, None] * power.reshape(self._shape)).reshape(-1)
        )
        return float(value), gradient


def _largest(values: Floats, norm: int | None) -> tuple[Floats, Floats]:
    """Return the largest value along the last axis, and its derivatives by the values' logarithms.

    These are shares of the largest value: all of it for the value itself, or for a norm in its
    place what each contributes.
    """
    peak = values.max(-1, keepdims=True)
    if norm is None:
        return peak[..., 0], (values == peak).astype(np.float64)
    powers = (values / np.maximum(peak, _TINY)) ** norm
    total = np.maximum(powers.sum(-1, keepdims=True), _TINY)
    return (peak * total ** (1 / norm))[..., 0], powers / total


def _descended(loss: _Loss, logs: Floats, is_alive: NDArray[np.bool_]) -> Floats:
    """Return the best place on the way down from one, by J itself."""
    best, least = logs, loss(logs)
    value, gradient = loss.smoothed(logs)
    length = 0.5
    for _ in range(_DESCENTS):
        moved = logs - length * np.where(is_alive, gradient, 0)
        found, slope = loss.smoothed(moved)
        if found >= value:
            length /= 2
            continue
        logs, value, gradient = moved, found, slope
        length *= 1.5
        if (exact := loss(logs)) < least:
            best, least = logs, exact
    return best
