"""Densely connected networks for CIFAR: every layer sees all earlier ones of its block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from .family import (
    Config,
    Family,
    Shapes,
    blocks_per_stage,
    choose,
    count_children,
    none_on_misfit,
    register,
)
from .layers import conv1x1, conv3x3, network


class DenseLayer(nn.Module):
    """A 3x3 convolution whose ``growth_rate`` outputs are appended to its input."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, growth_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, in_channels + growth_rate, H, W)."""
        out = self.conv1(relu(self.bn1(x), inplace=True))
        return torch.cat((x, out), 1)


class DenseBottleneck(nn.Module):
    """A dense layer whose 3x3 convolution sees 4 x ``growth_rate`` channels only."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        width = 4 * growth_rate
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, growth_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, in_channels + growth_rate, H, W)."""
        out = self.conv1(relu(self.bn1(x), inplace=True))
        out = self.conv2(relu(self.bn2(out), inplace=True))
        return torch.cat((x, out), 1)


class Transition(nn.Module):
    """What lies between two dense blocks: a 1x1 convolution, then the size is halved."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / 2, W / 2)."""
        out = self.conv1(relu(self.bn1(x), inplace=True))
        return avg_pool2d(out, 2)


BLOCKS: dict[str, type[DenseLayer] | type[DenseBottleneck]] = {
    "basic": DenseLayer,
    "bottleneck": DenseBottleneck,
}
LAYERS_PER_BLOCK = {"basic": 1, "bottleneck": 2}


def densenet_cifar(
    *,
    depth: int,
    block: str,
    growth_rate: int,
    compression: int,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Make a CIFAR DenseNet, whose stem has ``2 * growth_rate`` channels.

    Args:
        depth: 3n+4 for n basic layers a dense block, 6n+4 for n bottlenecks.
        block: ``basic`` or ``bottleneck``.
        growth_rate: channels that a layer adds.
        compression: what a transition divides the channels by, down to one; 1 keeps them, 2 is
            DenseNet-BC's.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    make_block = choose("block", BLOCKS, block)
    count = blocks_per_stage(depth, layers=3 * LAYERS_PER_BLOCK[block], others=4)
    body: dict[str, nn.Module] = {}
    channels = 2 * growth_rate
    for index in (1, 2, 3):
        body[f"dense{index}"] = nn.Sequential(
            *(make_block(channels + i * growth_rate, growth_rate) for i in range(count))
        )
        channels += count * growth_rate
        if index < 3:
            compressed = max(channels // compression, 1)
            body[f"trans{index}"] = Transition(channels, compressed)
            channels = compressed
    return network(
        conv1=conv3x3(in_channels, 2 * growth_rate),
        **body,
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    block = "bottleneck" if "dense1.0.conv2.weight" in shapes else "basic"
    stem, in_channels, _, _ = shapes["conv1.weight"]
    transitions = [shapes[f"trans{index}.conv1.weight"][:2] for index in (1, 2)]
    return {
        "depth": 3 * LAYERS_PER_BLOCK[block] * count_children(shapes, "dense1") + 4,
        "block": block,
        "growth_rate": stem // 2,
        # The smallest divisor that leaves as few channels, floored, as both transitions do.
        "compression": max(channels // (left + 1) + 1 for left, channels in transitions),
        "num_classes": shapes["fc.weight"][0],
        "in_channels": in_channels,
    }


def _preset(depth: int, growth_rate: int, block: str, compression: int) -> Config:
    return {
        "depth": depth,
        "block": block,
        "growth_rate": growth_rate,
        "compression": compression,
    }


FAMILY = register(
    Family(
        name="densenet_cifar",
        build=densenet_cifar,
        presets={
            "densenet-40-12": _preset(40, 12, "basic", 1),
            "densenet-100-12": _preset(100, 12, "basic", 1),
            "densenet-bc-100-12": _preset(100, 12, "bottleneck", 2),
            "densenet-bc-190-40": _preset(190, 40, "bottleneck", 2),
        },
        input_size=(32, 32),
        infer=infer,
        source=(
            "Huang et al. 2017, Densely Connected Convolutional Networks; "
            "names as in bearpaw/pytorch-classification"
        ),
    )
)
