"""What layers cost, as a table: one line a layer, in a narrow terminal as well."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from trpexport.report.render.rich import print_blocks
from trpexport.report.views.sensitivity import sensitivity_view


def layer(name: str, *, is_cut: bool) -> dict[str, Any]:
    return {
        **{"name": name, "operator": "64->128 3x3 /2x2", "macs": 1_180_000, "reason": None},
        "cuts": [
            {"share": 0.75, "cut": {"error": 0.053}},
            {"share": 0.5, "cut": {"error": 0.071}},
            {"share": 0.25, "cut": None},
        ],
        "precisions": None,
        "chosen": {"scheme": "spatial-channel", "rank": 48} if is_cut else None,
        "back": {"error": 0.011, "macs": 590_000} if is_cut else None,
    }


FACTS = {
    **{"architecture": "net", "scheme": "auto", "images": 64, "data": "photos"},
    **{"ratios": [0.75, 0.5, 0.25], "target": 0.5, "error": 0.131},
    "layers": [
        layer("layer2.0.downsample.1", is_cut=False),
        layer("layer3.0.conv1", is_cut=True),
        {**layer("fc", is_cut=False), "reason": "it is a head"},
    ],
}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_layer_is_a_line(width: int) -> None:
    target = Console(file=io.StringIO(), width=width)
    print_blocks(sensitivity_view(FACTS), target)
    assert isinstance(target.file, io.StringIO)
    lines = target.file.getvalue().splitlines()
    (whole,) = [line for line in lines if line.startswith("layer2.0.downsample.1")]
    (cut,) = [line for line in lines if line.startswith("layer3.0.conv1")]
    assert "left whole" in whole
    assert "spatial-channel 48" in cut and "1.1 %" in cut
    assert lines.index(cut) == lines.index(whole) + 1
