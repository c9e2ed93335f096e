"""Networks of every kind of linear layer go through the whole job, and through parts of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import trpexport as tx
from tests.strategies import conv_op
from trpexport.cost import chain_macs
from trpexport.lowrank.chain import truncated
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.modules import (
    FactorChain,
    kernel_of,
    make_layer,
    op_of,
    set_kernel,
)
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.rewrite import merge, with_factors
from trpexport.ops import Call, LinearOp, Window


class Attention(nn.Module):
    """A block of a transformer; queries, keys and values come of one linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 4, width // 4)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, tokens, width))
        z: Tensor = x + self.down(functional.gelu(self.up(x)))
        return z


class ViT(nn.Module):
    """A vision transformer with a convolutional stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.block = Attention(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block(self.stem(x).flatten(2).mT).mean(1))
        return y


class UNet(nn.Module):
    """An encoder and a decoder that a transposed convolution leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.down = nn.Conv2d(16, 32, 3, 2, 1)
        self.up = nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1)
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.stem(x).relu()
        y: Tensor = self.head(torch.cat([self.up(self.down(wide).relu()), wide], 1))
        return y


def line() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(1, 16, 9, 2, 4), nn.ReLU(), nn.Conv1d(16, 32, 5, 2, 2), nn.BatchNorm1d(32)),
        *(nn.ReLU(), nn.ConvTranspose1d(32, 16, 4, 2, 1, groups=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 5)),
    )


