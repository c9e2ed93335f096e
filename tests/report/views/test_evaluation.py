"""Evaluations as blocks, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trpexport.judge.paired import PairedDrop
from trpexport.judge.predictions import Evaluation
from trpexport.report.blocks import Kind, Range, Role, Table, Text, Value
from trpexport.report.views.evaluation import drop_view, evaluation_view

LABELS = np.array([0, 1, 1, 2])
EVALUATION = Evaluation(
    label="[net]",
    sha256="",
    data="npz:x",
    split="test",
    pixels="",
    classes=("cat", "cat", "dog"),  # names need not differ
    indices=np.arange(4),
    labels=LABELS,
    ranked=np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1]]),
    scores=np.zeros((4, 3), np.float32),
    losses=np.array([0.1, 0.2, 0.9, 0.4]),
    outputs_are="logits",
    seconds=2.0,
)


def test_figures() -> None:
    heading, table = evaluation_view(EVALUATION)
    assert heading == Text("[net] on 4 test images of npz:x")
    assert isinstance(table, Table) and not table.has_head
    top1, top5, loss, speed = table.rows
    assert (top1["value"], top5["value"]) == (Value(0.75, Kind.SHARE), Value(1.0, Kind.SHARE))
    assert loss == {"what": "loss", "value": Value(0.4, digits=4), "how": "cross-entropy of logits"}
    assert speed["value"] == 2.0


def test_the_interval_is_wilsons() -> None:
    _, table = evaluation_view(EVALUATION)
    assert isinstance(table, Table)
    interval = table.rows[0]["how"][1].raw
    # 3 of 4: (0.75 + z2 / 8 -+ z sqrt(0.1875 / 4 + z2 / 64)) / (1 + z2 / 4), z2 = 3.8415
    assert isinstance(interval, Range)
    assert (interval.low, interval.high) == pytest.approx((0.30064, 0.95441), abs=1e-5)


def test_broken_outputs_are_said_and_leave_no_loss() -> None:
    ranked = EVALUATION.ranked.copy()
    ranked[0] = -1
    _, table, warning = evaluation_view(replace(EVALUATION, ranked=ranked))
    assert isinstance(table, Table)
    assert table.rows[2]["value"] is None
    assert warning == Text("Outputs that hold NaN or infinity, and count as wrong: 1", Role.WARNING)


def test_the_confusion_is_a_class_a_row() -> None:
    _, _, table = evaluation_view(EVALUATION, confusion=True)
    assert isinstance(table, Table)
    assert [column.title for column in table.columns[1:]] == ["cat", "cat", "dog"]
    assert table.rows == (
        {"true": "cat", "0": 1, "1": None, "2": None},
        {"true": "cat", "0": None, "1": 1, "2": 1},
        {"true": "dog", "0": None, "1": None, "2": 1},
    )


def test_a_drop_is_in_points() -> None:
    drop = PairedDrop(n=200, lost=9, won=1)
    text = drop_view({"model": "[old]"}, drop, 0.021)
    assert isinstance(text.content, tuple)
    start, points, _, interval, counts, p, _ = text.content
    assert str(start).startswith("against [old]: drop")
    assert points == Value(4.0, Kind.NUMBER, unit="points")
    assert isinstance(interval, Value)
    assert interval.raw.low < 4 < interval.raw.high
    assert "9 lost, 1 won" in str(counts)
    assert p == Value(0.021, Kind.NUMBER, digits=2)
