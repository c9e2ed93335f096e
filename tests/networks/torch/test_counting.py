"""Costs of PyTorch networks: by hand, and against published counts."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn

from trpexport.errors import PlanError
from trpexport.networks.torch.counting import count_modules


@pytest.mark.parametrize(("preset", "gmacs"), [("resnet18", 1.81), ("resnet50", 4.09)])
def test_published_counts(preset: str, gmacs: float) -> None:
    zoo = importlib.import_module("trpexport.models_zoo")
    model = zoo.parse_architecture(preset, num_classes=1000).build()
    cost = count_modules(model, (1, 3, 224, 224))
    assert cost.macs == pytest.approx(gmacs * 1e9, rel=0.01)
    assert cost.flops == 2 * cost.macs
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert not cost.unknown


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
    cost = count_modules(Mixed(), (3, 4, 8, 8))
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
    assert cost.left_out == {"BatchNorm2d": 1}
    # A PReLU multiplies by a parameter and is no normalisation; the unused layer never ran.
    assert cost.unknown == {"PReLU": 1, "Linear": 1}
    assert cost.parameters == sum(p.numel() for p in Mixed().parameters())


def test_the_network_is_left_as_it_was() -> None:
    model = Mixed().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_modules(model, (2, 4, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.conv._forward_hooks


def test_an_input_that_does_not_fit() -> None:
    with pytest.raises(PlanError, match=r"can't run an input of shape 1x5x8x8"):
        count_modules(Mixed(), (1, 5, 8, 8))
