"""Intervals against published tables and independent computations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from trpexport.judge.paired import (
    PairedDrop,
    RelativeError,
    Share,
    Verdict,
    images_needed,
    judge,
    mcnemar_p,
    paired_bounds,
    paired_score,
)

COUNTS = st.tuples(*[st.integers(0, 60)] * 3).filter(lambda t: sum(t) > 0)


@pytest.mark.parametrize(
    ("n", "lost", "won", "low", "high"),
    [
        # Fagerland, Lydersen and Laake, "Recommended tests and confidence intervals for paired
        # binomial proportions", Statistics in Medicine 33 (2014), on Bentur et al. (2009).
        (21, 1, 7, -0.517, -0.026),
        # No discordant pair: solving n d / (1 - d) = z^2 by hand.
        (10, 0, 0, -3.841459 / 13.841459, 3.841459 / 13.841459),
    ],
)
def test_tango_published(n: int, lost: int, won: int, low: float, high: float) -> None:
    assert PairedDrop(n, lost, won).interval() == pytest.approx((low, high), abs=5e-4)


@settings(deadline=None)
@given(COUNTS)
def test_tango_solves_the_quartic(counts: tuple[int, int, int]) -> None:
    """Yang, Sun and Hardin (Statistics in Medicine 32, 2013): the limits are roots of a quartic."""
    lost, won, rest = counts
    n, g, d = lost + won + rest, 1.959963984540054**2, lost - won
    polynomial = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((lost + won) / g + 1),
        n * d * (2 * (lost + won) / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - (lost + won)) / g,
    ]
    scale = sum(abs(c) for c in polynomial)
    for end in PairedDrop(n, lost, won).interval():
        assert abs(np.polyval(polynomial, end)) <= 1e-9 * scale or abs(end) == 1


@pytest.mark.parametrize(("n", "lost", "won"), [(50, 12, 2), (517, 47, 16), (200, 0, 5)])
@pytest.mark.parametrize("delta", [-0.3, -0.01, 0.02, 0.25])
def test_the_variance_is_that_of_the_most_likely_table(
    n: int, lost: int, won: int, delta: float
) -> None:
    def negative_log_likelihood(q: float) -> float:
        p = (q + delta, q, 1 - 2 * q - delta)
        counts = (lost, won, n - lost - won)
        return -sum(c * math.log(max(x, 1e-300)) for c, x in zip(counts, p, strict=True))

    bounds = (max(0.0, -delta), (1 - delta) / 2)
    q = optimize.minimize_scalar(
        negative_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
    ).x
    variance = (2 * q + delta - delta**2) / n
    expected = ((lost - won) / n - delta) / math.sqrt(variance)
    assert paired_score(delta, n, lost, won) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None)
@given(COUNTS)
def test_intervals_are_mirrored_and_hold_the_estimate(counts: tuple[int, int, int]) -> None:
    lost, won, rest = counts
    n = lost + won + rest
    low, high = PairedDrop(n, lost, won).interval()
    mirrored = PairedDrop(n, won, lost).interval()
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)
    assert -1 <= low <= (lost - won) / n <= high <= 1


@pytest.mark.parametrize("true", [(0.01, 0.01), (0.04, 0.02), (0.09, 0.03), (0.2, 0.1), (0.02, 0)])
@pytest.mark.parametrize("n", [60, 200, 1000])
def test_coverage(n: int, true: tuple[float, float]) -> None:
    """Of 4,000 samples, close to 95 % hold the true drop; where little differs, more do."""
    lost_share, won_share = true
    generator = np.random.default_rng(7)
    table = generator.multinomial(n, (lost_share, won_share, 1 - sum(true)), size=4000)
    low, high = paired_bounds(n, table[:, 0], table[:, 1])
    covered = np.mean((low <= lost_share - won_share) & (lost_share - won_share <= high))
    assert 0.93 <= covered <= (0.965 if n * won_share >= 5 else 1)


def test_mcnemar_is_the_sign_test() -> None:
    for lost, won in product(range(9), repeat=2):
        if lost + won:
            expected = stats.binomtest(lost, lost + won, 0.5).pvalue
            assert mcnemar_p(lost, won) == pytest.approx(expected)
    assert mcnemar_p(0, 0) == 1
    assert mcnemar_p(1, 7) == pytest.approx(2 * 9 / 256)
    assert 0 < mcnemar_p(5000, 5400) < 1e-3  # no overflow


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_is_scipys(n: int, share: float) -> None:
    count = round(share * n)
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert Share(n, count).interval() == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_relative_error() -> None:
    # By hand: sums of squares 4 and 100 in all, on two images alike: sqrt(4 / 100).
    found = RelativeError.of(np.array([2.0, 2.0]), np.array([50.0, 50.0]))
    assert found.estimate == pytest.approx(0.2)
    assert found.interval() == pytest.approx((0.2, 0.2))
    one = RelativeError.of(np.array([2.0]), np.array([50.0]))
    assert one.interval() == (0, math.inf)  # a single image tells nothing of the others
    assert RelativeError.of(np.zeros(3), np.zeros(3)).estimate == 0
    assert RelativeError.of(np.ones(3), np.zeros(3)).estimate == math.inf


def test_relative_error_covers() -> None:
    generator = np.random.default_rng(3)
    references = generator.gamma(4, size=(2000, 300))
    differences = references * generator.gamma(2, 0.01, size=references.shape)
    ends = np.array(
        [RelativeError.of(d, r).interval() for d, r in zip(differences, references, strict=True)]
    )
    true = math.sqrt(0.02)  # the mean of the second gamma distribution
    assert np.mean((ends[:, 0] <= true) & (true <= ends[:, 1])) == pytest.approx(0.95, abs=0.015)


def test_verdicts_by_hand() -> None:
    # 1,000 images of which 10 differ: 8 lost, 2 won: 0.6 points, interval -0.1 to 1.5.
    sample = PairedDrop(1000, 8, 2)
    assert judge(sample, 0.01) is Verdict.WITHIN
    assert judge(sample, 0.01, confident=True) is Verdict.UNDECIDED
    assert judge(sample, 0.02, confident=True) is Verdict.WITHIN
    assert judge(PairedDrop(1000, 60, 2), 0.01) is Verdict.OVER
    # The drop is over the limit, not surely so; but the sample can tell 5 from 10 points.
    assert judge(PairedDrop(1000, 90, 36), 0.05) is Verdict.OVER
    assert judge(PairedDrop(1000, 90, 36), 0.05, confident=True) is Verdict.UNDECIDED
    # On the limit is within it, rounding or not: 0.7 / 100 is less than 7 / 1000 in binary.
    assert judge(PairedDrop(10_000, 70, 0), 0.7 / 100) is Verdict.WITHIN
    # However alike two networks are, 49 images are too few.
    assert judge(PairedDrop(49, 0, 0), 0.5) is Verdict.UNDECIDED
    assert judge(PairedDrop(50, 0, 0), 0.5) is Verdict.WITHIN


@settings(deadline=None)
@given(COUNTS, st.sampled_from([0.005, 0.01, 0.05, 0.2]), st.booleans())
def test_images_needed_is_the_least_number_that_decides(
    counts: tuple[int, int, int], limit: float, confident: bool
) -> None:
    lost, won, rest = counts
    sample = PairedDrop(lost + won + rest, lost, won)
    needed = images_needed(sample, limit, confident=confident)
    if judge(sample, limit, confident=confident) is not Verdict.UNDECIDED:
        assert needed == sample.n
    elif needed is not None:
        assert needed > sample.n
        for n, decided in ((needed, True), (needed - 1, False)):
            verdict = judge(sample.scaled(n), limit, confident=confident)
            assert (verdict is not Verdict.UNDECIDED) is decided


def test_no_number_of_images_decides_a_tie() -> None:
    assert images_needed(PairedDrop(100, 6, 1), 0.05, confident=True) is None
