"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from trpexport.text import (
    bar,
    milliseconds,
    number,
    percent,
    printable,
    quantity,
    times,
    with_unit,
)


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (1000, "", "1 k"),
        (999_499, "", "999 k"),
        (999_900, "", "1 M"),
        (40_551_040, "", "40.6 M"),
        (4.089e9, "", "4.09 G"),
        (2.5e12, "", "2.5 T"),
        (640, "B", "640 B"),
        (385_126, "B", "385 kB"),
    ],
)
def test_quantities_have_three_digits(count: float, unit: str, text: str) -> None:
    assert quantity(count, unit) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (6.0, 3, "6"),
        (0.12345, 3, "0.123"),
        (0.12345, 4, "0.1235"),
        (99.94, 3, "99.9"),
        (123.45, 3, "123.5"),
        (100.0, 3, "100"),
        (12345.6, 3, "12,346"),
        (3.1e-6, 2, "3.1e-06"),
        (math.inf, 3, "inf"),
        (math.nan, 3, "nan"),
    ],
)
def test_numbers_keep_what_is_before_the_point(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (6.0, "points", "6 points"),
        (1, "points", "1 point"),
        (1.4567, "x", "1.46x"),
        (1234567, "B", "1,234,567 B"),
        (0.5, "", "0.5"),
    ],
)
def test_numbers_are_shown_with_their_unit(value: float, unit: str, text: str) -> None:
    assert with_unit(value, unit) == text


def test_shares_ratios_and_times() -> None:
    assert percent(0.12345) == "12.3 %"
    assert percent(0.12345, 2) == "12.35 %"
    assert times(1.4549) == "1.45x"
    assert times(1.4549, 3) == "1.455x"
    assert milliseconds(0.0004567) == "0.457 ms"
    assert milliseconds(0.1234) == "123 ms"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0.0, 0.0], "  "),
        ([8.0, 4.0, 1e-9, 0.0], "█▅▁ "),
        ([4.0] * 100, "█" * 16),
    ],
)
def test_bars_are_relative_to_the_largest(values: list[float], text: str) -> None:
    assert bar(values) == text


def test_a_long_spectrum_shows_the_largest_of_each_share() -> None:
    assert bar([4.0, 1.0, 2.0, 1.0], width=2) == "█▅"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("layer1.0.conv1", "layer1.0.conv1"),
        ("größer 网络 ≥ 3", "größer 网络 ≥ 3"),
        ("a\r\n\tb\u2028c\xa0d", "a b c d"),
        ("\x1b[31mred\x1b[0m\x07", r"\x1b[31mred\x1b[0m\x07"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\u202egnp.exe\u2066", r"a\u202egnp.exe\u2066"),  # turns the direction of writing
        ("\ud800", r"\ud800"),  # half a character, which no terminal can be sent
        (3, "3"),
    ],
)
def test_text_of_strangers_is_one_printable_line(value: object, text: str) -> None:
    assert printable(value) == text
    assert printable(value).isprintable()


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    assert (
        printable("begin" + "x" * 10**6 + "end", 30)
        == "begin" + "x" * 12 + " ... " + "x" * 5 + "end"
    )
    assert printable("x" * 30, 30) == "x" * 30
