"""A small network decomposed and refined, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import trpexport as tx
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed
from trpexport.plan import CALIBRATION
from trpexport.refining.refinement import REFINED

SHAPE = (3, 12, 12)
STEPS = tx.Refinement(steps=24, bf16=False)


class Normed(nn.Module):
    """A block with batch norms and a shortcut, dropout, and a layer that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.tied = nn.Conv2d(16, 16, 3, padding=1)
        self.tied.weight = self.twice.weight
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, 5)
        self.norm.running_mean = torch.randn(16) / 4
        self.norm.running_var = torch.rand(16) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = nn.functional.relu(self.norm(self.first(x)), inplace=True) + x
        x = torch.relu(self.twice(self.drop(x)))
        y: Tensor = self.fc(torch.relu(self.tied(x)).mean((2, 3)))
        return y


def smooth(*shape: int, seed: int = 0) -> Any:
    """Return inputs of which neighbours are alike along the last axis."""
    noise = np.random.default_rng(seed).standard_normal(shape).cumsum(-1) / 3
    return noise.astype(np.float32)


def network(kind: Callable[[], nn.Module] = Normed) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def decomposed(
    refine: tx.Refinement | None = STEPS, images: Any = None, model: nn.Module | None = None
) -> Decomposed[TorchNetwork]:
    chooser = tx.ByCriterion("spatial", "fraction:0.25", keep_expensive=True)
    images = smooth(80, *SHAPE) if images is None else images
    return tx.decompose(model or network(), chooser, images=images, refine=refine)


def facts(found: Decomposed[Any]) -> dict[str, Any]:
    told: dict[str, Any] = found.plan.options[CALIBRATION][REFINED]
    return told
