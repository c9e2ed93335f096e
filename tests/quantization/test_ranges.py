"""Ranges, against NumPy on all values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trpexport.quantization.ranges import METHODS, Histogram


def counted(*parts: object) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    shift=st.floats(-3, 3),
)
def test_the_order_and_the_growth_of_values_do_not_matter(
    seed: int, sizes: list[float], shift: float
) -> None:
    rng = np.random.default_rng(seed)
    parts = [((rng.normal(size=500) + shift) * size).astype(np.float32) for size in sizes]
    values = np.concatenate(parts)
    histogram = counted(*parts)
    assert histogram.whole() == (values.min(), values.max())
    width = 2 * 2 * float(np.abs(values).max()) / 4096  # of a bin, once the reach has doubled
    for percent in (90.0, 99.0):
        low, high = histogram.percentile(percent)
        cut = len(values) * (100 - percent) / 200
        assert (values < low).sum() <= cut <= (values <= low + 2 * width).sum() + 1
        assert (values > high).sum() <= cut <= (values >= high - 2 * width).sum() + 1


def test_entropy_cuts_off_what_lies_far_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_000)
    low, high = counted(values, [60.0]).least_divergence()
    assert (low, high) == pytest.approx((values.min(), 4.0), abs=2.0)
    assert high < 10


def test_entropy_keeps_a_range_that_is_used_evenly() -> None:
    values = np.random.default_rng(0).uniform(0, 3, 100_000)
    low, high = counted(values).least_divergence()
    assert (low, high) == pytest.approx((0, 3), abs=0.01)


def test_least_squares_weighs_rounding_against_cutting_off() -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 30.0).astype(np.float32)

    def lost(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.square(np.clip(np.round(values / step) * step, low, high) - values).sum())

    low, high = counted(values).least_squares()
    assert lost(low, high) < lost(float(values.min()), 30.0)
    tried = [lost(low * share, high * share) for share in (0.6, 0.8, 1.25, 1.6)]
    assert lost(low, high) < min(tried)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[0.0, 0.0]], (0, 0)),
        ([[]], (0, 0)),
        ([[], [2.0]], (2, 2)),
        ([[0.0], [0.0, -3.0]], (-3, 0)),
    ],
    ids=["zeros", "nothing", "one value", "zeros first"],
)
def test_few_values_have_ranges_as_well(
    method: str, parts: list[list[float]], expected: tuple[float, float]
) -> None:
    assert METHODS[method](counted(*parts)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_told(value: float) -> None:
    histogram = counted([1.0, 2.0], [0.0, value])
    assert not histogram.is_finite
    assert histogram.whole() == (1, 2)


def test_ranges_lie_within_what_was_seen() -> None:
    histogram = counted(np.random.default_rng(0).exponential(size=10_000))
    for choose in METHODS.values():
        low, high = choose(histogram)
        assert histogram.lowest <= low < high <= histogram.highest
