"""``--expect``: labelled images say whether a checkpoint is the network that it is taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import QUICK, Run
from tests.datasets.picturing import encoded, pixels, write_folder
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
    assert any("statistics match resnet20-a (0.1" in note for note in notes)


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


HEAD = "import torch.nn as nn\n"
NET = (
    "def net():\n"
    "    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 2, 1))\n"
)


@pytest.mark.parametrize("command", ["export", "decompose"])
def test_how_to_prepare_images_is_kept_without_any(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "kept_net.py").write_text(HEAD + NET)
    torch.save(__import__("kept_net").net().state_dict(), "w.pth")
    files = {f"{i}.png": encoded(pixels(i, 9, 11)) for i in range(4)}
    photos = write_folder(tmp_path / "photos", files)
    typed: tuple[str, ...] = ("w.pth", "--model", "kept_net:net", "--input-shape", "1x3x8x8")
    typed = (*typed, *QUICK, "-o", "out")
    typed = (*typed, "--criterion", "rank:1") if command == "decompose" else typed
    how = ("--mean", "0.1,0.2,0.3", "--std", "0.4,0.5,0.6", "--size", "8", "--resize", "9")
    done = run(command, *typed, *how)
    assert done.code == 0, done.err
    kept = json.loads((tmp_path / "out" / "manifest.json").read_text())["preprocessing"]
    assert kept == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "size": [8, 8], "resize": 9}
    # And used afterwards, where nothing is said.
    found = run("verify", "out/model.onnx", "out/model.onnx", "--inputs", photos, "--json")
    assert found.code == 0, found.err
    wrong = run(command, *typed, "--force", "--mean", "0.5", "--std", "0.5")
    assert wrong.code == 2
    assert "takes 3 channels, the preprocessing has a mean for 1" in wrong.error
