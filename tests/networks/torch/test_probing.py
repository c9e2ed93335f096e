"""Layers of classes with a forward of their own, as libraries have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import Tensor, nn
from torch.nn import functional

import trpexport as tx
from trpexport.errors import ModelError
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.probing import probe

SHAPE = (1, 3, 17, 20)


def same(size: int, stride: int, kernel: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's padding, before and after."""
    reach = (kernel - 1) * dilation + 1
    total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class Dynamic(nn.Conv2d):
    """Pads by the size of what it gets, as timm's ``Conv2dSame``."""

    def forward(self, x: Tensor) -> Tensor:
        pads = [
            amount
            for axis in (1, 0)
            for amount in same(
                *(x.shape[2 + axis], self.stride[axis], self.kernel_size[axis]), self.dilation[axis]
            )
        ]
        x = functional.pad(x, pads)
        return functional.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation)


class Static(nn.Conv2d):
    """Pads by a module of its own, for the size it was made for, as EfficientNet's."""

    def __init__(self, size: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(size, out, kernel, stride)
        self.stride = [stride, stride]  # type: ignore[assignment]
        self.static_padding = nn.ZeroPad2d((1, 1, 0, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.static_padding(x)
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Wrapped(nn.Conv2d):
    """Pads, and leaves the rest to its base class."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


class Casts(nn.Linear):
    """Computes in the type of its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class Scales(nn.Conv2d):
    """Multiplies with more than its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Reflects(nn.Conv2d):
    """Pads with what is no zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1), mode="reflect"))


class Squares(nn.Linear):
    """Is no linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) ** 2


def network(layer: nn.Module, size: int = 32) -> nn.Module:
    end = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(size, 5))
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), layer, *end).eval()


UNDERSTOOD: dict[str, tuple[Callable[[], nn.Module], Any, bool]] = {
    "dynamic": (lambda: Dynamic(32, 32, 3), ((1, 1), (1, 1)), False),
    "dynamic strided": (lambda: Dynamic(32, 32, 3, stride=2), ((1, 1), (0, 1)), True),
    "dynamic even kernel": (lambda: Dynamic(32, 32, 4), ((1, 2), (1, 2)), False),
    "dynamic dilated": (lambda: Dynamic(32, 32, 3, dilation=2), ((2, 2), (2, 2)), False),
    "static": (lambda: Static(32, 32, 3, stride=2), ((0, 1), (1, 1)), False),
    "wrapped": (lambda: Wrapped(32, 32, 3), ((1, 1), (1, 1)), False),
    "wrapped beside padding": (lambda: Wrapped(32, 32, 5, padding=1), ((2, 2), (2, 2)), False),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_a_convolution_that_pads_by_itself_is_rewritten(name: str) -> None:
    make, pads, is_bound = UNDERSTOOD[name]
    torch.manual_seed(0)
    model = network(make())
    opened = TorchNetwork.open(model, SHAPE)
    layer = next(layer for layer in opened.layers if layer.name == "2")
    assert (layer.fixed, layer.op.window.pads) == (None, pads)
    assert list(opened.bound) == (["2"] if is_bound else [])
    assert opened.other_macs == 0  # the layers account for all that PyTorch counts
    # At full rank the chain is the layer.
    chooser = tx.ByCriterion("spatial", "fraction:1", keep_expensive=True, include=("2",))
    small = tx.decompose(model, chooser, example=SHAPE)
    assert [each.name for each in small.plan.rewritten] == ["2"]
    x = torch.randn(2, *SHAPE[1:])
    with torch.no_grad():
        torch.testing.assert_close(small.network.as_module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_linear_layer_with_a_forward_of_its_own_is_one() -> None:
    model = network(
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), Casts(32, 32), nn.Unflatten(1, (32, 1, 1))
        )
    )
    layers = {layer.name: layer for layer in TorchNetwork.open(model, SHAPE).layers}
    assert layers["2.2"].fixed is None


@pytest.mark.parametrize("kind", [Scales, Reflects])
def test_a_class_that_computes_more_is_named_once(kind: type[nn.Conv2d]) -> None:
    model = network(nn.Sequential(*(kind(32, 32, 3, padding=1) for _ in range(3))))
    opened = TorchNetwork.open(model, SHAPE)
    assert all(layer.fixed for layer in opened.layers if layer.name.startswith("2."))
    (note,) = opened.notes
    assert note.startswith(f"3 layers of class {kind.__name__} stay")
    assert "write a nn.Conv2d" in note


def test_what_is_no_linear_layer_is_none() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Squares(4, 4), nn.Linear(4, 4))
    assert probe(model, (1, 4)) == {}


def test_probing_leaves_nothing_behind() -> None:
    model = network(Dynamic(32, 32, 3, stride=2))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    opened = TorchNetwork.open(model, SHAPE)
    assert torch.equal(torch.rand(2), expected)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    returned = opened.as_module()
    assert {name: set(vars(module)) for name, module in returned.named_modules()} == before
    x = torch.randn(1, 3, 18, 21)
    assert torch.equal(returned(x), model(x))  # at another size too


def test_a_padding_that_hangs_on_the_size_is_not_written_for_all_sizes(tmp_path: Path) -> None:
    model = network(Dynamic(32, 32, 3, stride=2))
    chooser = tx.ByCriterion("spatial", "rank:4", include=("2",))
    small = tx.decompose(model, chooser, example=SHAPE).network
    dynamic = {"input": {2: "height", 3: "width"}}
    with pytest.raises(ModelError, match="2 pads by the size of its input"):
        small.write_onnx(tmp_path / "a.onnx", OnnxSettings(dynamic=dynamic))
    assert not (tmp_path / "a.onnx").exists()


def test_a_bundle_of_such_layers_is_read_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = network(Static(32, 32, 3, stride=2))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    chooser = tx.ByCriterion("spatial", "rank:4", include=("2",))
    factory = f"{__name__}:static"
    small = tx.decompose(tmp_path / "net.pth", chooser, example=SHAPE, factory=factory)
    quick: Any = {"verify_seconds": 0, "simplify": False, "legacy_exporter": True, "opset": 17}
    tx.export(small, tmp_path / "b", **quick)
    loaded = tx.load(tmp_path / "b", factory=factory).module.eval()
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    (written,) = InferenceSession(tmp_path / "b" / "model.onnx").run(None, {"input": x})
    with torch.no_grad():
        np.testing.assert_allclose(loaded(torch.from_numpy(x)), written, rtol=1e-3, atol=1e-4)


def static() -> nn.Module:
    return network(Static(32, 32, 3, stride=2))
