"""Which range of values a tensor is quantized in, from what it took on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from trpexport.tensors import Array

Range = tuple[float, float]

_BINS = 4096
_SAMPLED = 1 << 18  # values of a tensor that a batch adds to its histogram
_LEVELS = 256
_CANDIDATES = 100  # ends of a range that are tried for the least divergence
_SHARES = tuple(np.linspace(1, 0.2, 81))  # of a range, tried for the least squared error


class Histogram:
    """Counts values between -R and R, where R doubles as larger ones come.

    Attributes:
        lowest, highest: of all values, exactly.
        is_finite: whether none was infinite or no number.
    """

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self.is_finite = True
        self._counts = np.zeros(_BINS, np.int64)
        self._reach = 0.0

    def add(self, values: Array) -> None:
        """Take in values: the lowest and the highest of all, counts of an even sample."""
        if values.size == 0:
            return
        flat = values.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        if not np.isfinite(low + high):
            self.is_finite = False
            return
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self._reach_to(max(-low, high))
        # An odd step does not always meet the same columns.
        sample = flat[:: flat.size // _SAMPLED | 1].astype(np.float64)
        places = (sample + self._reach) * (_BINS / 2 / (self._reach or 1.0))
        self._counts += np.bincount(np.clip(places.astype(np.int64), 0, _BINS - 1), minlength=_BINS)

    def whole(self) -> Range:
        """Return the lowest and the highest value."""
        return (self.lowest, self.highest) if self.lowest <= self.highest else (0.0, 0.0)

    def percentile(self, share: float) -> Range:
        """Return the range that leaves out an equal share of the values at both ends.

        Args:
            share: of the values that it holds, in percent.
        """
        total = self._counts.sum()
        if not total:
            return self.whole()
        below = np.cumsum(self._counts)
        cut = total * (100 - share) / 200
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        low = edges[np.searchsorted(below, cut, side="right")]
        high = edges[min(np.searchsorted(below, total - cut) + 1, _BINS)]
        return self._within(float(low), float(high))

    def least_divergence(self) -> Range:
        """Return the range in which rounding changes the distribution of the values least.

        That is by the Kullback-Leibler divergence, as in NVIDIA's "8-bit inference with TensorRT"
        (2017): the ends are equally far from 0, as far as there are values.
        """
        folded = self._counts[_BINS // 2 :] + self._counts[: _BINS // 2][::-1]
        used = int(np.flatnonzero(folded)[-1]) + 1 if folded.any() else 0
        levels = _LEVELS if self.lowest >= 0 else _LEVELS // 2
        ends = np.unique(np.linspace(levels, used, _CANDIDATES).astype(int))
        if used <= levels:
            return self.whole()
        best = min(ends, key=lambda end: _divergence(folded, int(end), levels))
        reach = self._reach * 2 * int(best) / _BINS
        return self._within(-reach, reach)

    def least_squares(self) -> Range:
        """Return the range in which values change least: by rounding, and by being cut off."""
        if not self._counts.any():
            return self.whole()
        low, high = min(self.lowest, 0.0), max(self.highest, 0.0)
        middles = (np.arange(_BINS) + 0.5 - _BINS / 2) * (2 * self._reach / _BINS)

        def lost(share: float) -> float:
            clipped = middles - np.clip(middles, low * share, high * share)
            step = (high - low) * share / (_LEVELS - 1)
            inside = np.where(clipped == 0, step**2 / 12, 0.0)
            return float((self._counts * (np.square(clipped) + inside)).sum())

        share = min(_SHARES, key=lost)
        return self._within(low * share, high * share)

    def _within(self, low: float, high: float) -> Range:
        return max(low, self.lowest), min(high, self.highest)

    def _reach_to(self, size: float) -> None:
        """Make room for values of a size: two neighbouring bins become one."""
        if self._reach == 0.0:  # so far all were 0, which stays in the middle
            self._reach = size
        while self._reach < size:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.pad(pairs, _BINS // 4)
            self._reach *= 2


def _divergence(counts: NDArray[np.int64], end: int, levels: int) -> float:
    """Return how far rounding to so many levels takes the distribution below an end."""
    kept = counts[:end].astype(np.float64)
    clipped = kept.copy()
    clipped[-1] += counts[end:].sum()
    starts = np.arange(levels) * end // levels
    sizes = np.diff(np.append(starts, end))
    is_used = kept > 0
    used = np.maximum(np.add.reduceat(is_used, starts, dtype=np.int64), 1)
    rounded = np.repeat(np.add.reduceat(kept, starts) / used, sizes) * is_used
    p, q = clipped / clipped.sum(), rounded / max(rounded.sum(), 1.0)
    is_known = (p > 0) & (q > 0)
    # What q takes for impossible, values beyond the end alone, counts as very unlikely.
    missing = p[(p > 0) & (q == 0)].sum()
    return float((p[is_known] * np.log(p[is_known] / q[is_known])).sum() + missing * np.log(_BINS))


METHODS: Mapping[str, Callable[[Histogram], Range]] = {
    "min-max": Histogram.whole,
    "percentile 99.999": lambda histogram: histogram.percentile(99.999),
    "percentile 99.99": lambda histogram: histogram.percentile(99.99),
    "entropy": Histogram.least_divergence,
    "least squares": Histogram.least_squares,
}
"""How a range is chosen, by name: the ones that are tried."""
