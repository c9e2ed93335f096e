"""Calibrated networks as blocks."""

from __future__ import annotations

from typing import Any

import pytest

from trpexport.report.blocks import Kind, Range, Table, Text, Value
from trpexport.report.render.markdown import markdown
from trpexport.report.views.calibration import calibration_view

NAMES = ("layer3.0.downsample.0", "layer1.0.conv1")
JUDGED = {
    **{"metric": "top1", "is_share": True, "before": 0.9125, "after": 0.905},
    **{"images": 517, "split": "test", "loss": 0.0075, "interval": None},
}


def report(judged: dict[str, Any] | None, share: float | None) -> dict[str, Any]:
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
        "layers_rewritten": len(NAMES),
        "calibration": {
            **{"images": 512, "data": "cifar10:[here]", "split": "train", "output_error": 0.0625},
            **{"layers": layers, **({} if judged is None else {"judged": judged})},
        },
    }


def test_a_layer_is_a_row_with_its_share_of_the_macs() -> None:
    table, _ = calibration_view(report(None, 0.4))
    assert isinstance(table, Table)
    shown = [column.key for column in table.columns]
    assert [table.rows[0][key] for key in shown] == [
        *(NAMES[0], "input-channel", 128, 1.25, 0.5, 0.125, 0.25, 0.4)
    ]


@pytest.mark.parametrize("share", [None, 0.4])
def test_what_was_not_predicted_is_not_shown(share: float | None) -> None:
    table, _ = calibration_view(report(None, share))
    assert isinstance(table, Table)
    assert ("error_share" in [column.key for column in table.columns]) is (share is not None)


def test_the_sentence() -> None:
    _, text = calibration_view(report(JUDGED, None))
    assert isinstance(text, Text) and isinstance(text.content, tuple)
    start, moved, _, _, before, _, after, where = text.content
    assert "512 images of cifar10:[here] (train)" in str(start)
    assert moved == Value(0.0625, Kind.SHARE)
    assert before == Value(0.9125, Kind.SHARE, digits=2)
    assert after == Value(0.905, Kind.SHARE, digits=2)
    assert where == " on 517 test images"
    _, text = calibration_view(report({**JUDGED, "interval": (-0.0025, 0.02)}, None))
    assert isinstance(text, Text)
    assert text.content[-6:] == (
        ": lost are ",
        Value(0.75, Kind.NUMBER, digits=2),
        " points",
        " (95 % interval ",
        Value(Range(-0.25, 2.0), Kind.NUMBER, digits=2),
        ")",
    )
    assert "lost are 0.75 points (95 % interval -0.25 to 2)" in markdown([text])
    mae = {**JUDGED, "metric": "mae", "is_share": False, "before": 0.25, "after": 0.5}
    _, text = calibration_view(report(mae, None))
    assert isinstance(text, Text) and isinstance(text.content, tuple)
    assert text.content[3:5] == ("; mae ", Value(0.25, Kind.NUMBER, digits=4))
    _, shorter = calibration_view(report(None, None))
    assert isinstance(shorter, Text) and len(shorter.content) == 3


def test_nothing_of_a_network_that_was_not_calibrated() -> None:
    assert calibration_view({"calibration": None}) == ()


HELD_OUT = {"images": 256, "split": "other train", "output_error": 0.25, "worst_output": "a"}


def sentence(**facts: Any) -> tuple[Any, ...]:
    data = report(None, None)
    data["calibration"] |= facts
    _, text = calibration_view(data)
    assert isinstance(text, Text) and isinstance(text.content, tuple)
    return text.content


def test_the_error_on_other_images_stands_beside_the_one_fitted_to() -> None:
    start, on_these, _, others, on_others = sentence(
        worst_output="a", output_errors={"a": 0.0625}, held_out=HELD_OUT
    )
    assert "on these, which it was fitted to, the output moves by" in start
    assert on_these == Value(0.0625, Kind.SHARE)
    assert others == ", on 256 other train images by "
    assert on_others == Value(0.25, Kind.SHARE)


def test_the_worst_of_several_outputs_is_named() -> None:
    start, _, _, others, _ = sentence(
        worst_output="b", output_errors={"a": 0.0, "b": 0.0625}, held_out=HELD_OUT
    )
    assert "b, the worst output, moves by" in start
    assert others == ", on 256 other train images (a) by "


def refined(after: float) -> dict[str, Any]:
    whole = report(None, None)
    whole["calibration"]["refined"] = {
        **{"images": 5000, "steps": 1200, "seconds": 180.0, "bf16": True},
        **{"held_out_images": 256, "split": "other train"},
        "before": {"output_error": 0.25, "worst_output": "output", "output_errors": {"output": 1}},
        "after": {"output_error": after, "worst_output": "output", "output_errors": {"output": 1}},
    }
    return whole


def test_refining_is_told_by_the_error_before_and_after_on_images_held_out() -> None:
    *_, sentence = calibration_view(refined(0.2))
    assert isinstance(sentence, Text)
    assert sentence.content == (
        "Refined on 5000 images, 1200 steps in 3.0 minutes: on 256 other train images the output "
        "moves by ",
        Value(0.2, Kind.SHARE),
        " of its variation, before that by ",
        Value(0.25, Kind.SHARE),
    )


def test_refining_in_vain_is_said() -> None:
    *_, sentence = calibration_view(refined(0.25))
    assert isinstance(sentence, Text)
    assert "in vain: the calibrated factors were kept" in str(sentence.content[0])
