"""What several families share: convolutions, residual blocks, stages, initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

BlockMaker = Callable[[int, int, nn.Module], nn.Module]
ShortcutMaker = Callable[[int, int, int], nn.Module]


def network(**layers: nn.Module) -> nn.Sequential:
    """Chain layers under their names and draw the weights of the convolutions.

    The weights are normal with variance 2 / fan-out (He et al. 2015, "Delving Deep into
    Rectifiers"), biases zero.
    """
    chain = nn.Sequential(OrderedDict(layers))
    for module in chain.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return chain


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size at stride 1; no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution; no bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut called option B in He et al. 2016: 1x1 convolution and batch norm."""
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def residual_stages(
    in_channels: int,
    make_shortcut: ShortcutMaker,
    plan: Iterable[tuple[BlockMaker, int, int]],
    *,
    strides: Sequence[int] = (1, 2, 2, 2),
) -> list[nn.Module]:
    """Make the stages of a residual network: the first keeps the size, each other one halves it.

    Args:
        in_channels: channels that the first stage sees.
        make_shortcut: called with input channels, output channels and stride, for a block whose
            output has another shape than its input; all other shortcuts are the identity.
        plan: for each stage, what makes a block of input channels, stride and shortcut; the
            channels of the block's output; and the number of blocks.
        strides: of the first block of each stage, where they are others.
    """
    stages: list[nn.Module] = []
    for (make_block, out_channels, count), first_stride in zip(plan, strides, strict=False):
        blocks = []
        for index in range(count):
            stride = first_stride if index == 0 else 1
            shortcut: nn.Module = nn.Identity()
            if stride != 1 or in_channels != out_channels:
                shortcut = make_shortcut(in_channels, out_channels, stride)
            blocks.append(make_block(in_channels, stride, shortcut))
            in_channels = out_channels
        stages.append(nn.Sequential(*blocks))
    return stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 2)."""

    def __init__(
        self, in_channels: int, stride: int, shortcut: nn.Module, *, out_channels: int
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return relu(out + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al. 2016, figure 5).

    The 3x3 convolution has the stride, as in torchvision ("ResNet v1.5"), and may be grouped
    (ResNeXt, Xie et al. 2017). ``stride_first`` gives the stride to the first 1x1 convolution, as
    in the paper and in Caffe. ``relu2`` False leaves out the ReLU behind the second batch norm.
    """

    def __init__(
        self,
        in_channels: int,
        stride: int,
        shortcut: nn.Module,
        *,
        width: int,
        out_channels: int,
        groups: int = 1,
        relu2: bool = True,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        strides = (stride, 1) if stride_first else (1, stride)
        self.conv1 = conv1x1(in_channels, width, strides[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, strides[1], groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut
        self.relu2 = relu2

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, H, W) to (batch, out_channels, H / stride, W / stride)."""
        out = relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.relu2:
            out = relu(out, inplace=True)
        out = self.bn3(self.conv3(out))
        return relu(out + self.downsample(x), inplace=True)
