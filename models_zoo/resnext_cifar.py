"""ResNeXt for CIFAR: bottlenecks whose 3x3 convolution is grouped."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from .family import (
    Config,
    Family,
    Shapes,
    blocks_per_stage,
    count_children,
    none_on_misfit,
    register,
)
from .layers import BlockMaker, conv1x1, conv3x3, network, residual_stages


def named_projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a shortcut of 1x1 convolution and batch norm, under the names of prlz77's code."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            shortcut_conv=conv1x1(in_channels, out_channels, stride),
            shortcut_bn=nn.BatchNorm2d(out_channels),
        )
    )


class ResNeXtBottleneck(nn.Module):
    """Form C of Xie et al. 2017, figure 3: the cardinality is the number of groups."""

    def __init__(
        self,
        in_channels: int,
        stride: int,
        shortcut: nn.Module,
        *,
        width: int,
        out_channels: int,
        cardinality: int,
    ) -> None:
        super().__init__()
        self.conv_reduce = conv1x1(in_channels, width)
        self.bn_reduce = nn.BatchNorm2d(width)
        self.conv_conv = conv3x3(width, width, stride, groups=cardinality)
        self.bn = nn.BatchNorm2d(width)
        self.conv_expand = conv1x1(width, out_channels)
        self.bn_expand = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        out = relu(self.bn_reduce(self.conv_reduce(x)), inplace=True)
        out = relu(self.bn(self.conv_conv(out)), inplace=True)
        out = self.bn_expand(self.conv_expand(out))
        return relu(out + self.shortcut(x), inplace=True)


def resnext_cifar(
    *,
    depth: int,
    cardinality: int,
    base_width: int,
    widen_factor: int,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Make a CIFAR ResNeXt.

    Two code bases write the width of the grouped convolutions in different ways: prlz77's as
    ``cardinality * base_width``, doubled at each stage, and bearpaw's as ``cardinality`` times the
    output channels over ``widen_factor``, which is the same with ``base_width=64``.

    Args:
        depth: 9n+2 for n blocks a stage.
        cardinality: groups of a 3x3 convolution.
        base_width: channels of a group in the first stage.
        widen_factor: output channels of the stages over 64, 128 and 256; 4 in the paper.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    count = blocks_per_stage(depth, layers=9, others=2)
    plan: list[tuple[BlockMaker, int, int]] = []
    for scale in (1, 2, 4):
        channels = 64 * scale * widen_factor
        width = cardinality * base_width * scale
        make_block = partial(
            ResNeXtBottleneck, width=width, out_channels=channels, cardinality=cardinality
        )
        plan.append((make_block, channels, count))
    stages = residual_stages(64, named_projection, plan)
    return network(
        conv_1_3x3=conv3x3(in_channels, 64),
        bn_1=nn.BatchNorm2d(64),
        relu=nn.ReLU(inplace=True),
        **{f"stage_{i}": _name_blocks(f"stage_{i}", stage) for i, stage in enumerate(stages, 1)},
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(channels, num_classes),
    )


def _name_blocks(name: str, stage: nn.Module) -> nn.Module:
    return nn.Sequential(
        OrderedDict((f"{name}_bottleneck_{i}", block) for i, block in enumerate(stage.children()))
    )


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    width, base_width, _, _ = shapes["stage_1.stage_1_bottleneck_0.conv_conv.weight"]
    num_classes, features = shapes["classifier.weight"]
    return {
        "depth": 9 * count_children(shapes, "stage_1") + 2,
        "cardinality": width // base_width,
        "base_width": base_width,
        "widen_factor": features // 256,
        "num_classes": num_classes,
        "in_channels": shapes["conv_1_3x3.weight"][1],
    }


FAMILY = register(
    Family(
        name="resnext_cifar",
        build=resnext_cifar,
        presets={
            f"resnext29-{cardinality}x{base_width}d": {
                "depth": 29,
                "cardinality": cardinality,
                "base_width": base_width,
                "widen_factor": 4,
            }
            for cardinality, base_width in ((8, 64), (16, 64), (32, 4))
        },
        input_size=(32, 32),
        infer=infer,
        source=(
            "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks, "
            "section 5.3; names as in prlz77/ResNeXt.pytorch"
        ),
    )
)
