"""Whole graphs in PyTorch against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from tests.networks.torch import branches
from trpexport.errors import ModelError
from trpexport.networks.onnx.layers import linear_layers
from trpexport.networks.onnx.module import OnnxModule
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.modules import LAYERS
from trpexport.networks.torch.network import TorchNetwork


class UNet(nn.Module):
    """Two scales, a transposed convolution, a joined skip, resized features and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = nn.functional.silu(self.down(x))
        b = nn.functional.avg_pool2d(nn.functional.gelu(self.inner(a)), 3, 1, 1)
        coarse = nn.functional.interpolate(b, scale_factor=2, mode="bilinear")
        return self.out(torch.cat([a, self.up(b)], 1)), coarse


class Transformer(nn.Module):
    """A convolution that makes tokens, attention, a layer norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, stride=4)
        self.qkv, self.project = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)
        self.position = nn.Parameter(torch.randn(1, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm(tokens)).reshape(-1, 16, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        tokens = tokens + self.project(mixed.transpose(1, 2).reshape(-1, 16, 16))
        y: Tensor = self.head(tokens.mean(1))
        return y


def module_of(path: Path) -> OnnxModule:
    model = ir.load(path)
    return OnnxModule(model, linear_layers(model)).eval()


def assert_same(path: Path, module: OnnxModule, *inputs: np.ndarray) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    wanted = session.run(None, dict(zip(names, inputs, strict=True)))
    with torch.no_grad():
        found = module(*map(torch.from_numpy, inputs))
    assert list(found) == [each.name for each in session.get_outputs()]
    for ours, theirs in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "layers"), [(UNet, 4), (Transformer, 4)])
def test_an_exported_network_gives_what_onnx_runtime_gives(
    kind: type[nn.Module], layers: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.onnx"
    TorchNetwork.open(kind().eval(), (1, 3, 16, 16)).write_onnx(path, OnnxSettings())
    module = module_of(path)
    assert len(module.layers) == layers
    assert all(isinstance(layer, LAYERS) for layer in module.layers)
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    assert_same(path, module, x)


def parsed(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


HEAD = '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'
GRAPHS = {
    "branches": HEAD
    + """main (float[N, 4] x) => (float[N, 4] y) {
        size = Size(x)
        zero = Constant<value = int64 {0}>()
        some = Greater(size, zero)
        y = If(some) <
            then_branch = then () => (float[N, 4] a) { a = Relu(x) },
            else_branch = other () => (float[N, 4] b) { b = Neg(x) }
        >
    }""",
    "loop": HEAD
    + """main (float[N, 4] x) => (float[N, 4] y, float[K, N, 4] all) {
        count = Constant<value = int64 {3}>()
        true = Constant<value = bool {1}>()
        y, all = Loop(count, true, x) <
            body = step (int64 i, bool go, float[N, 4] h)
                => (bool on, float[N, 4] next, float[N, 4] seen)
                { on = Identity(go) next = Add(h, x) seen = Tanh(next) }
        >
    }""",
    "function": HEAD
    + """main (float[N, 4] x) => (float[N, 4] y) {
        a = mine.scaled<factor = 2.0>(x)
        y = mine.scaled<factor = 3.0>(a)
    }
    <domain: "mine", opset_import: ["" : 17]>
    scaled <factor>(v) => (w) {
        f = Constant<value_float: float = @factor>()
        w = Mul(v, f)
    }""",
    "two inputs": HEAD
    + """main (float[N, 4] x, float[N, 4] other) => (float[N, 4] y) { y = Sub(x, other) }""",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_bodies_and_functions_are_run(name: str, tmp_path: Path) -> None:
    path = parsed(tmp_path, GRAPHS[name])
    draw = np.random.default_rng(0)
    inputs = [
        draw.normal(size=(2, 4)).astype(np.float32) for _ in range(1 + (name == "two inputs"))
    ]
    assert_same(path, module_of(path), *inputs)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = parsed(tmp_path, HEAD + "main (float[4] x) => (float[4] y) { y = mine.Odd(x) }")
    with pytest.raises(ModelError, match="Odd"):
        module_of(path)


def test_what_does_not_fit_is_one_clear_error(tmp_path: Path) -> None:
    path = parsed(
        tmp_path, HEAD + "main (float[A] x, float[B] z) => (float[A] y) { y = Add(x, z) }"
    )
    module = module_of(path)
    with pytest.raises(ModelError, match=r"Add.*can't be computed"):
        module(torch.ones(2), torch.ones(3))
    with pytest.raises(ModelError, match="the inputs x, z"):
        module(torch.ones(2))


def test_gradients_reach_every_layer(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    TorchNetwork.open(UNet().eval(), (1, 3, 16, 16)).write_onnx(path, OnnxSettings())
    module = module_of(path)
    sum(output.sum() for output in module(torch.randn(1, 3, 16, 16)).values()).backward()
    assert all(layer.get_parameter("weight").grad is not None for layer in module.layers)


def test_double_precision_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    TorchNetwork.open(Transformer().eval(), (1, 3, 16, 16)).write_onnx(path, OnnxSettings())
    outputs = module_of(path).double()(torch.randn(1, 3, 16, 16, dtype=torch.float64))
    assert {output.dtype for output in outputs.values()} == {torch.float64}


def test_a_graph_with_ways_around_runs_in_segments_that_pass_several_tensors(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    network = TorchNetwork.open(branches.UNet().eval(), (1, 3, 32, 32))
    network.write_onnx(path, OnnxSettings())
    module = module_of(path)
    assert_same(path, module, np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype("f4"))
    *_, before_last, last = module.names.values()
    cuts = Cuts(module, (1, 3, 32, 32))
    several, one = cuts.before(before_last), cuts.before(last)
    assert several is not None
    assert one is not None
    # The first scale, which joins later, and what the layer takes.
    assert several.skipped[several.names[0]].shapes == ((1, 6, 16, 16), (1, 12, 8, 8))
    assert one.skipped[one.names[0]].shapes == ((1, 12, 16, 16),)
