"""Pre-activation residual networks for CIFAR: batch norm and ReLU come before a convolution."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

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
from .layers import BlockMaker, conv1x1, conv3x3, network, residual_stages

EXPANSION = {"basic": 1, "basic-activated": 1, "bottleneck": 4, "bottleneck-activated": 4}


def linear_projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a shortcut of a 1x1 convolution alone."""
    return nn.Sequential(conv1x1(in_channels, out_channels, stride))


class PreActBasicBlock(nn.Module):
    """Two 3x3 convolutions, each behind its batch norm and ReLU.

    The shortcut sees the input as it is; with ``activated``, one that changes it sees it behind the
    first batch norm and ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        shortcut: nn.Module,
        *,
        out_channels: int,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.downsample = shortcut
        self.activated = activated and not isinstance(shortcut, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        first = relu(self.bn1(x), inplace=True)
        out = self.conv2(relu(self.bn2(self.conv1(first)), inplace=True))
        return torch.add(out, self.downsample(first if self.activated else x))


class PreActBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, each behind its batch norm and ReLU.

    The shortcut is as in :class:`PreActBasicBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        shortcut: nn.Module,
        *,
        width: int,
        out_channels: int,
        activated: bool = False,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.downsample = shortcut
        self.activated = activated and not isinstance(shortcut, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        first = relu(self.bn1(x), inplace=True)
        out = self.conv2(relu(self.bn2(self.conv1(first)), inplace=True))
        out = self.conv3(relu(self.bn3(out), inplace=True))
        return torch.add(out, self.downsample(first if self.activated else x))


def preresnet_cifar(*, depth: int, block: str, num_classes: int, in_channels: int) -> nn.Module:
    """Make a pre-activation CIFAR ResNet.

    Args:
        depth: 6n+2 for n blocks a stage; two layers a block are counted for bottlenecks as well.
        block: ``basic`` or ``bottleneck``, whose shortcuts see the input before activation;
            ``basic-activated`` or ``bottleneck-activated``, where convolutions on shortcuts see it
            behind batch norm and ReLU.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    count = blocks_per_stage(depth, layers=6, others=2)
    expansion = choose("block", EXPANSION, block)
    plan: list[tuple[BlockMaker, int, int]] = []
    for planes in (16, 32, 64):
        channels = planes * expansion
        activated = block.endswith("-activated")
        make_block: BlockMaker = partial(
            PreActBasicBlock, out_channels=channels, activated=activated
        )
        if expansion > 1:
            make_block = partial(
                PreActBottleneck, width=planes, out_channels=channels, activated=activated
            )
        plan.append((make_block, channels, count))
    layer1, layer2, layer3 = residual_stages(16, linear_projection, plan)
    return network(
        conv1=conv3x3(in_channels, 16),
        layer1=layer1,
        layer2=layer2,
        layer3=layer3,
        bn=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    return {
        "depth": 6 * count_children(shapes, "layer1") + 2,
        "block": "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic",
        "num_classes": shapes["fc.weight"][0],
        "in_channels": shapes["conv1.weight"][1],
    }


FAMILY = register(
    Family(
        name="preresnet_cifar",
        build=preresnet_cifar,
        presets={
            f"preresnet{depth}{suffix}": {"depth": depth, "block": block}
            for suffix, block in (("", "basic"), ("-bottleneck", "bottleneck"))
            for depth in (20, 32, 44, 56, 110)
        },
        input_size=(32, 32),
        infer=infer,
        source=(
            "He et al. 2016, Identity Mappings in Deep Residual Networks; "
            "names as in bearpaw/pytorch-classification"
        ),
        alike={"block": (("basic", "basic-activated"), ("bottleneck", "bottleneck-activated"))},
    )
)
