"""Results as pictures: the option that asks for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import say

if TYPE_CHECKING:
    from trpexport.report.page import Drawing


def _checked(place: Path | None) -> Path | None:
    """Refuse a picture that can't be drawn, before any work.

    Raises:
        TrpexportError: its name is that of no picture.
        MissingDependencyError: what draws is not installed.
    """
    if place is not None:
        from trpexport.report.render.pictures import check_picture

        check_picture(place)
    return place


Plot = Annotated[
    Path | None,
    typer.Option(callback=_checked, help="Also draw the result as a picture, .png or .svg."),
]


def draw(place: Path, plots: Sequence[Drawing], title: str = "") -> None:
    """Draw plots into a file, and say so.

    Raises:
        TrpexportError: there is nothing to draw.
        OutputError: the file can't be written.
    """
    from trpexport.report.render.pictures import write_picture

    left_out = write_picture(plots, place, title)
    more = f"; there was no room for {left_out} further plots" if left_out else ""
    say(f"Wrote {place}{more}")
