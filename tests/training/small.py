"""A small network, and a loop of one's own around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import trpexport as tx
from trpexport.training.trp import TrainedRankPruning

SHAPE = (1, 3, 12, 12)


class Small(nn.Module):
    """A stem, two equal convolutions, a strided, a grouped and a pointwise one, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.one = nn.Conv2d(12, 12, 3, padding=1)
        self.two = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.strided = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(24, 24, 3, groups=2, padding=1)
        self.pointwise = nn.Conv2d(24, 24, 1)
        self.fc = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + torch.relu(self.two(torch.relu(self.one(x))))
        x = torch.relu(self.grouped(torch.relu(self.strided(x))))
        y: Tensor = self.fc(torch.relu(self.pointwise(x)).mean((2, 3)))
        return y


def train(
    model: nn.Module,
    trp: TrainedRankPruning,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    start: int = 0,
) -> None:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05)
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        y = torch.randint(0, 4, (16,), generator=generator)
        x = torch.randn(16, 3, 12, 12, generator=generator) + y[:, None, None, None]
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        trp.before_step()
        optimizer.step()
        trp.after_step()


def decomposed(model: nn.Module, scheme: str = "spatial", **options: Any) -> tx.Decomposed:
    return tx.decompose(model, tx.ByCriterion(scheme, **options), example=SHAPE)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}
