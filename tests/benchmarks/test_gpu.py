"""The scripts for a CUDA device, in a small form on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from benchmarks.gpu import calibration, decode, runtime, speed
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


def tiny(preset: str) -> tuple[list[int], dict[str, torch.nn.Module], dict[str, float]]:
    """Return two small networks in the place of a preset and its low-rank ones."""
    models = {name: torch.nn.Conv2d(3, 4, 3).eval() for name in ("dense", "spatial")}
    return [1, 3, 8, 8], dict(models), dict.fromkeys(models, 1.0)


def test_a_provider_that_is_not_there_is_told_and_the_others_are_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "networks", tiny)
    monkeypatch.setattr(runtime, "TIMED", {**runtime.TIMED, "min_time": 0.01, "max_time": 0.02})
    out = tmp_path / "runtime.json"
    call(monkeypatch, runtime, "--out", out, "--providers", "tensorrt", "cpu", "--small")
    missing, found = json.loads(out.read_text())["results"]
    assert (missing["provider"], found["provider"]) == ("tensorrt", "cpu")
    assert "models" in missing or "tensorrt" in missing["error"]
    assert found["models"].keys() == {"dense", "spatial"}
    assert found["models"]["dense"]["milliseconds"] > 0


def test_float16_files_stand_beside_those_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtime, "networks", tiny)
    found = runtime.written("any", runtime.PRECISIONS, tmp_path)
    for precision, dtype in (("fp32", np.float32), ("fp16", np.float16)):
        kernels = [
            onnx.numpy_helper.to_array(tensor)
            for file in found[precision].values()
            for tensor in onnx.load(file).graph.initializer
            if len(tensor.dims) == 4
        ]
        assert [kernel.dtype for kernel in kernels] == [dtype, dtype]


@pytest.mark.slow
def test_a_case_that_fails_is_told_and_the_next_one_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibration, "CASES", calibration.SMALL)
    out = tmp_path / "calibration.json"
    data = f"npz:{write_pixels(tmp_path / 'pixels.npz')}"
    arguments = ("--devices", "cpu", "--models", "no_such_module:net")
    call(monkeypatch, calibration, "--data", data, "--out", out, *arguments)
    trained, other = json.loads(out.read_text())
    assert trained["cpu"]["macs_ratio"] > 1.99
    assert "no_such_module" in other["cpu"]["error"]


def write_pixels(path: Path) -> Path:
    """Write a data set of noise, as large as a trained network takes it."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        f"{name}_{kind}": generator.integers(0, high, shape).astype(dtype)
        for name, count in (("train", 256), ("test", 64))
        for kind, high, shape, dtype in (
            ("images", 256, (count, 32, 32, 3), np.uint8),
            ("labels", 10, (count,), np.int64),
        )
    }
    np.savez(path, **arrays)
    return path


@pytest.mark.slow
def test_the_whole_script_runs_its_parts_and_tells_which_failed(tmp_path: Path) -> None:
    script = Path(calibration.__file__).with_name("run.sh")
    data = f"npz:{write_pixels(tmp_path / 'pixels.npz')}"
    environ = {
        **os.environ, "SMALL": "1", "OUT": str(tmp_path / "out"), "TMPDIR": str(tmp_path),
        "PYTHON": sys.executable, "MODELS": "", "TOTAL_SECONDS": "1000",
    }  # fmt: skip
    rows = ("--rows", "plain", "spatial", "--epochs", "1", "--recipe", "one-cycle")
    whole = ["bash", str(script), data, *rows]
    done = subprocess.run(whole, env=environ, cwd=script.parents[2], check=False, timeout=1100)
    assert done.returncode == 0
    (tmp_path / "out" / "speed.json").unlink()
    for name in ("runtime", "calibration"):
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())
    reached = json.loads((tmp_path / "out" / "training.json").read_text())["reached"]
    assert [len(reached[name]["epochs"]) for name in ("plain", "spatial")] == [1, 1]
    assert {row.name for row in (tmp_path / "out").glob("*.tar")} == {"plain.tar", "spatial.tar"}

    broken = {**environ, "PARTS": "speed training"}
    command = ["bash", str(script), "npz:nowhere.npz", *rows, "--resume", str(tmp_path / "none")]
    done = subprocess.run(command, env=broken, cwd=script.parents[2], check=False, timeout=200)
    assert done.returncode == 1
    assert json.loads((tmp_path / "out" / "speed.json").read_text())
    assert "failed: decoding" in (tmp_path / "out" / "log.txt").read_text()


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
