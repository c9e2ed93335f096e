"""A network costs the same whoever counts it: flops, inspect, decompose and the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import trpexport as tx
from tests.conftest import QUICK, Run
from tests.networks.torch.presets import preset
from trpexport.choose.spectra import keep_all
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork


class Attends(nn.Module):
    """Queries, keys and values, and one way to put them together."""

    def __init__(self, way: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, size) for size in (16, 16, 8))
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.q(x), self.k(x), self.v(x))


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bnd,bmd->bnm", q, k).softmax(-1)
    return torch.einsum("bnm,bmd->bnd", scores, v)


def by_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(1, 2)).softmax(-1) @ v


class Reads(nn.Module):
    """A recurrent layer behind a convolution."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3)
        self.read = kind(8, 12, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.read(self.conv(x).transpose(1, 2))[0])
        return y


class Own(nn.Module):
    """A kernel that is computed, and a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kernel = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 72)
        self.own = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        kernel = self.kernel(y.mean((2, 3))).reshape(8, 1, 3, 3)
        return functional.conv2d(y, kernel, groups=8).movedim(1, -1) @ self.own


IMAGE, CIFAR = (1, 3, 12, 12), (1, 3, 32, 32)
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 12, 3, 2, 1, 1, groups=2), nn.Conv2d(12, 4, 1)
        ),
        IMAGE,
        8 * 100 * 27 + 100 * 8 * 6 * 9 + 400 * 12 * 4,
    ),
    "1-D": (
        lambda: nn.Sequential(nn.Conv1d(2, 8, 9, 4), nn.Conv1d(8, 8, 3, padding=2, dilation=2)),
        (1, 2, 64),
        14 * 8 * 2 * 9 + 14 * 8 * 8 * 3,
    ),
    "3-D": (
        lambda: nn.Sequential(nn.Conv3d(2, 8, 3), nn.Conv3d(8, 8, 3, padding=1, groups=8)),
        (1, 2, 6, 8, 8),
        4 * 36 * 8 * 2 * 27 + 4 * 36 * 8 * 27,
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 6, 3, 2, groups=6)),
        IMAGE,
        100 * 6 * 9 + 16 * 6 * 9,
    ),
    "einsum": (lambda: Attends(by_einsum), (1, 6, 16), 6 * 16 * 40 + 36 * 16 + 36 * 8),
    "products": (lambda: Attends(by_product), (1, 6, 16), 6 * 16 * 40 + 36 * 16 + 36 * 8),
    "lstm": (lambda: Reads(nn.LSTM), (1, 3, 12), 10 * (8 * 9 + 2 * 48 * (8 + 12) + 24 * 4)),
    "gru": (lambda: Reads(nn.GRU), (1, 3, 12), 10 * (8 * 9 + 2 * 36 * (8 + 12) + 24 * 4)),
    "own": (Own, IMAGE, 144 * 8 * 27 + 8 * 72 + 100 * 72 + 100 * 40),
    "resnet20": (
        lambda: preset("resnet20"),
        CIFAR,
        40_551_040 + 2 * 131_072,
    ),  # the paper's, and projections
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_routes_and_all_counters_agree(kind: str, tmp_path: Path) -> None:
    make, shape, macs = KINDS[kind]
    torch.manual_seed(0)
    network = TorchNetwork.open(make().eval(), shape)
    path = tmp_path / "net.onnx"
    network.write_onnx(path, OnnxSettings(17, legacy_exporter=True))
    graph = OnnxNetwork.open(OnnxSource(path, read_model(path)))
    assert network.cost.macs == macs
    assert keep_all(network).macs_before == macs
    assert keep_all(graph).macs_before == macs
    assert tx.count(path).macs == macs
    assert not network.cost.uncounted
    assert not tx.count(path).uncounted


@pytest.mark.parametrize(
    "name",
    [
        "preresnet20",
        "wrn-16-4",
        "densenet-40-12(depth=10)",
        "alexnet",
        pytest.param("vgg11_bn", marks=pytest.mark.slow),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_families_cost_the_same_whole_and_decomposed(name: str, tmp_path: Path) -> None:
    small = tx.decompose(preset(name), tx.ByCriterion("channel", "fraction:0.5"), example=CIFAR)
    plan, files = small.plan, (tmp_path / "before.onnx", tmp_path / "after.onnx")
    assert plan.macs_after < plan.macs_before
    counts = (plan.macs_before, plan.macs_after)
    for network, path, macs in zip((small.original, small.network), files, counts, strict=True):
        network.write_onnx(path, OnnxSettings(17, legacy_exporter=True))
        assert network.cost.macs == macs
        assert tx.count(path).macs == macs
        assert keep_all(OnnxNetwork.open(OnnxSource(path, read_model(path)))).macs_before == macs
    (rule,) = tx.gate(*files, min_macs_ratio=1.0).rules
    assert rule.value == pytest.approx(counts[0] / counts[1])


class Small(nn.Module):
    """One operator that nobody can count, where ``is_known`` is false."""

    def __init__(self, is_known: bool = True) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.fc, self.is_known = nn.Linear(32, 4), is_known

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.stem(x))
        if not self.is_known:
            grid = torch.ones(y.shape[0], 12, 12, 2) * 0.1
            y = functional.grid_sample(y, grid, align_corners=False)
        found: Tensor = self.fc(y.mean((2, 3)))
        return found


def known() -> nn.Module:
    return Small()


def unknown() -> nn.Module:
    return Small(is_known=False)


@pytest.mark.parametrize("factory", [known, unknown])
def test_the_commands_say_the_same(
    factory: Callable[[], nn.Module], run: Run, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    checkpoint, bundle = tmp_path / "net.pth", tmp_path / "b"
    torch.save(factory().state_dict(), checkpoint)
    how = ("--model", f"{__name__}:{factory.__name__}", "--input-shape", "1x3x12x12")
    macs = 144 * (16 * 27 + 32 * 144) + 32 * 4

    def said(*arguments: object) -> dict[str, Any]:
        result = run(*arguments, "--json")
        assert result.code == 0, result.err
        found: dict[str, Any] = json.loads(result.out)
        return found

    made = said(
        *("decompose", checkpoint, *how, "--criterion", "rank:2", "--baseline", "-o", bundle),
        *(QUICK if factory is known else ("--verify-seconds", 0)),
    )
    counts = [
        said("flops", checkpoint, *how)["macs"],
        said("flops", bundle / "baseline.onnx")["macs"],
        said("inspect", checkpoint, *how)["macs"],
        made["macs"]["before"],
    ]
    assert counts == [macs] * 4
    assert said("flops", bundle)["macs"] == made["macs"]["after"]
    for command in (("flops", checkpoint, *how), ("flops", bundle), ("inspect", checkpoint, *how)):
        assert ("≥" in run(*command).out) == (factory is unknown)
        assert bool(said(*command)["uncounted"]) == (factory is unknown)
    assert bool(made["macs"]["uncounted"]) == (factory is unknown)
    gate = ("gate", "--candidate", bundle, "--min-macs-ratio", "1")
    if factory is known:
        (rule,) = said(*gate)["rules"]
        assert rule["value"] == pytest.approx(made["macs"]["ratio"])
    else:
        assert "GridSample" in run(*gate).out
