from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.measure.statistics import Interval, ratio_interval, summarize
from trpexport.tensors import Array


def test_figures_of_a_few_runs() -> None:
    figures = summarize(np.array([3.0, 1.0, 100.0, 2.0, 4.0]))
    assert figures.median == 3
    assert figures.mad == 1  # of the deviations 0, 2, 97, 1, 1
    assert figures.min == 1
    # between the runs of rank 4 and 5, at 0.9 x 4 = 3.6, 3.8 and 3.96 of the ranks 0 to 4
    assert figures.p90 == pytest.approx(4 + 0.6 * 96)
    assert figures.p95 == pytest.approx(4 + 0.8 * 96)
    assert figures.p99 == pytest.approx(4 + 0.96 * 96)
    assert list(figures.to_json()) == ["median", "mad", "min", "p90", "p95", "p99"]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.01, 1.2, "faster"),
        (0.8, 0.99, "slower"),
        (0.9, 1.1, "no measurable difference"),
        (1.0, 1.2, "no measurable difference"),
        (0.9, 1.0, "no measurable difference"),
    ],
)
def test_an_interval_that_holds_one_says_nothing(low: float, high: float, verdict: str) -> None:
    assert Interval(low, (low + high) / 2, high).verdict == verdict


def test_the_ratio_is_the_speed_up_over_the_base() -> None:
    base = [np.array([2.0, 2.0, 9.0])] * 12
    other = [np.array([1.0, 1.0])] * 12
    assert ratio_interval(base, other) == Interval(2, 2, 2)
    assert ratio_interval(other, base) == Interval(0.5, 0.5, 0.5)


def test_rounds_are_paired() -> None:
    slowdown = np.random.default_rng(0).uniform(1, 10, 15)
    base = [np.array([3.0]) * factor for factor in slowdown]
    other = [np.array([2.0]) * factor for factor in slowdown]
    interval = ratio_interval(base, other)
    assert [interval.low, interval.mid, interval.high] == pytest.approx([1.5, 1.5, 1.5])


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_interval([np.ones(1)] * 3, [np.ones(1)] * 2)
    with pytest.raises(ValueError, match="no rounds"):
        ratio_interval([], [])


rounds = st.lists(
    st.lists(st.floats(1e-5, 10), min_size=1, max_size=4).map(np.array), min_size=1, max_size=15
)


@settings(max_examples=50, deadline=None)
@given(rounds, rounds, st.floats(0.1, 10))
def test_scaling_one_side_scales_the_interval(
    base: list[Array], other: list[Array], factor: float
) -> None:
    count = min(len(base), len(other))
    base, other = base[:count], other[:count]
    plain = ratio_interval(base, other, resamples=50)
    assert plain.low <= plain.mid <= plain.high or np.isclose(plain.low, plain.high)
    scaled = ratio_interval([factor * times for times in base], other, resamples=50)
    assert scaled.low == pytest.approx(factor * plain.low)
    assert scaled.mid == pytest.approx(factor * plain.mid)
    assert scaled.high == pytest.approx(factor * plain.high)


def noisy_rounds(
    generator: np.random.Generator, seconds: float, machine: Array, runs: int
) -> list[Array]:
    """Runs that take a little longer by chance, some much longer, on a machine that drifts."""
    noise = 1 + 0.02 * generator.standard_normal((len(machine), runs))
    noise += 0.1 * generator.exponential(size=noise.shape) * (generator.random(noise.shape) < 0.2)
    return list(seconds * noise * machine[:, np.newaxis])


def drifting_machine(generator: np.random.Generator, rounds: int) -> Array:
    waves = 1 + 0.3 * np.sin(np.linspace(0, 6, rounds) + generator.uniform(0, 6))
    bursts = np.where(generator.random(rounds) < 0.2, 1.8, 1.0)
    return np.asarray(waves * bursts)


@pytest.mark.parametrize(("rounds", "runs"), [(12, 2), (30, 1), (60, 8)])
def test_the_interval_of_identical_models_holds_one_in_95_of_100_measurements(
    rounds: int, runs: int
) -> None:
    generator = np.random.default_rng(rounds)
    trials = 400
    hits = 0
    for trial in range(trials):
        machine = drifting_machine(generator, rounds)
        base = noisy_rounds(generator, 1e-3, machine, runs)
        other = noisy_rounds(generator, 1e-3, machine, runs)
        interval = ratio_interval(base, other, resamples=300, seed=trial)
        hits += interval.verdict == "no measurable difference"
    # three standard deviations of a share of 0.95 in 400 trials are 0.033
    assert 0.95 - 0.033 <= hits / trials <= 0.95 + 0.033


def test_a_difference_of_five_percent_is_seen_through_the_drift() -> None:
    generator = np.random.default_rng(7)
    verdicts = []
    for trial in range(100):
        machine = drifting_machine(generator, 60)
        base = noisy_rounds(generator, 1.05e-3, machine, 8)
        other = noisy_rounds(generator, 1e-3, machine, 8)
        verdicts.append(ratio_interval(base, other, resamples=300, seed=trial).verdict)
    assert verdicts.count("faster") >= 99
