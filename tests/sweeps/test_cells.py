"""Targets as they are typed, and the cells that they make."""

from __future__ import annotations

import pytest

from trpexport.errors import TrpexportError
from trpexport.sweeps.cells import Cell, grid, parse_targets


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("0.5", (0.5,)),
        ("0.7..0.3", (0.7, 0.6, 0.5, 0.4, 0.3)),
        ("0.3..0.5", (0.3, 0.4, 0.5)),
        ("0.7..0.6/0.05", (0.7, 0.65, 0.6)),
        (".9..0.35/0.2", (0.9, 0.7, 0.5)),
        ("0.9, 0.5..0.4", (0.9, 0.5, 0.4)),
        ("0.5,0.5", (0.5,)),
        ("0.123456", (0.123456,)),
    ],
)
def test_targets(text: str, targets: tuple[float, ...]) -> None:
    assert parse_targets(text) == targets


@pytest.mark.parametrize(
    "text", ["", "x", "1", "0", "0.5..", "0.5..1.5", "0.7..0.3/0", "0.7..0.3/1e-9", "-0.5", "nan"]
)
def test_no_targets(text: str) -> None:
    with pytest.raises(TrpexportError, match="must be shares of the MACs between 0 and 1"):
        parse_targets(text)


def test_the_cells_of_a_bundle_are_beside_each_other() -> None:
    cells = grid(["spatial", "auto"], [0.5, 0.25], ["fp32", "int8"])
    assert len(cells) == 8
    assert [cell.folder for cell in cells[:4]] == ["spatial-0.5"] * 2 + ["spatial-0.25"] * 2
    assert cells[1] == Cell("spatial", 0.5, "int8")
    assert cells[1].label == "spatial 0.5 int8"


@pytest.mark.parametrize("given", [([], [0.5], ["fp32"]), (["a"], [0.5, 0.5], ["fp32"])])
def test_each_once(given: tuple[list[str], list[float], list[str]]) -> None:
    with pytest.raises(TrpexportError, match="once, and at least one"):
        grid(*given)
