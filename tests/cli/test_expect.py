"""``--expect``: labelled images say whether a checkpoint is the network that it is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.conftest import QUICK, Run
from trpexport import bundle
from trpexport.checkpoints import load_checkpoint

HOW = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")


def test_the_right_network_is_confirmed(
    run: Run, checkpoint: Path, data: str, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    result = run("export", checkpoint, "--expect", data, *HOW, *QUICK, "-o", out)
    assert result.code == 0, result.err
    notes = json.loads((out / bundle.REPORT).read_text())["notes"]
    assert any(note.startswith("resnet20-a classifies 9") for note in notes)
    # Photographs tell every other pixel from the mean of four.
    assert not any("fit" in note for note in notes)
    assert any("speaks for resnet20-a (0.1" in note for note in notes)


def test_classes_in_another_order_are_refused(
    run: Run, checkpoint: Path, data: str, tmp_path: Path
) -> None:
    state = load_checkpoint(checkpoint).module.state_dict()
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name].roll(1, 0)
    torch.save(state, tmp_path / "rolled.pth")
    out = tmp_path / "o"
    result = run("export", tmp_path / "rolled.pth", "--expect", data, *HOW, "-o", out)
    assert result.code == 2
    assert "no better than chance on 256 test images (resnet20-a" in result.error
    assert "shortcut=average-behind) " in result.error
    assert not out.exists()


def test_how_to_prepare_images_does_nothing_without_some(run: Run, tmp_path: Path) -> None:
    result = run("export", tmp_path / "nowhere.pth", "--mean", "0.5", "--std", "0.5")
    assert result.code == 2
    assert "--mean, --std do nothing without --expect: add --expect" in result.error
