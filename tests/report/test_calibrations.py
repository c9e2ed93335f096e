"""The table of a calibrated network is readable at 100 columns."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from trpexport.report.calibrations import calibration_table

NAMES = ("layer3.0.downsample.0", "layer1.0.conv1")


def report(top1: dict[str, Any] | None, share: float | None) -> dict[str, Any]:
    layers = [
        {
            **{"name": name, "scheme": "input-channel", "rank": 128, "weight_error": 1.25},
            **{"error_before": 0.5, "error_after": 0.125},
            **({} if share is None else {"error_share": share}),
        }
        for name in NAMES
    ]
    return {
        "layers": [{"name": name, "macs": {"after": 25}} for name in NAMES],
        "macs": {"after": 100},
        "calibration": {
            **{"images": 512, "data": "cifar10:[here]", "split": "train", "output_error": 0.0625},
            **{"layers": layers, **({} if top1 is None else {"top1": top1})},
        },
    }


def text(facts: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        for part in calibration_table(facts):
            console.print(part)
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [100, 200])
def test_a_row_is_a_line(width: int) -> None:
    top1 = {"before": 91.3, "after": 90.5, "images": 517, "split": "test"}
    lines = text(report(top1, 0.4), width)
    (row,) = [line for line in lines if line.startswith(NAMES[0])]
    numbers = ["input-channel", "128", "125.0", "%", "50.0", "%", "12.5", "%"]
    assert row.split()[1:] == [*numbers, "25.0", "%", "40.0", "%"]
    assert len([line for line in lines if "layer" in line]) == 3
    assert any("512 images of cifar10:[here] (train)" in line for line in lines)
    assert lines[-1] == "6.2 % of its variation; top-1 91.30 -> 90.50 % on 517 test images"


def test_what_was_not_predicted_is_not_shown() -> None:
    lines = text(report(None, None), 200)
    assert not any("of the error" in line or "top-1" in line for line in lines)
    assert lines[-1] == "6.2 % of its variation"


def test_nothing_of_a_network_that_was_not_calibrated() -> None:
    assert calibration_table({"calibration": None}) == ()
