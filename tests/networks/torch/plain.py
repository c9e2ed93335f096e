"""A plain network, what it is decomposed with, and images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trpexport.choose.by_budget import ByBudget
from trpexport.choose.by_criterion import ByCriterion
from trpexport.datasets.calibration import ArrayImages
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed, decompose_network

SHAPE = (1, 3, 8, 8)
FULL = ByCriterion("spatial", "rank:48", keep_expensive=True)  # all ranks: the same network


def images(count: int = 32) -> ArrayImages:
    values = np.random.default_rng(0).standard_normal((count, *SHAPE[1:]), dtype=np.float32)
    return ArrayImages(values)


class Plain(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.c2(self.c1(x).relu()))

    def end(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.relu().mean((2, 3)))
        return y


class ReadsAttributes(Plain):
    def forward(self, x: Tensor) -> Tensor:
        conv = self.c2
        x = self.c1(x.to(self.c1.weight.dtype)).relu().to(conv.weight.dtype)
        assert conv.bias is not None
        assert (conv.in_channels, conv.out_channels, conv.groups) == (16, 16, 1)
        assert (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        assert (conv.padding, conv.padding_mode) == ((1, 1), "zeros")
        return self.end(conv(x) + 0 * (conv.weight.sum() + conv.bias.mean()))


def decomposed(
    model: nn.Module, chooser: ByCriterion | ByBudget, images: ArrayImages | None = None
) -> Decomposed:
    return decompose_network(TorchNetwork.open(model, SHAPE), chooser, images)