def volume() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 32, 3, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose3d(32, 16, (3, 2, 2), 2), nn.ReLU()),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 5)),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit": (ViT, (1, 3, 16, 16)),
    "unet": (UNet, (1, 3, 12, 12)),
    "line": (line, (1, 1, 64)),
    "volume": (volume, (1, 1, 6, 6, 6)),
}


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *(("vit", "channel"), ("unet", "spatial"), ("line", "channel"), ("volume", "spatial")),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                *(("vit", "spatial"), ("unet", "channel")),
                *(("line", "spatial"), ("volume", "channel")),
            )
        ),
    ],
)
def test_it_goes_through_the_whole_job(name: str, scheme: str, tmp_path: Path) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    images = np.random.default_rng(0).standard_normal((40, *shape[1:])).astype(np.float32)
    chooser = tx.ByCriterion(scheme, "fraction:0.25")
    small = tx.decompose(model, chooser, example=shape, images=images)
    plan = small.plan
    stays = {layer.name for layer in plan.layers if not layer.is_rewritten}
    assert stays == {plan.layers[0].name, plan.layers[-1].name}
    cost = tx.count(small.module, example=shape)
    assert cost.macs == plan.macs_after < plan.macs_before == tx.count(model, example=shape).macs
    for fitted in plan.options["calibration"]["layers"]:
        assert fitted["error_after"] <= fitted["error_before"] * (1 + 1e-9)
    assert small.verify(seconds=0.05).equivalence["output"].is_equivalent()
    tx.export(small, tmp_path / "bundle", verify_seconds=0)
    again = with_factors(model, tx.read_plan(tmp_path / "bundle" / "plan.json"))
    again.load_state_dict(load_file(tmp_path / "bundle" / "model.safetensors"))
    x = torch.randn(2, *shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), small.module.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_merged_network_has_its_layers_back(name: str) -> None:
    make, shape = NETWORKS[name]
    model = make().eval()
    small = tx.decompose(model, tx.ByCriterion("channel", "fraction:0.25"), example=shape)
    merged = merge(small.module, shape)
    kinds = {key: type(module) for key, module in model.named_modules()}
    assert {key: type(module) for key, module in merged.named_modules()} == kinds
    assert {k: v.shape for k, v in merged.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


UP = nn.ConvTranspose2d(6, 4, (3, 2), (2, 1), (1, 0), (1, 0), groups=2)


@pytest.mark.parametrize("layer", [UP, nn.Linear(6, 4), nn.Conv3d(6, 4, 2, bias=False)])
def test_a_chain_answers_as_its_layer_did(layer: nn.Module) -> None:
    assert isinstance(layer, nn.ConvTranspose2d | nn.Linear | nn.Conv3d)
    op = op_of(layer)
    full = SCHEMES["channel"].full_rank(op)
    chain = FactorChain.of(
        truncated(kernel_of(layer), layer.bias, op, scheme="channel", rank=full), layer
    )
    torch.testing.assert_close(chain.weight, layer.weight)
    names = (
        {"in_features", "out_features"}
        if isinstance(layer, nn.Linear)
        else {
            *(
                "in_channels",
                "out_channels",
                "kernel_size",
                "stride",
                "padding",
                "dilation",
                "groups",
            ),
            *("padding_mode", *(["output_padding"] if op.window.transposed else [])),
        }
    )
    for name in names:
        assert getattr(chain, name) == getattr(layer, name), name


def test_a_kernel_is_read_and_written_in_one_order() -> None:
    # One tap of a grouped transposed convolution: input channel 2 (group 1) to output channel 3.
    up = nn.ConvTranspose1d(4, 6, 1, groups=2, bias=False)
    kernel = torch.zeros(6, 2, 1)
    kernel[3, 0] = 1.0
    set_kernel(up, kernel)
    x = torch.arange(1.0, 5.0).reshape(1, 4, 1)
    assert up(x).flatten().tolist() == [0, 0, 0, 3, 0, 0]
    assert torch.equal(kernel_of(up), kernel)


@pytest.mark.parametrize("transposed", [False, True])
def test_pads_may_differ_from_side_to_side(transposed: bool) -> None:
    extra = (3,) if transposed else ()
    window = Window((3,), (2,), ((0, 2),), (1,), "zeros", transposed, extra)
    layer = make_layer(LinearOp(1, 1, window=window))
    set_kernel(layer, torch.tensor([[[1.0, 2.0, 4.0]]]))
    y = layer(torch.tensor([[[1.0, 10.0, 100.0]]])).flatten().tolist()
    if transposed:
        # The full output 1, 2, 4+10, 20, 40+100, 200, 400 less two at its end, and three zeros.
        assert y == [1, 2, 14, 20, 140, 200, 400, 0]
    else:
        assert y == [1 + 20 + 400, 100]


def test_three_factors_of_a_3d_kernel_by_hand() -> None:
    op = conv_op(4, 8, (3, 5, 3), (1, 2, 1), (1, 2, 1), (1, 1, 1), groups=2)
    first, middle, last = SCHEMES["spatial"].factor_ops(op, 2)
    assert [one.kernel for one in (first, middle, last)] == [(3, 1, 1), (1, 5, 1), (1, 1, 3)]
    assert [one.window.stride for one in (first, middle, last)] == [(1, 1, 1), (1, 2, 1), (1, 1, 1)]
    assert [one.out_channels for one in (first, middle, last)] == [4, 4, 8]
    # On 6x6x6: two channels a group of 2x3 weights, at 216 places; 2x5 and then 2x3 at 6x3x6.
    macs = 4 * 2 * 3 * 216 + 4 * 2 * 5 * 108 + 8 * 2 * 3 * 108
    assert chain_macs((first, middle, last), Call(1, (6, 6, 6))) == macs
    # A bond has at most the fewer of what lies on its sides: 2x3 before the first, 4x3 behind.
    assert SCHEMES["spatial"].full_rank(op) == 12
    assert [one.out_channels for one in SCHEMES["spatial"].factor_ops(op, 12)[:2]] == [12, 24]


def test_factors_of_one_tap_are_not_transposed() -> None:
    window = Window((3, 3), (2, 2), ((1, 1), (1, 1)), transposed=True, output_pads=(1, 1))
    op = LinearOp(8, 8, window=window)
    kinds = {
        name: [one.window.transposed for one in scheme.factor_ops(op, 2)]
        for name, scheme in SCHEMES.items()
    }
    assert kinds == {
        "channel": [True, False],
        "input-channel": [False, True],
        "decoupling": [False, True],
        "spatial": [True, True],
        "spatial-channel": [True, True, False],
        "tucker2": [False, True, False],
    }
    vertical, horizontal = SCHEMES["spatial"].factor_ops(op, 2)
    assert vertical.window.output_pads == (1, 0)
    assert horizontal.window.output_pads == (0, 1)


class Kept(nn.Module):
    """Layers that nobody may rewrite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.sized = nn.ConvTranspose1d(16, 16, 3, 2)
        self.table = nn.Embedding(16, 16)
        self.tied = nn.Linear(16, 16, bias=False)
        self.tied.weight = self.table.weight
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.attention(x, x, x, need_weights=False)[0]
        x = self.sized(x.mT, output_size=(12,)).mT
        y: Tensor = self.fc(self.tied(x))
        return y


def test_what_is_kept_is_listed_with_its_reason_and_counted() -> None:
    network = TorchNetwork.open(Kept(), (1, 5, 16))
    fixed = {layer.name: layer.fixed or "" for layer in network.layers}
    assert set(fixed) == {"stem", "attention.out_proj", "sized", "tied", "fc"}
    assert "used by a function" in fixed["attention.out_proj"]
    assert "size of its output" in fixed["sized"]
    assert "its weight is that of table" in fixed["tied"]
    square = 16 * 16
    assert network.cost.macs == (
        5 * square + 4 * 5 * square + 2 * 5 * 5 * 16 + 5 * square * 3 + 12 * square + 12 * 64
    )


def test_layers_inside_pytorchs_own_transformer_run_by_themselves() -> None:
    model = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True).eval()
    network = TorchNetwork.open(model, (1, 5, 16))
    calls = {layer.name: layer.calls for layer in network.layers}
    assert calls["linear1"] == calls["linear2"] == (Call(5, ()),)


def test_a_layer_norm_of_tokens_is_no_channel() -> None:
    class Tokens(nn.Module):
        """A batch norm whose second axis is tokens, behind a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 6)
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.linear(x)) + x[:, :, :6]
            return y

    from trpexport.networks.torch.observation import observe

    model = Tokens().eval()
    x = torch.randn(3, 6, 8)
    seen = observe(lambda: model(x), {"linear": model.linear}, {"linear": 1})[0]["linear"]
    assert seen.inputs[0].shape == (18, 8)
    assert seen.outputs[0].shape == (18, 6)
    assert seen.shortcut is None


def test_a_shortcut_behind_a_linear_layer_is_seen_by_rows() -> None:
    from trpexport.networks.torch.observation import observe

    layer = nn.Linear(8, 6)
    gamma = torch.rand(6)
    x, other = torch.randn(3, 5, 8), torch.randn(3, 5, 6)
    seen = observe(lambda: layer(x) * gamma + other, {"layer": layer}, {"layer": 1})[0]["layer"]
    assert seen.shortcut is not None
    assert seen.scale is not None
    torch.testing.assert_close(seen.shortcut, other.reshape(15, 6))
    torch.testing.assert_close(seen.scale, gamma)
