"""What a metric would be on other samples: a bootstrap over its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trpexport.judge.metrics.base import Terms
from trpexport.judge.paired import CONFIDENCE, normal_quantile

_ROUNDS = 1000
_GROUPS = 4096  # beyond, samples are drawn in groups: as exact, and in time that does not grow
_CHUNK = 100  # rounds at a time


def resampled(terms: Sequence[Terms], seed: int = 0) -> NDArray[np.float64]:
    """Return the metrics of several networks on samples drawn with replacement.

    All networks get the same draws: their differences are paired (Efron and Tibshirani, "An
    Introduction to the Bootstrap", 1993, chapter 8).

    Args:
        terms: of each network, on the same samples.
        seed: of the draws.

    Returns:
        (networks, rounds).
    """
    grouped = [_grouped(some) for some in terms]
    count = len(grouped[0].numerators)
    generator = np.random.default_rng(seed)
    rounds = []
    for _ in range(0, _ROUNDS, _CHUNK):
        weights = generator.multinomial(count, np.full(count, 1 / count), _CHUNK).astype(float)
        rounds.append(np.stack([some.value(weights) for some in grouped]))
    return np.concatenate(rounds, axis=1)


def _grouped(terms: Terms) -> Terms:
    count = len(terms.numerators)
    if count <= _GROUPS:
        return terms
    # Neighbours are often alike: a group takes samples from all over.
    starts = np.arange(_GROUPS) * count // _GROUPS
    order = np.argsort(np.random.default_rng(0).random(count))
    sums = [np.add.reduceat(a[order], starts) for a in (terms.numerators, terms.denominators)]
    return Terms(sums[0], sums[1], terms.finish)


@dataclass(frozen=True)
class ResampledLoss:
    """How much worse a candidate is by a metric than its baseline, on the same samples.

    Attributes:
        n: number of samples.
        estimate: the loss: positive where the candidate is worse.
        error: its standard error, by a bootstrap over samples.
    """

    n: float
    estimate: float
    error: float

    @classmethod
    def between(cls, before: Terms, after: Terms, *, lower_is_better: bool) -> ResampledLoss:
        """Measure it on the same samples of both."""
        sign = -1.0 if lower_is_better else 1.0
        estimate = sign * float(before.value()[0] - after.value()[0])
        drawn = resampled((before, after))
        return cls(len(before.numerators), estimate, float(np.nanstd(drawn[0] - drawn[1], ddof=1)))

    def score(self, loss: float) -> float:
        """Return how many standard errors it lies above ``loss``."""
        difference = self.estimate - loss
        if difference == 0:
            return 0.0
        return difference / self.error if self.error else float(np.copysign(np.inf, difference))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the normal interval of the loss."""
        half = normal_quantile((1 + confidence) / 2) * self.error
        return self.estimate - half, self.estimate + half

    def scaled(self, n: float) -> ResampledLoss:
        """Return what ``n`` samples would show if they were of the same kind."""
        return ResampledLoss(n, self.estimate, self.error * float(np.sqrt(self.n / n)))
