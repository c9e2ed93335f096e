"""Small networks of the kinds that people bring, and that are no classifiers of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())


class UNet(nn.Module):
    """Two levels; up again by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = _block(1, 16), _block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.joined, self.head = _block(32, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        coarse = self.deep(nn.functional.max_pool2d(fine, 2))
        return self.head(self.joined(torch.cat([fine, self.up(coarse)], 1)))  # type: ignore[no-any-return]


class Detector(nn.Module):
    """A backbone that takes any size, and three heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            _block(1, 16), _block(16, 32), nn.MaxPool2d(2), _block(32, 32)
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.label, self.centre, self.size = (nn.Linear(512, n) for n in (10, 2, 2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.pool(self.backbone(x)).flatten(1)
        return {
            "label": self.label(found),
            "centre": self.centre(found),
            "size": self.size(found),
        }


class TwoInputs(nn.Module):
    """One trunk for both images."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_block(1, 16), nn.MaxPool2d(2), _block(16, 16))
        self.joined = nn.Sequential(_block(32, 32), nn.MaxPool2d(2))
        self.head = nn.Linear(512, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = torch.cat([self.trunk(left), self.trunk(right)], 1)
        return self.head(self.joined(both).flatten(1))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """A stem of convolutions, two layers of attention over 16 patches."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1)
        )
        self.place = nn.Parameter(torch.zeros(1, 16, width))
        self.first, self.second = _Attention(width), _Attention(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.second(self.first(tokens)).mean(1))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.out(weights @ v)
        return x + self.mlp(self.norms[1](x))  # type: ignore[no-any-return]


def unet() -> nn.Module:
    return UNet()


def detector() -> nn.Module:
    return Detector()


def audio() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(32, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(8, 16, 3, padding=1), nn.ReLU(),
        nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def two_inputs() -> nn.Module:
    return TwoInputs()


def vit() -> nn.Module:
    return ViT()


NETWORKS = {
    "unet": unet,
    "detector": detector,
    "audio": audio,
    "volume": volume,
    "two_inputs": two_inputs,
    "vit": vit,
}
