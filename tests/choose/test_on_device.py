"""All of calibration on a device, against the processor: on one that is pretended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import trpexport as tx
from tests.kinds_of_networks import two_inputs, vit
from tests.pretended_cuda import CPU, CUDA, NAME, pretended_cuda
from trpexport.errors import DeviceError
from trpexport.inputs import rows
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.devices import full_precision
from trpexport.networks.torch.network import TorchNetwork


@pytest.fixture(autouse=True)
def as_any_device_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a CPU alone does, so that both give the same to the last bit."""
    monkeypatch.setattr("trpexport.networks.torch.cuts.runs_channels_last", lambda *_: False)
    monkeypatch.setattr("trpexport.lowrank.products._has_onednn", lambda: False)


class Residual(nn.Module):
    """A batch norm and a shortcut behind a layer, a depthwise one, few rows, a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.strided = nn.ConvTranspose2d(16, 24, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(24 * 4, 64)
        self.out = nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.norm(self.conv(x)))
        x = nn.functional.avg_pool2d(torch.relu(self.strided(x)), 7)
        return self.out(torch.relu(self.head(x.flatten(1))))  # type: ignore[no-any-return]


def residual() -> nn.Module:
    torch.manual_seed(0)
    model = Residual().train()
    with torch.no_grad():
        model(torch.randn(32, 3, 8, 8))
    return model.eval()


def images(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


X = images(32, 3, 8, 8)


def budget(scheme: str = "spatial") -> tx.ByBudget:
    return tx.ByBudget(macs=0.7, scheme=scheme, rank_multiple=1)


def compared(model: nn.Module | Path, given: Any, chooser: tx.ByBudget) -> None:
    """Decompose on either device: to the same factors, which come back."""
    expected = tx.decompose(model, chooser, images=given, device="cpu")
    with pretended_cuda() as account:
        found = tx.decompose(model, chooser, images=given, device="cuda")
        assert found.network.device == CPU
        assert account.operators > 1000
    assert f"calibrated on {NAME}" in found.notes
    assert found.plan == expected.plan
    batch = rows(found.network.inputs.named(given, "images"), slice(1))
    wanted = expected.network.run(batch)
    for name, output in found.network.run(batch).items():
        np.testing.assert_array_equal(output, wanted[name])


def test_every_scheme() -> None:
    compared(residual(), X, budget("auto"))


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (vit, images(32, 1, 16, 16)),
        (two_inputs, {"left": images(32, 1, 16, 16), "right": images(33, 1, 16, 16)[1:]}),
    ],
)
def test_other_networks(model: Callable[[], nn.Module], given: Any) -> None:
    torch.manual_seed(0)
    compared(model().eval(), given, budget())


def test_onnx_files(tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    settings = OnnxSettings(dynamic_batch=True, legacy_exporter=True)
    TorchNetwork(residual(), X[:1].shape).write_onnx(file, settings)
    compared(file, X, budget())


def test_a_graph_that_only_onnx_runtime_runs_stays_with_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "network.onnx"
    settings = OnnxSettings(dynamic_batch=True, legacy_exporter=True)
    TorchNetwork(residual(), X[:1].shape).write_onnx(file, settings)
    monkeypatch.setattr(
        "trpexport.networks.onnx.watch.unknown_operators", lambda _: {"com.example.Secret"}
    )
    with pretended_cuda() as account:
        found = tx.decompose(file, budget(), images=X, device="cuda")
    assert not account.operators
    assert any("calibrated through ONNX Runtime" in note for note in found.notes)
    assert not any(NAME in note for note in found.notes)


def test_auto_takes_cuda_where_there_is_one() -> None:
    with pretended_cuda() as account:
        tx.decompose(residual(), budget(), images=X)
    assert account.operators


def test_what_needs_no_images_stays_with_the_processor() -> None:
    with pretended_cuda() as account:
        found = tx.decompose(residual(), tx.ByCriterion("spatial", "rank:3"), example=X[:1])
    assert found.plan.rewritten
    assert not account.operators


class Anchored(Residual):
    """Holds a tensor that does not move with it."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = torch.ones(1, 3, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.anchors)


@pytest.mark.parametrize(
    ("model", "memory", "reason"),
    [
        (Residual, 2000, "the memory of NVIDIA Pretended is too small to calibrate the network"),
        (Anchored, None, "the network can't run on cuda"),
    ],
)
def test_where_it_cant_be_done_there(
    model: type[nn.Module], memory: int | None, reason: str
) -> None:
    """It ends in one line where CUDA was asked for; ``auto`` goes on with the processor."""
    torch.manual_seed(0)
    network, said = model().eval(), list[str]()
    with pretended_cuda(memory), pytest.raises(DeviceError, match=reason) as caught:
        tx.decompose(network, budget(), images=X, device="cuda")
    assert caught.value.parameters == ("device",)
    with pretended_cuda(memory):
        found = tx.decompose(network, budget(), images=X, announce=said.append)
    assert any(f"calibrated on the processor: {reason}" in line for line in said)
    assert found.plan == tx.decompose(network, budget(), images=X, device="cpu").plan


def test_tensors_on_both_are_found_out() -> None:
    """What is pretended refuses what a device refuses: else the tests above would show nothing."""
    x = torch.ones(3)
    with pretended_cuda():
        there = x.to("cuda")
        assert (there.device, (2 * there).device, there.cpu().device) == (CUDA, CUDA, CPU)
        assert torch.zeros(2, device=there.device).device == CUDA
        assert there[torch.tensor([0])].device == CUDA  # indices may be elsewhere
        with pytest.raises(RuntimeError, match="on the same device"):
            there + x
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "PyTorch sees no CUDA device here"), ("tpu", "unknown device 'tpu': choose from")],
)
def test_there_is_no_such_device(
    device: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=message):  # before the file is looked for
        tx.decompose(tmp_path / "none.pth", budget(), images=X, device=device)
    with pytest.raises(DeviceError, match=message):
        tx.decompose(residual(), budget(), images=X, device=device)


def test_settings_of_torch_come_back() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before
