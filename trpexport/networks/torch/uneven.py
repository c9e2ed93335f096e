"""Convolutions that pad by themselves, for paddings that PyTorch's have no words for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class UnevenBase(nn.modules.conv._ConvNd):
    """A convolution that pads by itself: not the same on both sides.

    Attributes:
        pads: pixels added (before, after), one pair an axis.
    """

    pads: tuple[tuple[int, int], ...]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - forwards call it by this name
        """Return what it makes of an input (batch, in_channels, *size)."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = functional.pad(input, _flat(self.pads), mode=mode)
        run: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.pads) - 1]
        output: Tensor = run(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )
        return output


class UnevenConv1d(UnevenBase, nn.Conv1d):
    """A 1-D convolution with any padding."""


class UnevenConv2d(UnevenBase, nn.Conv2d):
    """A 2-D convolution with any padding."""


class UnevenConv3d(UnevenBase, nn.Conv3d):
    """A 3-D convolution with any padding."""


class UnevenTransposedBase(nn.modules.conv._ConvTransposeNd):
    """A transposed convolution that crops and extends its full output by itself.

    Attributes:
        pads: pixels cut off the full output (before, after), one pair an axis.
        extra: pixels added after that, one an axis.
    """

    pads: tuple[tuple[int, int], ...]
    extra: tuple[int, ...]

    def forward(
        self,
        input: Tensor,  # noqa: A002 - forwards call it by this name
        output_size: list[int] | None = None,
    ) -> Tensor:
        """Return what it makes of an input (batch, in_channels, *size)."""
        assert output_size is None
        run: Any = (
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        )[len(self.pads) - 1]
        full = run(input, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        change = [(-b, more - a) for (b, a), more in zip(self.pads, self.extra, strict=True)]
        output = functional.pad(full, _flat(change))
        if self.bias is None:
            return output
        return output + self.bias.reshape(-1, *[1] * len(self.pads))


class UnevenConvTranspose1d(UnevenTransposedBase, nn.ConvTranspose1d):
    """A 1-D transposed convolution with any padding."""


class UnevenConvTranspose2d(UnevenTransposedBase, nn.ConvTranspose2d):
    """A 2-D transposed convolution with any padding."""


class UnevenConvTranspose3d(UnevenTransposedBase, nn.ConvTranspose3d):
    """A 3-D transposed convolution with any padding."""


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Return pads as :func:`torch.nn.functional.pad` takes them: the last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]
