"""Wide residual networks for CIFAR."""

from __future__ import annotations

from collections import OrderedDict
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


class WideBlock(nn.Module):
    """A pre-activation basic block.

    With ``activated``, a convolution on the shortcut sees the input behind batch norm and ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        shortcut: nn.Module,
        *,
        out_channels: int,
        activated: bool,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.convShortcut = shortcut
        self.activate_shortcut = activated and not isinstance(shortcut, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        activated = relu(self.bn1(x), inplace=True)
        shortcut = self.convShortcut(activated if self.activate_shortcut else x)
        out = self.conv2(relu(self.bn2(self.conv1(activated)), inplace=True))
        return torch.add(out, shortcut)


# Whether the convolution on a shortcut sees the input behind batch norm and ReLU.
SHORTCUTS = {"activated": True, "raw": False}


def wideresnet(
    *,
    depth: int,
    widen_factor: int,
    shortcut: str = "activated",
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Make a wide ResNet; dropout is left out, since it has no weights.

    Args:
        depth: 6n+4 for n blocks a stage.
        widen_factor: channels of the stages over 16, 32 and 64.
        shortcut: ``activated`` where the convolution on a shortcut sees its input behind batch norm
            and ReLU, ``raw`` where it sees it as it is.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    count = blocks_per_stage(depth, layers=6, others=4)
    activated = choose("shortcut", SHORTCUTS, shortcut)
    plan: list[tuple[BlockMaker, int, int]] = []
    for planes in (16, 32, 64):
        channels = planes * widen_factor
        make_block = partial(WideBlock, out_channels=channels, activated=activated)
        plan.append((make_block, channels, count))
    stages = residual_stages(16, conv1x1, plan)
    return network(
        conv1=conv3x3(in_channels, 16),
        **{f"block{i}": _wrap(stage) for i, stage in enumerate(stages, 1)},
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


def _wrap(stage: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layer=stage))


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    num_classes, features = shapes["fc.weight"]
    return {
        "depth": 6 * count_children(shapes, "block1.layer") + 4,
        "widen_factor": features // 64,
        "shortcut": "activated",
        "num_classes": num_classes,
        "in_channels": shapes["conv1.weight"][1],
    }


FAMILY = register(
    Family(
        name="wideresnet",
        build=wideresnet,
        presets={
            f"wrn-{depth}-{widen_factor}": {
                "depth": depth,
                "widen_factor": widen_factor,
                "shortcut": "activated",
            }
            for depth, widen_factor in (
                (10, 2),
                (16, 4),
                (16, 8),
                (22, 8),
                (28, 4),
                (28, 10),
                (40, 2),
                (40, 4),
            )
        },
        input_size=(32, 32),
        infer=infer,
        source=(
            "Zagoruyko and Komodakis 2016, Wide Residual Networks; "
            "names as in xternalz/WideResNet-pytorch"
        ),
        alike={"shortcut": (("activated", "raw"),)},
        defaults={"shortcut": "activated"},
    )
)
