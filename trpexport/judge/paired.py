"""What a sample of images says about the whole: intervals, and whether there are enough images.

A gate measures a *loss*, where larger is worse, on a sample: the accuracy drop, the share of
images that two networks classify differently, the error of an output. Each is a :class:`Sample`
here, and :func:`judge` is the one place that turns it into a verdict.

Only numpy and the standard library are needed, so that a gate runs where scipy is not installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
EXCLUSION = 0.005  # one-sided level at which a loss of twice the limit must be excluded
MIN_IMAGES = 50  # below, the approximation behind a score interval is not good enough
_STEPS = 50  # of a bisection: each halves an interval no longer than 2
_MOST_IMAGES = 10**9  # a number of images beyond which it is not worth asking for more


def normal_quantile(probability: float) -> float:
    """Return the value that a standard normal variable stays below with this probability."""
    return NormalDist().inv_cdf(probability)


def paired_score(
    delta: ArrayLike, n: ArrayLike, lost: ArrayLike, won: ArrayLike
) -> NDArray[np.float64]:
    """Return how many standard errors a drop lies above ``delta``, were that the true one.

    The score statistic of Tango, "Equivalence test and confidence interval for the difference in
    proportions for the paired-sample design", Statistics in Medicine 17 (1998), equation 6: the
    variance is that of the most likely table whose drop is ``delta``. All arguments broadcast.

    Args:
        delta: a drop between -1 and 1, exclusively.
        n: number of pairs.
        lost: pairs that the baseline has right and the candidate wrong.
        won: the reverse.
    """
    delta, n, lost, won = (np.asarray(value, np.float64) for value in (delta, n, lost, won))
    linear = (2 * n - lost + won) * delta - lost - won
    root = np.sqrt(np.maximum(linear**2 + 8 * n * won * delta * (1 - delta), 0))
    won_share = (root - linear) / (4 * n)  # the restricted maximum likelihood estimate
    variance = n * np.maximum(2 * won_share + delta * (1 - delta), 0)
    difference = lost - won - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        score = difference / np.sqrt(variance)
    result: NDArray[np.float64] = np.where(difference == 0, 0.0, score)
    return result


def paired_bounds(
    n: ArrayLike, lost: ArrayLike, won: ArrayLike, confidence: float = CONFIDENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Tango's score interval of a paired drop: all that the score test does not reject.

    The arguments broadcast, as those of :func:`paired_score`; counts need not be whole.
    """
    n, lost, won = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (n, lost, won)))
    z = normal_quantile((1 + confidence) / 2)
    estimate = (lost - won) / n

    def end(edge: float, sign: float) -> NDArray[np.float64]:
        inside, outside = estimate.copy(), np.full(n.shape, edge)
        for _ in range(_STEPS):  # the score falls as delta rises
            middle = (inside + outside) / 2
            kept = sign * paired_score(middle, n, lost, won) <= z
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        return np.where(np.abs(estimate - edge) == 0, edge, inside)

    return end(-1.0, 1.0), end(1.0, -1.0)


def mcnemar_p(lost: int, won: int) -> float:
    """Return the two-sided p-value of the exact McNemar test: is there any drop or gain at all?

    Under none, an image on which the two networks differ is as likely to be lost as won
    (McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12, 1947; the exact form is the sign test).
    """
    total = lost + won
    term: int = 1
    tail: int = 1
    for k in range(min(lost, won)):  # whole numbers: exact for any count
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, float(2 * tail / (1 << total)))


class Sample(Protocol):
    """A loss, measured on ``n`` images: larger is worse."""

    @property
    def n(self) -> int | float:
        """The number of images."""

    @property
    def estimate(self) -> float:
        """The loss on the sample."""

    def score(self, loss: float) -> float:
        """Return how many standard errors the sample lies above ``loss``, were that the true one.

        The interval holds the losses whose score is not too large: each is the other's dual.
        """

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the two-sided confidence interval of the loss."""

    def scaled(self, n: float) -> Sample:
        """Return what ``n`` images would show with the very same shares."""


@dataclass(frozen=True)
class PairedDrop:
    """The accuracy that a candidate loses against its baseline on the same images.

    Attributes:
        n: number of images.
        lost: those that the baseline has right and the candidate wrong.
        won: the reverse.
    """

    n: float
    lost: float
    won: float

    @property
    def estimate(self) -> float:
        """The drop, a share of all images."""
        return (self.lost - self.won) / self.n

    def score(self, loss: float) -> float:
        """Return Tango's score."""
        if loss >= 1:
            return 0.0 if self.estimate >= 1 else -math.inf
        return float(paired_score(loss, self.n, self.lost, self.won))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return Tango's score interval."""
        low, high = paired_bounds(self.n, self.lost, self.won, confidence)
        return float(low), float(high)

    def scaled(self, n: float) -> PairedDrop:
        """Return what ``n`` images would show with the very same shares."""
        return PairedDrop(n, self.lost * n / self.n, self.won * n / self.n)


