"""Limits on outputs: any samples, no labels, all outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import trpexport as tx
from tests.conftest import Run

Make = Callable[..., Any]
X = np.random.default_rng(0).standard_normal((400, 3, 4, 4)).astype(np.float32)


@pytest.fixture
def two_outputs(write_onnx: Callable[..., Path]) -> Make:
    """Writes a network that gives its input times a number for each output, and a whole number."""

    def write(scales: tuple[float, float] = (1.0, 1.0), swap: bool = False) -> Path:
        order = [2, 1, 0] if swap else [0, 1, 2]
        return write_onnx(
            [
                helper.make_node("Mul", ["input", "a"], ["mask"]),
                helper.make_node("Gather", ["input", "order"], ["picked"], axis=1),
                helper.make_node("Mul", ["picked", "b"], ["edge"]),
            ],
            {"input": ("n", 3, 4, 4)},
            {"mask": ("n", 3, 4, 4), "edge": ("n", 3, 4, 4)},
            {
                "a": np.float32(scales[0]).reshape(1),
                "b": np.float32(scales[1]).reshape(1),
                "order": np.array(order, np.int64),
            },
        )

    return write


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def test_the_worst_output_counts(run: Run, two_outputs: Make, inputs: Path) -> None:
    pair = ("--baseline", two_outputs(), "--candidate", two_outputs((1.1, 1.2)), "--data", inputs)
    result = run("gate", *pair, "--max-output-error", "0.25", "--min-agreement", "90", "--json")
    assert result.code == 0, result.err
    error, agreement = sorted(result.json["rules"], key=lambda rule: str(rule["name"]))
    assert error["value"] == pytest.approx(0.2, rel=1e-4)  # edge; mask is 0.1 off
    assert agreement["value"] == 100
    assert result.json["outputs"]["mask"]["error"] == pytest.approx(0.1, rel=1e-4)
    assert result.json["data"]["images"] == len(X)
    refused = run("gate", *pair, "--max-output-error", "0.15")
    assert refused.code == 1
    assert "400 samples" in refused.out
    assert "edge: error 0.2 of its RMS" in refused.out
    only = run("gate", *pair, "--max-output-error", "0.15", "--output", "mask")
    assert only.code == 0


def test_agreement_is_the_share_of_places_with_the_same_largest_channel(
    two_outputs: Make, inputs: Path
) -> None:
    found = tx.gate(two_outputs(), two_outputs(swap=True), data=inputs, min_agreement=50)
    swapped = X[:, ::-1].argmax(1) == X.argmax(1)
    (rule,) = found.rules
    assert rule.value == pytest.approx(100 * swapped.mean(), rel=1e-6)
    assert not rule.passed


@pytest.mark.parametrize("kind", ["array", "tensor", "loader", "batches", "path", "mapping"])
def test_from_python_any_samples_will_do(two_outputs: Make, inputs: Path, kind: str) -> None:
    torch = pytest.importorskip("torch")
    given = {
        "array": X,
        "tensor": torch.from_numpy(X),
        "loader": torch.utils.data.DataLoader(torch.from_numpy(X), batch_size=64),
        "batches": iter(torch.from_numpy(X).split(100)),
        "path": str(inputs),
        "mapping": {"input": X},
    }[kind]
    found = tx.gate(two_outputs(), two_outputs((1.0, 1.1)), data=given, max_output_error=0.2)
    assert found.passed
    assert found.rules[0].value == pytest.approx(0.1, rel=1e-4)


def test_images_without_labels(run: Run, sized: Make, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    np.save(tmp_path / "photos.npy", images)
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    pair = ("--baseline", sized(8), "--candidate", sized(8), "--data", tmp_path / "photos.npy")
    result = run("gate", *pair, *how, "--max-output-error", "0.1")
    assert result.code == 0, result.err
    told = run("gate", *pair, "--max-output-error", "0.1")
    assert "does not say how images become its input" in told.error
    labels = run("gate", *pair, *how, "--max-drop", "1")
    assert "has no labels, which are needed here" in labels.error


def test_not_a_number_never_passes(run: Run, two_outputs: Make, inputs: Path) -> None:
    pair = ("--baseline", two_outputs(), "--candidate", two_outputs((1.0, np.nan)))
    for limit in (("--max-output-error", "9"), ("--min-agreement", "50")):
        result = run("gate", *pair, "--data", inputs, *limit)
        assert result.code == 1
        assert "NaN or infinity as edge on 400 of 400 samples" in result.out


def test_whole_numbers_are_compared_by_how_many_are_equal(
    write_onnx: Callable[..., Path], inputs: Path
) -> None:
    def classes(axis: int) -> Path:
        return write_onnx(
            [helper.make_node("ArgMax", ["input"], ["out"], axis=axis, keepdims=0)],
            {"input": ("n", 3, 4, 4)},
            {"out": ("n", 4, 4)},
            types={"out": TensorProto.INT64},
        )

    found = tx.gate(classes(1), classes(1), data=inputs, min_agreement=90)
    assert found.passed
    none = tx.gate(classes(1), classes(1), data=inputs, max_output_error=0.1)
    assert "whole numbers have no error" in none.rules[0].reason


def test_classes_of_floats_are_judged_as_those_of_images(
    run: Run, classifier: Make, tmp_path: Path
) -> None:
    """Two of ten classes are mistaken: a fifth is lost, whatever the labelled floats come as."""
    torch = pytest.importorskip("torch")
    labels = np.arange(200) % 10
    values = np.eye(10, dtype=np.float32)[labels][:, None, None]
    mistaken = np.eye(10)
    mistaken[[0, 1]] = mistaken[[1, 0]]
    pair = (classifier(), classifier(mistaken))
    np.savez(tmp_path / "a.npz", images=values, labels=labels)
    np.savez(tmp_path / "b.npz", input=values, target=labels)
    for name in ("a.npz", "b.npz"):
        typed = ("--baseline", pair[0], "--candidate", pair[1], "--data", tmp_path / name)
        result = run("gate", *typed, "--max-drop", "25", "--json")
        assert result.code == 0, result.err
        assert result.json["rules"][0]["value"] == 20
    samples = torch.utils.data.TensorDataset(torch.from_numpy(values), torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(samples, batch_size=32)
    assert tx.gate(*pair, data=loader, max_drop=25).rules[0].value == 20
    assert tx.evaluate(pair[1], loader).value == 0.8
