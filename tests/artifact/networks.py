"""Small networks for export tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (1, 3, 16, 16)


class Tiny(nn.Module):
    """Convolutions with batch norms, a strided one, reflection and 'same' padding, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, padding=1, padding_mode="reflect")
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 16, (3, 5), padding="same")
        self.fc = nn.Linear(16, 5)
        for norm in (self.bn, self.bn1, self.bn2):
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.conv3(x))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


def tiny() -> nn.Module:
    return Tiny().eval()