@dataclass(frozen=True)
class Share:
    """How many of the images have some fault.

    Attributes:
        n: number of images.
        count: those that have it.
    """

    n: float
    count: float

    @property
    def estimate(self) -> float:
        """The share."""
        return self.count / self.n

    def score(self, loss: float) -> float:
        """Return the score of the binomial proportion."""
        if loss >= 1:
            return 0.0 if self.estimate >= 1 else -math.inf
        return (self.estimate - loss) / math.sqrt(loss * (1 - loss) / self.n)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the score interval.

        Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
        the American Statistical Association 22 (1927).
        """
        z2 = normal_quantile((1 + confidence) / 2) ** 2
        share, n = self.estimate, self.n
        middle = share + z2 / (2 * n)
        half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
        scale = 1 + z2 / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)

    def scaled(self, n: float) -> Share:
        """Return what ``n`` images would show with the very same share."""
        return Share(n, self.count * n / self.n)


@dataclass(frozen=True)
class RelativeError:
    """The RMS of a difference over the RMS of the reference, over all images.

    Attributes:
        n: number of images.
        square: the estimate squared: a ratio of two means over images.
        square_deviation: standard deviation of one image's part in ``square``; the standard error
            of ``square`` is this over the root of ``n`` (ratio estimator, linearised; Cochran,
            "Sampling Techniques", 3rd edition, 1977, section 6.4).
    """

    n: float
    square: float
    square_deviation: float

    @classmethod
    def of(cls, differences: NDArray[Any], references: NDArray[Any]) -> RelativeError:
        """Measure it.

        Args:
            differences: sum of the squared differences of each image, (n,).
            references: sum of the reference's squares of each image, (n,).
        """
        n, mean = len(references), float(np.mean(references))
        if mean == 0 or not math.isfinite(mean):
            return cls(n, 0.0 if not np.any(differences) else math.inf, 0.0)
        square = float(np.mean(differences)) / mean
        residuals = (differences - square * references) / mean
        deviation = float(np.sqrt(np.sum(residuals**2) / (n - 1))) if n > 1 else math.inf
        return cls(n, square, deviation)

    @property
    def estimate(self) -> float:
        """The relative error."""
        return math.sqrt(self.square)

    def score(self, loss: float) -> float:
        """Return the score of the square."""
        difference = self.square - loss**2
        if difference == 0 or math.isinf(self.square_deviation):
            return 0.0
        error = self.square_deviation / math.sqrt(self.n)
        return difference / error if error else math.copysign(math.inf, difference)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Return the normal interval of the square, with the roots of its ends."""
        half = normal_quantile((1 + confidence) / 2) * self.square_deviation / math.sqrt(self.n)
        if not math.isfinite(half):
            return 0.0, math.inf
        return math.sqrt(max(0.0, self.square - half)), math.sqrt(self.square + half)

    def scaled(self, n: float) -> RelativeError:
        """Return what ``n`` images would show if they were of the same kind."""
        return RelativeError(n, self.square, self.square_deviation)


class Verdict(Enum):
    """What a sample says about a limit."""

    WITHIN = "within the limit"
    OVER = "over the limit"
    UNDECIDED = "too few images"


def judge(sample: Sample, limit: float, *, confident: bool = False) -> Verdict:
    """Say whether a loss keeps within its limit, as far as the sample can tell.

    Only ``WITHIN`` is a pass. It takes four things:

    1. the loss on the sample is at most the limit;
    2. the sample excludes a true loss of twice the limit: the one-sided upper bound at the level
       :data:`EXCLUSION` is below that. This is what "enough images" means, and it needs no table
       of sizes: whatever the number of images and however often the networks differ, one that
       really loses twice the limit passes no more often than this test errs. Its level is half
       of the 1 % that is promised, because a score test is an approximation;
    3. there are at least :data:`MIN_IMAGES`. Enumerating all tables shows that from there on the
       real level is below 0.9 %, at any discordance and any limit; with 32 images it can be 1.2 %,
       with 3 images 3.6 %;
    4. if ``confident``, the whole 95 % interval lies within the limit: a true loss at the limit
       passes in 2.5 % of all samples, and by the same enumeration in 3.3 % at worst.

    A failure is ``OVER`` where the sample shows the loss to be too large: the whole interval is
    above the limit, or the loss on the sample is above it and the sample is fine enough to tell
    the limit from twice the limit. Else it is ``UNDECIDED``: more images could turn it into a
    pass.
    """
    z, z_exclusion = normal_quantile((1 + CONFIDENCE) / 2), normal_quantile(1 - EXCLUSION)
    enough = sample.n >= MIN_IMAGES
    # A limit of 0.7 points is 0.00699... in binary; 7 of 1,000 images are not over it.
    if sample.estimate <= limit or math.isclose(sample.estimate, limit, rel_tol=1e-12):
        within = enough and sample.score(2 * limit) < -z_exclusion
        within = within and (sample.score(limit) <= -z or not confident)
        return Verdict.WITHIN if within else Verdict.UNDECIDED
    resolves = enough and sample.score(sample.estimate + limit) <= -z_exclusion
    over = sample.score(limit) > z or (resolves and not confident)
    return Verdict.OVER if over else Verdict.UNDECIDED


def images_needed(sample: Sample, limit: float, *, confident: bool = False) -> int | None:
    """Return how many images would decide, if they showed the very shares that these show.

    None where no number within reason would.
    """

    def decides(n: int) -> bool:
        return judge(sample.scaled(n), limit, confident=confident) is not Verdict.UNDECIDED

    too_few = enough = max(1, int(sample.n))
    while not decides(enough):
        too_few, enough = enough, 2 * enough
        if enough > _MOST_IMAGES:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if decides(middle) else (middle, enough)
    return enough
