"""ResNet, ResNeXt and wide ResNet for ImageNet, and the first with a stem for CIFAR."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from trpexport.errors import ArchitectureError

from .family import (
    Config,
    Family,
    Shapes,
    Size,
    choose,
    count_children,
    none_on_misfit,
    register,
)
from .layers import (
    BasicBlock,
    BlockMaker,
    Bottleneck,
    network,
    projection,
    residual_stages,
)

EXPANSION = {"basic": 1, "bottleneck": 4, "bottleneck-v1": 4}
# Kernel size and stride of the first convolution, and the pooling behind it.
STEMS: dict[str, tuple[int, int, Callable[[], nn.Module]]] = {
    "imagenet": (7, 2, partial(nn.MaxPool2d, 3, stride=2, padding=1)),
    "imagenet-ceil": (7, 2, partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)),
    "imagenet-unpooled": (7, 2, nn.Identity),
    "cifar": (3, 1, nn.Identity),
    "cifar-pooled": (3, 1, partial(nn.MaxPool2d, 3, stride=2, padding=1)),
    "cifar-strided": (3, 2, nn.Identity),
    "cifar-strided-pooled": (3, 2, partial(nn.MaxPool2d, 3, stride=2, padding=1)),
}


def resnet(
    *,
    block: str,
    blocks: str,
    groups: int,
    width_per_group: int,
    stem: str,
    last_stride: int = 2,
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Make a ResNet, ResNeXt or wide ResNet with torchvision's parameter names.

    Args:
        block: ``basic``, ``bottleneck``, or ``bottleneck-v1`` with the stride in the first
            convolution (He et al. 2016, Caffe).
        blocks: blocks of the four stages, such as ``3-4-6-3``.
        groups: groups of a bottleneck's 3x3 convolution; 1 unless it is a ResNeXt.
        width_per_group: channels of a group in the first stage; 64 for the plain ResNet.
        stem: ``imagenet`` for a 7x7 convolution with stride 2 and a max-pooling, ``cifar`` for a
            3x3 convolution that keeps the size (kuangliu/pytorch-cifar). ``imagenet-unpooled`` has
            no pooling, ``imagenet-ceil`` Caffe's, which rounds sizes up and does not pad;
            ``cifar-pooled``, ``cifar-strided`` and ``cifar-strided-pooled`` have the pooling, the
            stride, or both.
        last_stride: stride of the last stage; 1 where it keeps the size (person re-identification).
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    expansion = choose("block", EXPANSION, block)
    if not re.fullmatch(r"[1-9][0-9]*(-[1-9][0-9]*){3}", blocks):
        raise ArchitectureError(f"blocks={blocks!r} can't be built: give four, such as 3-4-6-3")
    if block == "basic" and (groups, width_per_group) != (1, 64):
        raise ArchitectureError("basic blocks need groups=1 and width_per_group=64")
    plan: list[tuple[BlockMaker, int, int]] = []
    for scale, count in zip((1, 2, 4, 8), map(int, blocks.split("-")), strict=True):
        channels = 64 * scale * expansion
        make_block: BlockMaker = partial(BasicBlock, out_channels=channels)
        if block != "basic":
            make_block = partial(
                Bottleneck,
                width=groups * width_per_group * scale,
                out_channels=channels,
                groups=groups,
                stride_first=block == "bottleneck-v1",
            )
        plan.append((make_block, channels, count))
    layer1, layer2, layer3, layer4 = residual_stages(
        64, projection, plan, strides=(1, 2, 2, last_stride)
    )
    return network(
        **_stem(stem, in_channels),
        layer1=layer1,
        layer2=layer2,
        layer3=layer3,
        layer4=layer4,
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


def _stem(stem: str, in_channels: int) -> dict[str, nn.Module]:
    kernel, stride, make_pool = choose("stem", STEMS, stem)
    return {
        "conv1": nn.Conv2d(in_channels, 64, kernel, stride, padding=kernel // 2, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": make_pool(),
    }


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    _, in_channels, kernel_size, _ = shapes["conv1.weight"]
    block, width, width_per_group = "basic", 64, 64
    if "layer1.0.conv3.weight" in shapes:
        block = "bottleneck"
        width, width_per_group, _, _ = shapes["layer1.0.conv2.weight"]
    return {
        "block": block,
        "blocks": "-".join(str(count_children(shapes, f"layer{i}")) for i in (1, 2, 3, 4)),
        "groups": width // width_per_group,
        "width_per_group": width_per_group,
        "stem": "imagenet" if kernel_size == 7 else "cifar",
        "last_stride": 2,
        "num_classes": shapes["fc.weight"][0],
        "in_channels": in_channels,
    }


def input_size(config: Config) -> Size:
    """Return the height and width of the data set that the stem is for."""
    return (32, 32) if str(config["stem"]).startswith("cifar") else (224, 224)


def _preset(
    block: str, blocks: str, groups: int = 1, width_per_group: int = 64, stem: str = "imagenet"
) -> Config:
    return {
        "block": block,
        "blocks": blocks,
        "groups": groups,
        "width_per_group": width_per_group,
        "stem": stem,
        "last_stride": 2,
    }


DEPTHS = {
    18: ("basic", "2-2-2-2"),
    34: ("basic", "3-4-6-3"),
    50: ("bottleneck", "3-4-6-3"),
    101: ("bottleneck", "3-4-23-3"),
    152: ("bottleneck", "3-8-36-3"),
}

FAMILY = register(
    Family(
        name="resnet",
        build=resnet,
        presets={f"resnet{depth}": _preset(*body) for depth, body in DEPTHS.items()}
        | {
            "resnext50_32x4d": _preset(*DEPTHS[50], groups=32, width_per_group=4),
            "resnext101_32x8d": _preset(*DEPTHS[101], groups=32, width_per_group=8),
            "resnext101_64x4d": _preset(*DEPTHS[101], groups=64, width_per_group=4),
            "wide_resnet50_2": _preset(*DEPTHS[50], width_per_group=128),
            "wide_resnet101_2": _preset(*DEPTHS[101], width_per_group=128),
        }
        | {f"resnet{depth}-cifar": _preset(*body, stem="cifar") for depth, body in DEPTHS.items()},
        input_size=input_size,
        infer=infer,
        source=(
            "He et al. 2016, Deep Residual Learning for Image Recognition; Xie et al. 2017, "
            "Aggregated Residual Transformations; Zagoruyko and Komodakis 2016, Wide Residual "
            "Networks; names as in torchvision"
        ),
        aliases=((r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample.")),
        alike={
            "block": (("bottleneck", "bottleneck-v1"),),
            "stem": (
                ("imagenet", "imagenet-unpooled", "imagenet-ceil"),
                ("cifar", "cifar-pooled", "cifar-strided", "cifar-strided-pooled"),
            ),
            "last_stride": ((2, 1),),
        },
        defaults={"last_stride": 2},
    )
)
