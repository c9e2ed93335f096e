"""Costs of PyTorch networks: by hand, and against published counts."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trpexport.errors import PlanError
from trpexport.networks.torch.counting import count_module


@pytest.mark.parametrize(("preset", "gmacs"), [("resnet18", 1.81), ("resnet50", 4.09)])
def test_published_counts(preset: str, gmacs: float) -> None:
    zoo = importlib.import_module("trpexport.models_zoo")
    model = zoo.parse_architecture(preset, num_classes=1000).build()
    cost = count_module(model, (1, 3, 224, 224))
    assert cost.macs == pytest.approx(gmacs * 1e9, rel=0.01)
    assert cost.flops == 2 * cost.macs
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert not cost.uncounted


class Mixed(nn.Module):
    """A grouped convolution, a transposed one, a linear layer used twice, and oddities."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, groups=2, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.fc = nn.Linear(6, 6)
        self.unused = nn.Linear(3, 3)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.up(self.norm(self.conv(x))))
        y: Tensor = self.fc(self.fc(x.mean((2, 3))))
        return y


def test_by_hand() -> None:
    cost = count_module(Mixed(), (3, 4, 8, 8))
    layers = [(layer.name, layer.macs, layer.parameters) for layer in cost.layers]
    assert layers == [
        # 3 images of 8 channels of 4x4 pixels, each from 2 channels of 9 weights.
        ("conv", 3 * 8 * 16 * 2 * 9, 8 * 2 * 9 + 8),
        # Every one of the 8 x 16 input pixels meets 3 output channels of 4 weights.
        ("up", 3 * 8 * 16 * 3 * 4, 8 * 3 * 4 + 6),
        ("fc", 3 * 6 * 6, 6 * 6 + 6),
        ("fc", 3 * 6 * 6, 0),  # the second call has no parameters of its own
    ]
    assert cost.layers[0].output_shape == (3, 8, 4, 4)
    assert cost.layers[0].activation_bytes == 3 * 8 * 16 * 4
    assert cost.left_out.keys() >= {"BatchNorm2d", "PReLU", "mean"}
    assert not cost.uncounted
    assert cost.parameters == sum(p.numel() for p in Mixed().parameters())


class Attention(nn.Module):
    """Two convolutions, attention over the pixels, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c2(self.c1(x).relu()).relu().flatten(2).mT
        z: Tensor = self.fc(self.attention(y, y, y, need_weights=False)[0].mean(1))
        return z


def test_attention_by_hand() -> None:
    n = 16 * 16  # pixels, which are tokens
    convolutions = 16 * 3 * 9 * n + 16 * 16 * 9 * n
    # Three projections, scores and their use (over all heads together), the output, the classifier.
    attention = 3 * 16 * 16 * n + 2 * n * n * 16 + 16 * 16 * n + 16 * 4
    model = Attention()
    fast = torch.backends.mha.get_fastpath_enabled()
    cost = count_module(model, (1, 3, 16, 16))
    assert cost.macs == convolutions + attention
    assert not cost.uncounted
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled() == fast
    encoder = nn.TransformerEncoderLayer(16, 4, dim_feedforward=32, batch_first=True).eval()
    expected = (4 * 16 * 16 + 2 * 16 * 32) * 10 + 2 * 10 * 10 * 16
    assert count_module(encoder, (1, 10, 16)).macs == expected


class Functional(nn.Module):
    """What is no module: a function of x and of a weight (5, 4, 3, 3)."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(5, 4, 3, 3))
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.weight)


@pytest.mark.parametrize(
    ("compute", "macs"),
    [
        (lambda x, w: functional.conv2d(x, w, padding=1), 5 * 4 * 9 * 64),
        (lambda x, w: functional.conv_transpose2d(x, w.transpose(0, 1)), 5 * 4 * 9 * 64),
        (
            lambda x, w: functional.linear(x.flatten(2), w.reshape(-1)[:128].reshape(2, 64)),
            4 * 64 * 2,
        ),
        (lambda x, w: torch.einsum("bchw,ocij->bohw", x, w), 5 * 4 * 64),
        (lambda x, w: x @ x.mT, 4 * 8 * 8 * 8),
        (lambda x, w: x[0, 0] @ x[0, 0, 0], 64),
        (lambda x, w: x.flatten() @ x.flatten(), 256),
        (lambda x, w: functional.bilinear(x, x, w.reshape(-1)[:128].reshape(2, 8, 8)), 32 * 128),
        (lambda x, w: functional.scaled_dot_product_attention(x, x, x), 4 * 2 * 8 * 8 * 8),
        (lambda x, w: x * w.sum() + x.mean(), 0),
    ],
)
def test_functions_by_hand(compute: Callable[[Tensor, Tensor], Tensor], macs: int) -> None:
    cost = count_module(Functional(compute), (1, 4, 8, 8))
    assert cost.macs == macs
    assert not cost.uncounted
    assert cost.parameters == 180


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_layers_by_hand(
    kind: Callable[..., nn.Module], gates: int, both_ways: bool
) -> None:
    model = kind(6, 10, batch_first=True, bidirectional=both_ways)
    cost = count_module(model, (2, 7, 6))
    assert cost.macs == (1 + both_ways) * 2 * 7 * gates * 10 * (6 + 10)
    assert not cost.uncounted


def test_frames_in_the_batch_count_each() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x.flatten(0, 1))
            z: Tensor = y.reshape(*x.shape[:2], *y.shape[1:]).mean(1)
            return z

    assert count_module(Video(), (2, 5, 3, 8, 8)).macs == 2 * 5 * 3 * 4 * 9 * 64


def test_what_nobody_knows_is_listed() -> None:
    cost = count_module(Functional(lambda x, w: torch.fft.rfft2(x).abs()), (1, 4, 8, 8))
    assert sum(cost.uncounted.values()) == 1
    assert "fft" in next(iter(cost.uncounted))
    # 4 x 8 x 5 numbers, each a sum over at most 8.
    assert cost.uncounted_macs == 4 * 8 * 5 * 8


def test_the_network_is_left_as_it_was() -> None:
    model = Mixed().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_module(model, (2, 4, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.conv._forward_hooks


def test_an_input_that_does_not_fit() -> None:
    with pytest.raises(PlanError, match=r"can't run an input of shape 1x5x8x8"):
        count_module(Mixed(), (1, 5, 8, 8))
