"""Plots as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pages import BENCH, EPOCHS
from trpexport.errors import OutputError, TrpexportError
from trpexport.report.blocks import Kind, Range
from trpexport.report.page import Axis, Drawing, Plot, Point, Series
from trpexport.report.render import pictures
from trpexport.report.render.pictures import write_picture
from trpexport.report.views.layers import spectrum_plot
from trpexport.report.views.plots import latency_lanes, speedup_lanes, training_plots

POINTS = Plot(
    "points", Axis("x"), Axis("y", Kind.SHARE, from_zero=True),
    (Series("all", (Point(1, 0.5, "$a$_1", Range(0.5, 2), Range(0.4, 0.6)), Point(3, 1)), "dots"),),
)  # fmt: skip
SPECTRA = [
    spectrum_plot(f"layer{number}", [("a", (3.0, 1.0)), ("b", (2.0, 0.0))], 1, "cut")
    for number in range(2)
]
DRAWN: dict[str, Sequence[Drawing]] = {
    "points": [POINTS],
    "spectra": SPECTRA,
    "training": training_plots(EPOCHS),
    "bench": [*speedup_lanes(BENCH), *latency_lanes(BENCH)],
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture(name: str, tmp_path: Path) -> None:
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        place = tmp_path / f"picture{suffix}"
        assert write_picture(DRAWN[name], place, "a $title$") == 0
        assert place.read_bytes().startswith(start)
    # Names are no mathematics, and text stays text.
    assert "a $title$" in (tmp_path / "picture.svg").read_text()


def test_what_lies_below_zero_is_seen(tmp_path: Path) -> None:
    points = (Point(1, 0.2, "one"), Point(1, 0.2, "twin"), Point(2, -0.4, "other"))
    plot = Plot(
        "won", Axis("x"), Axis("y", Kind.SHARE, from_zero=True), (Series("s", points, "dots"),)
    )
    write_picture([plot], tmp_path / "picture.svg")
    drawn = (tmp_path / "picture.svg").read_text()
    assert "-40 %" in drawn
    assert [name in drawn for name in ("one", "twin", "other")] == [True, False, True]


def test_a_picture_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for place in (first, second):
        write_picture([POINTS], place)
    assert first.read_bytes() == second.read_bytes()


def test_what_there_is_no_room_for_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_MOST", 1)
    assert write_picture(SPECTRA, tmp_path / "many.svg") == 1


def test_what_can_not_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(TrpexportError, match=r"\.png or \.svg"):
        write_picture(SPECTRA, tmp_path / "picture.gif")
    with pytest.raises(TrpexportError, match="nothing to plot"):
        write_picture([], tmp_path / "picture.png")
    with pytest.raises(OutputError):
        write_picture(SPECTRA[:1], tmp_path / "none" / "picture.svg")
