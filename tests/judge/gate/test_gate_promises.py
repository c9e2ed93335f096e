"""The gate's two promises: by simulation, as a user would meet them, and by enumeration."""

from __future__ import annotations

from math import lgamma

import numpy as np
import pytest

from trpexport.judge.paired import (
    EXCLUSION,
    MIN_IMAGES,
    PairedDrop,
    Share,
    Verdict,
    judge,
    normal_quantile,
    paired_score,
)

RUNS = 1000
# (limit, share of images won): two networks that hardly differ, and two that differ a lot.
KINDS = [(0.01, 0.002), (0.01, 0.03), (0.03, 0.01), (0.1, 0.05), (0.15, 0.2)]


def passes(n: int, limit: float, drop: float, won: float, *, confident: bool) -> int:
    """Return how many of 1,000 simulated gates pass."""
    generator = np.random.default_rng([n, int(1000 * limit)])
    tables = generator.multinomial(n, (drop + won, won, 1 - drop - 2 * won), size=RUNS)
    different, counts = np.unique(tables[:, :2], axis=0, return_counts=True)
    return sum(
        int(count)
        for (lost, gained), count in zip(different, counts, strict=True)
        if judge(PairedDrop(n, int(lost), int(gained)), limit, confident=confident)
        is Verdict.WITHIN
    )


@pytest.mark.parametrize("n", [30, 50, 100, 517, 2000, 10_000])
@pytest.mark.parametrize(("limit", "won"), KINDS)
def test_twice_the_limit_passes_in_less_than_one_in_a_hundred(
    n: int, limit: float, won: float
) -> None:
    assert passes(n, limit, 2 * limit, won, confident=False) < 0.01 * RUNS


@pytest.mark.parametrize("n", [50, 100, 517, 2000, 10_000])
@pytest.mark.parametrize(("limit", "won"), KINDS)
def test_confident_passes_the_limit_itself_in_less_than_one_in_twenty(
    n: int, limit: float, won: float
) -> None:
    assert passes(n, limit, limit, won, confident=True) < 0.05 * RUNS


@pytest.mark.parametrize(("limit", "won"), KINDS)
@pytest.mark.parametrize("confident", [False, True])
def test_a_harmless_candidate_passes_with_enough_images(
    limit: float, won: float, confident: bool
) -> None:
    assert passes(30_000, limit, 0, won, confident=confident) > 0.99 * RUNS


@pytest.mark.parametrize("n", [MIN_IMAGES, 55, 70, 100, 200])
def test_the_levels_hold_for_every_table(n: int) -> None:
    """The exact probability to pass, over all tables, at the worst of many discordances."""
    lost, won = np.mgrid[0 : n + 1, 0 : n + 1]
    lost, won = lost[lost + won <= n], won[lost + won <= n]
    log_factorial = np.array([lgamma(i + 1) for i in range(n + 1)])
    ways = log_factorial[n] - log_factorial[lost] - log_factorial[won]
    ways -= log_factorial[n - lost - won]

    def probability(drop: float, won_share: float, chosen: np.ndarray) -> float:
        shares = (drop + won_share, won_share, 1 - drop - 2 * won_share)
        counts = (lost[chosen], won[chosen], (n - lost - won)[chosen])
        logs = sum(c * np.log(max(p, 1e-300)) for c, p in zip(counts, shares, strict=True))
        return float(np.exp(ways[chosen] + logs).sum())

    z = normal_quantile(1 - EXCLUSION)
    worst = [0.0, 0.0]
    for limit in np.geomspace(0.005, 0.45, 12):
        # As judge() does it, for all tables at once: a bound is below a drop where the score is.
        excludes = (lost - won <= limit * n) & (paired_score(2 * limit, n, lost, won) < -z)
        confident = excludes & (paired_score(limit, n, lost, won) <= -normal_quantile(0.975))
        for won_share in (0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4):
            if 2 * limit + 2 * won_share <= 1:
                worst[0] = max(worst[0], probability(2 * limit, won_share, excludes))
            if limit + 2 * won_share <= 1:
                worst[1] = max(worst[1], probability(limit, won_share, confident))
    assert 0 < worst[0] < 0.009
    assert 0 < worst[1] < 0.034


def test_the_enumeration_judges_as_judge_does() -> None:
    n, limit = 60, 0.1
    for lost in range(0, n, 3):
        for won in range(0, n - lost, 4):
            excluded = float(paired_score(2 * limit, n, lost, won)) < -normal_quantile(0.995)
            expected = lost - won <= limit * n and excluded
            assert (judge(PairedDrop(n, lost, won), limit) is Verdict.WITHIN) is expected


@pytest.mark.parametrize("n", [50, 100, 500, 2000])
@pytest.mark.parametrize("limit", [0.01, 0.05, 0.2])
def test_agreement_keeps_the_same_promises(n: int, limit: float) -> None:
    generator = np.random.default_rng(n)
    for true, confident, most in ((2 * limit, False, 0.01), (limit, True, 0.05)):
        counts = generator.binomial(n, true, size=RUNS)
        passed = sum(
            judge(Share(n, int(c)), limit, confident=confident) is Verdict.WITHIN for c in counts
        )
        assert passed < most * RUNS
