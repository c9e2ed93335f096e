"""Which layers are heads, as PyTorch and as an ONNX file have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from tests.kinds_of_networks import NETWORKS
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork

SHAPE = (1, 3, 16, 16)


def conv(size: int, out: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(size, out, kernel, padding=kernel // 2)


class Net(nn.Module):
    """A stem, a body of two, and what a test puts behind them."""

    def __init__(self, end: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.last = conv(3, 16), conv(16, 16), conv(16, 16)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x).relu()
        return self.end(self, x + self.body(x).relu())


def norm_and_act(net: Any, x: Tensor) -> Tensor:
    y: Tensor = net.norm(net.last(x)).sigmoid()
    return y


def summed(net: Any, x: Tensor) -> Tensor:
    y: Tensor = net.up(net.a(x)) + net.b(x)
    return y


def joined(net: Any, x: Tensor) -> Tensor:
    found = [net.a(x).flatten(2), net.b(net.last(x).relu()).flatten(2)]
    y: Tensor = torch.cat(found, 2).transpose(1, 2)
    boxes, scores = y[..., :4], y[..., 4:]
    return torch.cat([boxes * 2, scores.softmax(-1)], 2)


def features(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return x, net.last(x).relu() + x


def in_place(net: Any, x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 8, *x.shape[2:])
    y[:, :6] = net.a(x)
    y[:, 6:] = net.b(x)[:, :2]
    return y


def gated(net: Any, x: Tensor) -> Tensor:
    y: Tensor = net.last(x) * net.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
    return y


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "norm and activation": (lambda: Net(norm_and_act, norm=nn.BatchNorm2d(16)), ("last",)),
    "two scores, one behind a transposed convolution": (
        lambda: Net(summed, a=conv(16, 6), up=nn.ConvTranspose2d(6, 6, 1), b=conv(16, 6)),
        ("up", "b"),
    ),
    "heads of a detector, joined and taken apart": (
        lambda: Net(joined, a=conv(16, 6, 1), b=conv(16, 6, 1)),
        ("a", "b"),
    ),
    # The body's output goes on into another layer, and a skip past it makes no head.
    "features at two places": (lambda: Net(features), ("last",)),
    "written into one tensor": (lambda: Net(in_place, a=conv(16, 6), b=conv(16, 6)), ("a", "b")),
    "a gate": (lambda: Net(gated, fc=nn.Linear(16, 16)), ("last", "fc")),
}


def onnx_of(model: nn.Module, path: Path, shape: Any) -> OnnxNetwork:
    TorchNetwork.open(model, shape).write_onnx(path, OnnxSettings(17, legacy_exporter=True))
    return OnnxNetwork.open(OnnxSource(path, read_model(path)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_leaves_a_network_without_another_layer_is_a_head(kind: str, tmp_path: Path) -> None:
    make, expected = KINDS[kind]
    model = make().eval()
    assert set(TorchNetwork.open(model, SHAPE).heads) == set(expected)
    # A batch norm that was folded leaves a kernel without its module's name.
    found = onnx_of(model, tmp_path / "a.onnx", SHAPE).heads
    assert {name.removeprefix("/").removesuffix("/Conv") for name in found} == set(expected)


def test_every_head_of_a_detector_is_left_alone(tmp_path: Path) -> None:
    model = NETWORKS["detector"]().eval()
    shape = (1, 1, 16, 16)
    for source in (model, onnx_of(model, tmp_path / "a.onnx", shape).source.path):
        chooser = tx.ByCriterion("spatial", "fraction:0.25")
        plan = tx.decompose(source, chooser, example=shape).plan
        reasons = {layer.name: layer.reason or "" for layer in plan.layers}
        assert {name for name, reason in reasons.items() if reason.startswith("a head")} == {
            "label",
            "centre",
            "size",
        }
        chooser = tx.ByCriterion("channel", "rank:1", include=("label",))
        assert [x.name for x in tx.decompose(source, chooser, example=shape).plan.rewritten] == [
            "label"
        ]
