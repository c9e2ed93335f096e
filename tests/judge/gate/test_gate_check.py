"""Rules on networks whose answers are known by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpexport.datasets import open_dataset
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError, ModelError
from trpexport.judge.classify import Evaluations, choose_images, evaluate, open_classifier
from trpexport.judge.gate.check import GateResult, apply, run_gate
from trpexport.judge.gate.config import Limits
from trpexport.judge.gate.rules import RULES, Cost, Measurements

PIXELS = Preprocessing((0.0,), (1.0,))
Make = Callable[..., Any]


def evaluations(*networks: Path, data: Path) -> Evaluations:
    images = choose_images(open_dataset(f"npz:{data}"))
    return evaluate([open_classifier(path, preprocessing=PIXELS) for path in networks], images)


def swapped(classes: int = 10) -> np.ndarray:
    """Takes class 0 for 1 and 1 for 0."""
    matrix = np.eye(classes)
    matrix[[0, 1]] = matrix[[1, 0]]
    return matrix


def test_a_drop_by_hand(classifier: Make, images_npz: Make) -> None:
    """Two classes of ten are mistaken: a fifth of the images is lost, and top-5 hardly."""
    found = evaluations(classifier(), classifier(swapped()), data=images_npz(200))
    measured = Measurements(found)
    drop = apply("max-drop", 25, measured)
    assert drop.passed
    assert drop.value == 20
    assert drop.low is not None and drop.high is not None and drop.low < 20 < drop.high
    assert apply("max-drop", 15, measured).reason.startswith("over the limit: 20 points")
    assert not apply("max-drop", 25, measured, confident=True).reason.startswith("over")
    agreement = apply("min-agreement", 75, measured)
    assert (agreement.passed, agreement.value) == (True, 80)
    assert agreement.low is not None and agreement.low < 80
    assert "below the limit: 80 %" in apply("min-agreement", 90, measured).reason
    # Of the ten outputs of an image of class c, c has 1 and the next 0.2; an image of class 0 or
    # 1 or 9 moves: 0: (1, .2) -> (.2, 1), 1: (0, 1, .2) -> (1, 0, .2), 9: (.2, 0) -> (0, .2).
    moved = 2 * 0.8**2 + 2 * 1 + 2 * 0.2**2
    error = apply("max-output-error", 1, measured)
    assert error.value == pytest.approx(np.sqrt(moved / (10 * (1 + 0.2**2))), rel=1e-4)


def test_identical_networks_pass_and_few_images_do_not(classifier: Make, images_npz: Make) -> None:
    same = classifier()
    found = Measurements(evaluations(same, same, data=images_npz(400)))
    assert apply("max-drop", 1.0, found).passed  # 6.6 / (400 + 6.6) = 1.6 points < 2
    few = apply("max-drop", 1.0, Measurements(evaluations(same, same, data=images_npz(300))))
    assert not few.passed
    # z^2 (1 - d) / d at d = 2 points, by hand: 2.5758^2 * 0.98 / 0.02 = 325.1.
    assert few.images_needed == 326
    assert few.reason.startswith("too few images: 300 can't tell 1 point from 2 points; about 330")


def test_not_a_number_never_passes(classifier: Make, images_npz: Make) -> None:
    matrix = np.eye(10)
    matrix[3, 3] = np.nan
    found = evaluations(classifier(), classifier(matrix), data=images_npz(100))
    for name in ("max-drop", "max-top5-drop", "min-agreement", "max-output-error"):
        checked = apply(name, 50, Measurements(found))
        assert not checked.passed
        assert "NaN or infinity on 100 of 100 images" in checked.reason
    # Nor does a value that is none, from whatever source.
    nan = {"ratio": {"mid": float("nan"), "low": 0.0, "high": 9.0}, "samples": [[float("nan")]]}
    costs = (Cost(1.0, 1, 1), Cost(1.0, 1, 1))
    measured = Measurements(costs=costs, latency=(nan, nan))
    for name in ("min-speedup", "max-latency", "min-efficiency"):
        assert not apply(name, 1e-9 if name.startswith("min") else 1e9, measured).passed


def test_top5_of_few_classes_says_nothing(classifier: Make, images_npz: Make) -> None:
    same = classifier(classes=5)
    found = evaluations(same, same, data=images_npz(100, classes=5))
    assert "every top-5 is right" in apply("max-top5-drop", 5, Measurements(found)).reason


def test_costs_and_their_directions() -> None:
    measured = Measurements(costs=(Cost(300.0, 50, 900), Cost(100.0, 20, 400)))
    for name, at, beyond in (
        ("min-macs-ratio", 3, 3.01),
        ("max-parameters", 20, 19),
        ("max-file-size", 400, 399),
    ):
        assert apply(name, at, measured).passed
        assert not apply(name, beyond, measured).passed
    unknown = Measurements(costs=(Cost(300.0, 1, 1), Cost(None, 1, 1, ("Foo",))))
    assert "Foo are not known" in apply("min-macs-ratio", 1, unknown).reason


def test_latency_and_its_directions() -> None:
    entry = {
        "ratio": {"mid": 1.5, "low": 1.4, "high": 1.6},
        "samples": [[0.002, 0.002, 0.009]] * 9,  # the median within a round ignores the spike
    }
    measured = Measurements(costs=(Cost(300.0, 1, 1), Cost(100.0, 1, 1)), latency=({}, entry))
    assert apply("min-speedup", 1.5, measured).passed
    assert not apply("min-speedup", 1.5, measured, confident=True).passed
    assert apply("min-speedup", 1.4, measured, confident=True).passed
    assert not apply("min-speedup", 1.51, measured).passed
    assert apply("max-latency", 2.0, measured).value == pytest.approx(2.0)
    assert not apply("max-latency", 1.9, measured).passed
    efficiency = apply("min-efficiency", 0.5, measured)
    assert efficiency.passed
    assert efficiency.value == pytest.approx(0.5)
    assert not apply("min-efficiency", 0.51, measured).passed


def test_a_whole_run(classifier: Make, images_npz: Make, settings: Make) -> None:
    base, other = classifier(batch=4), classifier(swapped(), batch=4)
    limits = Limits({"max-drop": 30.0, "min-macs-ratio": 0.5, "max-latency": 1e4})
    found = evaluations(base, other, data=images_npz(101))
    quick = settings(base, other, min_time=0, min_runs=3, max_time=1.0)
    result = run_gate(limits, quick, evaluations=found)
    assert isinstance(result, GateResult)
    assert result.passed
    assert result.measurements.costs is not None
    assert result.measurements.costs[0].macs == 100  # of one image, whatever the batch
    facts = result.to_json()
    assert facts["top1"] == {"lost": 21, "won": 0, "mcnemar_p": pytest.approx(2 / 2**21)}
    assert [rule["name"] for rule in facts["rules"]] == list(limits.limits)


def test_what_is_missing_is_an_error(classifier: Make, settings: Make, tmp_path: Path) -> None:
    base = classifier()
    with pytest.raises(DataError, match=r"max-drop needs images: .*--data"):
        run_gate(Limits({"max-drop": 1.0}), settings(base, base))
    with pytest.raises(ModelError, match="there is no file"):
        run_gate(Limits({"max-parameters": 1.0}), settings(base, tmp_path / "gone.onnx"))
    assert not GateResult((), False, Measurements()).passed


def test_every_rule_says_what_it_is() -> None:
    for name, rule in RULES.items():
        assert name.startswith("max-" if rule.direction == "at most" else "min-")
        if rule.need == "data":
            for limit in (50.0, 60.0):
                assert rule.from_loss(rule.to_loss(limit)) == pytest.approx(limit)
