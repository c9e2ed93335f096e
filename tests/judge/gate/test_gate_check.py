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
from trpexport.judge.classify import (
    Classifier,
    Evaluations,
    cut_to_own_sizes,
    evaluate,
    open_classifier,
)
from trpexport.judge.gate.check import GateResult, apply, run_gate
from trpexport.judge.gate.config import Limits
from trpexport.judge.gate.rules import RULES, FileCost, Measurements
from trpexport.judge.images import Images, choose_images

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
    costs = (FileCost(1.0, 1, 1), FileCost(1.0, 1, 1))
    measured = Measurements(costs=costs, latency=(nan, nan))
    for name in ("min-speedup", "max-latency", "min-efficiency"):
        assert not apply(name, 1e-9 if name.startswith("min") else 1e9, measured).passed


def test_top5_of_few_classes_says_nothing(classifier: Make, images_npz: Make) -> None:
    same = classifier(classes=5)
    found = evaluations(same, same, data=images_npz(100, classes=5))
    assert "every top-5 is right" in apply("max-top5-drop", 5, Measurements(found)).reason


def test_costs_and_their_directions() -> None:
    measured = Measurements(costs=(FileCost(300.0, 50, 900), FileCost(100.0, 20, 400)))
    for name, at, beyond in (
        ("min-macs-ratio", 3, 3.01),
        ("max-parameters", 20, 19),
        ("max-file-size", 400, 399),
    ):
        assert apply(name, at, measured).passed
        assert not apply(name, beyond, measured).passed
    unknown = Measurements(costs=(FileCost(300.0, 1, 1), FileCost(None, 1, 1, ("Foo",))))
    assert "Foo are not known" in apply("min-macs-ratio", 1, unknown).reason


def test_latency_and_its_directions() -> None:
    entry = {
        "ratio": {"mid": 1.5, "low": 1.4, "high": 1.6},
        "samples": [[0.002, 0.002, 0.009]] * 9,  # the median within a round ignores the spike
    }
    measured = Measurements(
        costs=(FileCost(300.0, 1, 1), FileCost(100.0, 1, 1)), latency=({}, entry)
    )
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
    with pytest.raises(DataError, match=r"max-drop needs images: name them, as in"):
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


# --- networks of different input sizes ------------------------------------------------------


def macs_of(*shape: int) -> int:
    return 10 * 3 * 9 * int(np.prod(shape))


QUICK = {"min_time": 0, "min_runs": 3, "max_time": 1.0}
ALL = Limits({"min-macs-ratio": 1.0, "max-latency": 1e4, "min-speedup": 1e-4})


@pytest.mark.parametrize(
    ("networks", "shapes", "expected"),
    [
        ([(32,), (24,)], {}, (32, 24)),
        ([(32, "one"), (24, "two")], {}, (32, 24)),
        ([("s",), ("s",)], {"input": (1, 3, 16, 16)}, (16, 16)),
        ([("s",), (24,)], {"input": (1, 3, 32, 32)}, (32, 24)),
        ([(32,), ("s",)], {"input": (2, 3, 16, 16)}, (32, 16)),
        ([("s", "one"), ("s", "two")], {"one": (1, 3, 9, 9), "two": (1, 3, 7, 7)}, (9, 7)),
    ],
)
def test_each_network_is_measured_at_its_own_shape(
    sized: Make, settings: Make, networks: Any, shapes: Any, expected: tuple[int, int]
) -> None:
    pair = [sized(*arguments) for arguments in networks]
    result = run_gate(ALL, settings(*pair, shapes=shapes, **QUICK))
    measured = result.measurements
    assert result.passed
    assert measured.costs is not None and measured.latency is not None
    for cost, entry, size in zip(measured.costs, measured.latency, expected, strict=True):
        assert cost.macs == macs_of(size, size)  # of one image, whatever the batch
        ((_, *rest),) = entry["inputs"].values()
        assert rest == [3, size, size]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"other": (1, 3, 8, 8)}, "no input 'other' to give a shape: choose from input"),
        ({"input": (1, 3, 8, 8)}, "can't have the shape 1x3x8x8"),
        ({"input": (1, 3, 32)}, "can't have the shape 1x3x32"),
    ],
)
@pytest.mark.parametrize("name", ["min-macs-ratio", "max-latency"])
def test_a_shape_that_no_network_can_have_is_one_line(
    sized: Make, settings: Make, shapes: Any, message: str, name: str
) -> None:
    with pytest.raises(ModelError, match=message):
        run_gate(Limits({name: 1.0}), settings(sized(32), sized(24), shapes=shapes, **QUICK))


@pytest.fixture
def photos(tmp_path: Path) -> Images:
    """40 images of 20 x 20 pixels."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 3, 20, 20), np.uint8)
    np.savez(tmp_path / "photos.npz", images=images, labels=np.arange(40) % 10)
    return choose_images(open_dataset(f"npz:{tmp_path / 'photos.npz'}"))


@pytest.fixture
def open_sized(sized: Make) -> Make:
    """Opens networks of some sizes, with one preprocessing."""

    def opened(*sizes: int | str, cut: tuple[int, int] | None = None) -> list[Classifier]:
        how = Preprocessing((0.5,) * 3, (0.25,) * 3, size=cut)
        return [open_classifier(sized(size), preprocessing=how) for size in sizes]

    return opened


def test_images_are_cut_to_the_size_of_each_network(
    open_sized: Make, settings: Make, photos: Images
) -> None:
    pair = cut_to_own_sizes(open_sized(16, 12))
    found = evaluate(pair, photos)
    assert found.inputs == ((3, 16, 16), (3, 12, 12))
    for one, size in zip(found.classifiers, (16, 12), strict=True):
        alone = evaluate(open_sized(size, cut=(size, size)), photos).classifiers[0]
        assert np.array_equal(one.losses, alone.losses)
    result = run_gate(ALL, settings(*(each.path for each in pair), **QUICK), evaluations=found)
    assert result.measurements.costs is not None
    assert [cost.macs for cost in result.measurements.costs] == [macs_of(16, 16), macs_of(12, 12)]


def test_a_size_that_was_asked_for_goes_where_it_fits(open_sized: Make, photos: Images) -> None:
    for sizes, cut, expected in (
        ((16, "s"), (9, 9), [(16, 16), (9, 9)]),
        ((16, 12), (12, 12), [(16, 16), (12, 12)]),
        ((16, 12), (9, 9), [(9, 9), (9, 9)]),  # nowhere: refused as ever
        ((16, 16), None, [None, None]),
    ):
        found = cut_to_own_sizes(open_sized(*sizes, cut=cut))
        assert [classifier.preprocessing.size for classifier in found] == expected
    with pytest.raises(DataError, match="takes images of 3x16x16"):
        evaluate(cut_to_own_sizes(open_sized(16, 12, cut=(9, 9))), photos)
