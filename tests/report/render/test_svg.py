"""Labels in plots can be read: none stands on another, on a dot, or outside."""

from __future__ import annotations

import random
import re

import pytest

from trpexport.report.blocks import Kind, Range
from trpexport.report.page import Axis, Lane, Lanes, Plot, Point, Series
from trpexport.report.render.svg import lanes_svg, plot_svg

AXIS = Axis("times fewer MACs", Kind.RATIO)
LABEL = re.compile(r'<text class="label (\w+)" x="([\d.]+)" y="([\d.]+)">([^<]*)')
WIDE, HIGH = 6.2, 10.0  # less than a character of the labels takes


def drawn(points: tuple[Point, ...]) -> list[tuple[float, float, float, float, str]]:
    """Return where the labels of points are: left, top, right, bottom, and what they say."""
    plot = Plot("a title", AXIS, AXIS, (Series("dots", points, mark="dots"),))
    found = []
    for side, x, y, text in LABEL.findall(plot_svg(plot)):
        left = float(x) - (WIDE * len(text) if side == "end" else 0.0)
        found.append((left, float(y) - HIGH, left + WIDE * len(text), float(y), text))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_labels_stand_apart(seed: int) -> None:
    spread = random.Random(seed)
    points = tuple(
        Point(spread.random(), spread.random(), f"spatial 0.{number} fp32") for number in range(14)
    )
    boxes = drawn(points)
    assert len(boxes) >= 5
    for place, (left, top, right, bottom, text) in enumerate(boxes):
        assert left >= 0, text
        assert right <= 420, text
        assert 0 <= top < bottom <= 270, text
        for other in boxes[place + 1 :]:
            apart = other[0] >= right or left >= other[2] or other[1] >= bottom or top >= other[3]
            assert apart, (text, other[4])


def test_points_in_one_place_have_one_label_and_both_say_what_they_are() -> None:
    points = (Point(1.0, 1.0, "one"), Point(1.0, 1.0, "other"), Point(2.0, 2.0, "far"))
    labels = [text for *_, text in drawn(points)]
    assert labels[0] in ("one", "other")
    svg = plot_svg(Plot("a title", AXIS, AXIS, (Series("dots", points, mark="dots"),)))
    assert [svg.count(f'aria-label="{name}:') for name in ("one", "other", "far")] == [1, 1, 1]


@pytest.mark.parametrize(("note", "is_shown"), [("8 %", True), ("at 75% spatial 64: " * 4, False)])
def test_a_note_that_does_not_fit_is_told_by_the_lane(note: str, is_shown: bool) -> None:
    lanes = (Lane("layer1", 1.0, Range(0.5, 2.0), note=note), Lane("b", 1.0, Range(1, 2), note="1"))
    svg = lanes_svg(Lanes("a title", AXIS, lanes))
    labels = [text for *_, text in LABEL.findall(svg)]
    assert labels == ([f"layer1: {note}", "b: 1"] if is_shown else ["layer1", "b"])
    assert f'data-tip="layer1: {note}' in svg
