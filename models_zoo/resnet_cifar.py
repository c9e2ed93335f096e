"""Residual networks for CIFAR: three stages, 6n+2 layers."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

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
from .layers import (
    BasicBlock,
    BlockMaker,
    Bottleneck,
    ShortcutMaker,
    conv3x3,
    network,
    projection,
    residual_stages,
)

EXPANSION = {"basic": 1, "bottleneck": 4, "bottleneck-trp": 4, "bottleneck-v1": 4}


class ZeroPadded(nn.Module):
    """The shortcut called option A in He et al. 2016: a smaller image, channels of zeros.

    It has no weights. Half of the zeros come before the input's channels and half behind them, as
    in pytorch_resnet_cifar10, or all of them behind. Of each ``stride`` x ``stride`` pixels it
    takes the first, or the mean.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        average: bool = False,
        behind: bool = False,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.average = average
        self.before = 0 if behind else (out_channels - in_channels) // 2
        self.behind = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        x = avg_pool2d(x, self.stride) if self.average else x[:, :, :: self.stride, :: self.stride]
        return pad(x, (0, 0, 0, 0, self.before, self.behind))


SHORTCUTS: dict[str, ShortcutMaker] = {
    "projection": projection,
    "subsample": ZeroPadded,
    "subsample-behind": partial(ZeroPadded, behind=True),
    "average": partial(ZeroPadded, average=True),
    "average-behind": partial(ZeroPadded, average=True, behind=True),
}


def resnet_cifar(
    *, depth: int, block: str, shortcut: str, width: int, num_classes: int, in_channels: int
) -> nn.Module:
    """Make a CIFAR ResNet.

    Args:
        depth: 6n+2 for n blocks a stage. The original TRP code counts two layers a block for
            bottlenecks as well, and so does this.
        block: ``basic``, ``bottleneck``, ``bottleneck-v1`` with the stride in the first
            convolution, or ``bottleneck-trp``: the bottleneck of the original TRP code, which has
            no ReLU after the second batch norm.
        shortcut: ``projection`` (option B), or one without weights (option A): ``subsample`` takes
            every other pixel, ``average`` the mean of 2x2; zeros come on both sides of the
            channels, with ``-behind`` at the end of those names all behind them.
        width: channels of the stem and the first stage's 3x3 convolutions; 16 in the paper.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    count = blocks_per_stage(depth, layers=6, others=2)
    expansion = choose("block", EXPANSION, block)
    make_shortcut = choose("shortcut", SHORTCUTS, shortcut)
    plan: list[tuple[BlockMaker, int, int]] = []
    for planes in (width, 2 * width, 4 * width):
        channels = planes * expansion
        make_block: BlockMaker = partial(BasicBlock, out_channels=channels)
        if block != "basic":
            make_block = partial(
                Bottleneck,
                width=planes,
                out_channels=channels,
                relu2=block != "bottleneck-trp",
                stride_first=block == "bottleneck-v1",
            )
        plan.append((make_block, channels, count))
    layer1, layer2, layer3 = residual_stages(width, make_shortcut, plan)
    return network(
        conv1=conv3x3(in_channels, width),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
        layer1=layer1,
        layer2=layer2,
        layer3=layer3,
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, num_classes),
    )


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    width, in_channels, _, _ = shapes["conv1.weight"]
    return {
        "depth": 6 * count_children(shapes, "layer1") + 2,
        "block": "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic",
        "shortcut": "projection" if "layer2.0.downsample.0.weight" in shapes else "subsample",
        "width": width,
        "num_classes": shapes["fc.weight"][0],
        "in_channels": in_channels,
    }


def _preset(depth: int, block: str, shortcut: str = "projection") -> Config:
    return {"depth": depth, "block": block, "shortcut": shortcut, "width": 16}


FAMILY = register(
    Family(
        name="resnet_cifar",
        build=resnet_cifar,
        presets={
            f"resnet{depth}{block_suffix}{shortcut_suffix}": _preset(depth, block, shortcut)
            for block_suffix, block in (("", "basic"), ("-bottleneck", "bottleneck"))
            for shortcut_suffix, shortcut in (("", "projection"), ("-a", "subsample"))
            for depth in (20, 32, 44, 56, 110)
        }
        # The original TRP code has bottlenecks from depth 44 on.
        | {f"resnet{depth}-trp": _preset(depth, "bottleneck-trp") for depth in (44, 56, 110)},
        input_size=(32, 32),
        infer=infer,
        source="He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2",
        aliases=((r"^linear\.", "fc."), (r"\.shortcut\.", ".downsample.")),
        alike={
            "block": (("bottleneck", "bottleneck-trp", "bottleneck-v1"),),
            "shortcut": (("subsample", "subsample-behind", "average", "average-behind"),),
        },
    )
)
