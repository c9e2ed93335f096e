"""A real checkpoint that loses six points: three limits, three outcomes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture(scope="module")
def candidate(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-20, decomposed at energy 0.9 without training, with the original beside it."""
    from trpexport.artifact.build import ExportSettings
    from trpexport.choose.by_criterion import ByCriterion
    from trpexport.pipeline import Source, decompose_to_bundle

    out = tmp_path_factory.mktemp("gate") / "spatial"
    decompose_to_bundle(
        Source(shared / "checkpoints/resnet20-12fca82f.th"),
        ByCriterion(scheme="spatial", criterion="energy:0.9"),
        out,
        settings=ExportSettings(
            17,
            legacy_exporter=True,
            verify_seconds=0,
            simplify=False,
            baseline=True,
            dynamic_batch=True,
        ),
    )
    return out


@pytest.fixture
def options(candidate: Path, shared: Path) -> tuple[object, ...]:
    data = f"cifar10:{shared / 'data/cifar10-lossless'}"
    how = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
    return ("--candidate", candidate, "--data", data, *how)


def words(out: str) -> str:
    return " ".join(out.split())


def test_one_point_is_refused_fifteen_are_not(run: Run, options: tuple[object, ...]) -> None:
    result = run("gate", *options, "--max-drop", "1.0", "--max-output-error", "2", "--json")
    assert result.code == 1
    facts = json.loads(result.out)
    rule = facts["rules"][0]
    assert facts["data"]["images"] == 517
    assert 5 <= rule["value"] <= 8
    assert 1 < rule["low"] < rule["value"] < rule["high"] < 12
    assert rule["reason"].startswith("over the limit")
    # The accuracy of the original as anchors have it for all 1,017 images: 91.64 %.
    assert facts["baseline"]["top1"] == pytest.approx(0.9164, abs=0.03)
    result = run("gate", *options, "--max-drop", "15")
    assert result.code == 0, result.out
    assert "max-drop at most 15 points" in words(result.out)
    assert "The gate passed: 1 rule" in result.out


def test_fifty_images_are_too_few(run: Run, options: tuple[object, ...]) -> None:
    result = run("gate", *options, "--max-drop", "1.0", "--images", "50")
    assert result.code == 1
    # What the images show comes first.
    assert re.search(
        r"max-drop: over the limit: [\d.]+ points, at most 1 passes; too few images: 50 can't tell "
        "1 point from 2 points; about",
        words(result.out),
    )
    assert "would decide" in words(result.out)
