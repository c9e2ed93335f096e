"""What the tests of choices share: a small network, images, and the way to a plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.choose.gathering import Gatherer
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import analyse
from trpexport.lowrank.criteria import DEFAULT, parse_criterion
from trpexport.networks.samples import checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan

SHAPE = (1, 3, 12, 12)


class Small(nn.Module):
    """Stem, a plain, a strided and a pointwise convolution, one that never runs, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.strided = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.unused = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(16, 5)
        for conv in (self.plain, self.strided, self.pointwise):
            low_rank_(conv, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.strided(self.plain(self.stem(x))))
        y: Tensor = self.fc(self.pointwise(x).mean((2, 3)))
        return y


def low_rank_(conv: nn.Conv2d, rank: int) -> None:
    """Give a convolution a kernel whose channel matrix has exactly ``rank``."""
    torch.manual_seed(0)
    out = conv.out_channels
    kernel = torch.randn(out, rank) @ torch.randn(rank, conv.weight[0].numel())
    conv.weight.data = kernel.reshape_as(conv.weight) / kernel.norm() * 10


def planned(
    network: TorchNetwork,
    scheme: str = "channel",
    criterion: str = DEFAULT,
    *,
    keep_expensive: bool = False,
    **selection: Any,
) -> Plan:
    """Return the plan of a criterion."""
    analysis = analyse(network, scheme, Selection(**selection))
    return analysis.plan(parse_criterion(criterion), keep_expensive=keep_expensive)


def ranks(plan: Plan) -> dict[str, int | None]:
    """Return the rank of each layer, None where it stays."""
    return {layer.name: layer.rank for layer in plan.layers}


def reasons(plan: Plan) -> dict[str, str]:
    """Return why layers stay."""
    return {layer.name: layer.reason for layer in plan.layers if layer.reason is not None}


def smooth(count: int, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    """Return images whose neighbouring pixels are alike, as those of real images are."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape[1:]))
    return (noise.cumsum(2).cumsum(3) / 8).astype(np.float32)


def gatherer_of(network: TorchNetwork, images: Any) -> Gatherer:
    """Return what gathers the moments of a network's layers on images."""
    return Gatherer(network, network.watch(checked_samples(images, network.inputs)))
