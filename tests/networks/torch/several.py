"""Networks with several inputs and outputs, of several kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class Masked(nn.Module):
    """An image and a mask; which of them comes first matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 12, 3, padding=1)
        self.gate = nn.Conv2d(2, 12, 3, padding=1)
        self.body = nn.Conv2d(12, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        x = torch.relu(self.stem(image)) * torch.sigmoid(self.gate(mask))
        y: Tensor = self.head(torch.relu(self.body(x)).mean((2, 3)))
        return y


class Tokens(nn.Module):
    """Token ids and a mask of truth values; the ids come out again under their own name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 12)
        self.first = nn.Conv1d(12, 16, 3, padding=1)
        self.second = nn.Conv1d(16, 16, 3, padding=1)
        self.third = nn.Conv1d(16, 8, 3, padding=1)

    def forward(self, ids: Tensor, attention: Tensor) -> dict[str, Tensor]:
        x = self.embedding(ids).transpose(1, 2) * attention[:, None].float()
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return {"states": self.third(x), "ids": ids}


@dataclass
class Detections:
    """What a detector returns."""

    boxes: list[Tensor | None]
    scores: Tensor
    features: Tensor
    stride: int = 4


class Detector(nn.Module):
    """Fully convolutional: three outputs of different kinds and sizes, and what is no tensor."""

    def __init__(self, *, as_mapping: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.as_mapping = as_mapping
        self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.second = nn.Conv2d(12, 16, 3, padding=1)
        self.third = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.box = nn.Conv2d(16, 4, 1)
        self.score = nn.Conv2d(16, 3, 1)

    def forward(self, image: Tensor) -> Any:
        features = torch.relu(self.second(torch.relu(self.first(image))))
        deep = torch.relu(self.third(features))
        found = Detections([self.box(deep), None], self.score(deep).sigmoid(), features)
        return vars(found) if self.as_mapping else found


class Pyramid(nn.Module):
    """Halves its image and doubles it again: runs at even sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.down = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y: Tensor = x + self.up(torch.relu(self.down(x)))
        return y


class Square(nn.Module):
    """Runs at one size alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.body = nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Linear(12 * 36, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(torch.relu(self.stem(x))).flatten(1))
        return y
