"""Numbers as people read them."""

from __future__ import annotations

import pytest

from trpexport.report.text import bar, percent, quantity, ratio


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 "),
        (999, "999 "),
        (1000, "1 k"),
        (999_499, "999 k"),
        (999_900, "1 M"),
        (40_551_040, "40.6 M"),
        (4.089e9, "4.09 G"),
        (2.5e12, "2.5 T"),
    ],
)
def test_quantities_have_three_digits(number: float, text: str) -> None:
    assert quantity(number) == text


def test_shares_and_ratios() -> None:
    assert percent(0.12345) == "12.3 %"
    assert ratio(145, 100) == "1.45x"
    assert ratio(1, 0) == "-"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0.0, 0.0], "  "),
        ([8.0, 4.0, 1e-9, 0.0], "█▅▁ "),
        ([4.0] * 100, "█" * 24),
    ],
)
def test_bars_are_relative_to_the_largest(values: list[float], text: str) -> None:
    assert bar(values) == text


def test_a_long_spectrum_shows_the_largest_of_each_share() -> None:
    assert bar([4.0, 1.0, 2.0, 1.0], width=2) == "█▅"
