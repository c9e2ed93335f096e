"""Where values are along an axis, and which are written there."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trpexport.report.blocks import Kind
from trpexport.report.render.scales import Scale, scale, tick_digits

VALUES = st.lists(st.floats(-1e12, 1e12).map(lambda value: value if value else 0.0), max_size=9)


@given(values=VALUES, from_zero=st.booleans(), may_be_log=st.booleans())
@example(values=[6e-5, 8e9], from_zero=False, may_be_log=True)
@example(values=[1e-300, 1e300], from_zero=False, may_be_log=True)
def test_all_values_are_inside(values: list[float], from_zero: bool, may_be_log: bool) -> None:
    found = scale(values, from_zero=from_zero, may_be_log=may_be_log)
    assert all(0 <= found(value) <= 1 for value in values)
    ticks = found.ticks()
    assert len(ticks) <= 14
    assert all(found.low - 1e-6 * abs(tick) - 1e-9 <= tick for tick in ticks)


@pytest.mark.parametrize(
    ("interval", "ticks"),
    [
        (Scale(0, 10), [0, 2, 4, 6, 8, 10]),
        (Scale(0.93, 1.61), [1.0, 1.2, 1.4, 1.6]),
        (Scale(0.5, 20, is_log=True), [0.5, 1, 2, 5, 10, 20]),
        (Scale(1e-9, 1e15, is_log=True), [10.0**power for power in range(-9, 16, 2)]),
    ],
)
def test_ticks_are_round(interval: Scale, ticks: list[float]) -> None:
    assert interval.ticks() == pytest.approx(ticks)


def test_whole_numbers_have_whole_ticks() -> None:
    assert Scale(0, 3).ticks(whole=True) == [0, 1, 2, 3]


def test_a_logarithm_makes_ratios_equally_long() -> None:
    found = scale([1, 100], may_be_log=True)
    assert found.is_log
    assert math.isclose(found(10) - found(1), found(100) - found(10))
    assert not scale([0, 100], may_be_log=True).is_log
    assert not scale([1, 100]).is_log


def test_what_has_no_bound_is_left_out() -> None:
    assert scale([1, math.inf, 2]).high < 3


@pytest.mark.parametrize(
    ("value", "kind", "digits"),
    [
        (1.0, Kind.RATIO, 1),
        (1.25, Kind.RATIO, 2),
        (0.5, Kind.SHARE, 0),
        (0.025, Kind.SHARE, 1),
        (0.3, Kind.SHARE, 0),
        (3, Kind.WHOLE, None),
    ],
)
def test_ticks_lose_no_digit(value: float, kind: Kind, digits: int | None) -> None:
    assert tick_digits(value, kind) == digits
