"""The scripts for a CUDA device, in a small form on the processor."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import decode, speed
from benchmarks.gpu import train as rows
from benchmarks.networks import AlignedFraction, plan_at, random_network, unweighted
from tests.training.processes import write_digits
from trpexport.networks.torch.network import TorchNetwork


def call(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    module.main()  # type: ignore[attr-defined]


@pytest.mark.parametrize("scheme", speed.SCHEMES)
def test_a_plan_without_spectra_has_aligned_ranks_and_saves_what_was_asked_for(scheme: str) -> None:
    network = TorchNetwork.open(random_network("resnet20", 10), (1, 3, 32, 32))
    plan = plan_at(unweighted(network, scheme), 2.0, AlignedFraction)
    assert plan.macs_before >= 2 * plan.macs_after
    assert len(plan.rewritten) > 10
    assert {layer.rank % 8 for layer in plan.rewritten if layer.rank is not None} == {0}


def test_batch_norms_are_folded() -> None:
    model = random_network("resnet20", 10)
    folded = speed.folded(model)
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(folded(images), model(images), atol=1e-4)
    assert isinstance(folded, torch.fx.GraphModule)
    used = {str(node.target) for node in folded.graph.nodes if node.op == "call_module"}
    norms = {n for n, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert len(norms) > 18
    assert not norms & used


def test_networks_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    call(monkeypatch, speed, "--out", tmp_path / "speed.json", "--device", "cpu", "--small")
    (result,) = json.loads((tmp_path / "speed.json").read_text())["results"]
    assert result["models"]["dense"]["speedup"]["mid"] == 1
    assert all(entry["finite"] for entry in result["models"].values())
    assert all(result["models"][scheme]["macs_saved"] >= 2 for scheme in speed.SCHEMES)


@pytest.mark.slow
def test_a_row_goes_on_from_what_an_earlier_call_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = tmp_path / "images.npz"
    call(monkeypatch, decode, write_digits(tmp_path / "digits.npz"), images)
    with np.load(images) as arrays:
        assert len(arrays["train_images"]) == len(arrays["train_labels"]) == 128
    arguments = ("--data", f"npz:{images}", "--rows", "plain", "--epochs", 2, "--device", "cpu")
    reached = []
    for turn, more in (("one", ()), ("two", ("--resume", tmp_path / "one"))):
        out = tmp_path / turn
        out.mkdir()
        places = ("--runs", tmp_path / f"runs-{turn}", "--out", out)
        call(monkeypatch, rows, *arguments, *places, *more)
        reached.append(json.loads((out / "training.json").read_text())["reached"]["plain"])
    first, second = reached
    assert first["exit_code"] == second["exit_code"] == 0
    assert first["epochs"] == second["epochs"]  # nothing was trained anew: the seconds are equal
    assert [entry["epoch"] for entry in first["epochs"]] == [1, 2]
    with tarfile.open(tmp_path / "two" / "plain.tar") as tar:
        assert "plain/state.pt" in tar.getnames()
    assert not torch.cuda.is_available() or first["cuda_graphs"] is False
