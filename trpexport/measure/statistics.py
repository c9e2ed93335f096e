"""Figures of timed runs, and whether two models differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from trpexport.tensors import Array

Verdict = Literal["faster", "slower", "no measurable difference"]
_BATCH_ELEMENTS = 1_000_000  # resampled at a time: 8 MB


@dataclass(frozen=True)
class Summary:
    """How long runs took, in seconds.

    Attributes:
        median: half of the runs took no longer.
        mad: median absolute deviation from the median; not scaled to a standard deviation.
        min: the shortest run.
        p90: nine in ten runs took no longer.
        p95: 19 in 20 did not.
        p99: 99 in 100 did not.
    """

    median: float
    mad: float
    min: float
    p90: float
    p95: float
    p99: float

    def to_json(self) -> dict[str, float]:
        """Return the figures as JSON-ready data."""
        return asdict(self)


def summarize(seconds: Array) -> Summary:
    """Return the figures of runs, given the seconds of each (at least one)."""
    median = float(np.median(seconds))
    p90, p95, p99 = (float(value) for value in np.percentile(seconds, (90, 95, 99)))
    mad = float(np.median(np.abs(seconds - median)))
    return Summary(median, mad, float(seconds.min()), p90, p95, p99)


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a speed-up.

    Attributes:
        low: its lower end.
        mid: the estimate.
        high: its upper end.
    """

    low: float
    mid: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What can be said: nothing, if the interval holds 1."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no measurable difference"

    def to_json(self) -> dict[str, Any]:
        """Return the interval and its verdict as JSON-ready data."""
        return {**asdict(self), "verdict": self.verdict}


def ratio_interval(
    base: Sequence[Array],
    other: Sequence[Array],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return how many times faster than ``base`` a model is, with a bootstrap interval.

    The estimate is the median, over the rounds, of the ratio of the two medians within a round.
    Both halves of a ratio are measured within milliseconds, so that what slows the machine down
    for longer (another job, a hot processor) cancels; the median within a block ignores
    single runs that were interrupted, and the median over rounds ignores whole blocks that were.
    The interval resamples rounds, which are independent where runs within a block are not
    (percentile bootstrap; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    Two ResNet-20 measured again and again on a machine with more work than cores: the standard
    deviation of this estimate was 0.7 % on one thread and on two. That of the ratio of the two
    medians over all runs was the same in long measurements, and twice that in short ones (15
    rounds, one thread); of the two means, 3 %; of the median ratio of the minima within a round,
    0.1 % on one thread, but 4 % on two, where a single lucky run decides.

    Args:
        base: seconds of the runs of the baseline, one array a round.
        other: seconds of the runs of the other model, in the same rounds.
        confidence: of the interval.
        resamples: number of bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: the rounds differ in number, or there are none.
    """
    ratios = np.array(
        [np.median(a) / np.median(b) for a, b in zip(base, other, strict=True)], np.float64
    )
    if not len(ratios):
        raise ValueError("no rounds to compare")
    generator = np.random.default_rng(seed)
    medians: list[float] = []
    while len(medians) < resamples:
        count = min(resamples - len(medians), max(1, _BATCH_ELEMENTS // len(ratios)))
        sample = generator.choice(ratios, (count, len(ratios)))
        medians.extend(np.median(sample, axis=1).tolist())
    tail = 50 * (1 - confidence)
    low, high = np.percentile(medians, (tail, 100 - tail))
    return Interval(float(low), float(np.median(ratios)), float(high))
