"""Convolutions, transposed ones too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import MICROSOFT, OPERATORS, Use, operator
from trpexport.networks.onnx.interpreter.windows import Pads, flattened, halves, pads_of

_CONV: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


@operator("Conv")
def conv(use: Use, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of an input with a kernel."""
    size = kernel.shape[2:]
    ones = [1] * len(size)
    stride, dilation = use.get("strides", ones), use.get("dilations", ones)
    pads = pads_of(use, x.shape[2:], size, stride, dilation)
    padding: Any = [before for before, _ in pads]
    if any(before != after for before, after in pads):
        x, padding = functional.pad(x, flattened(pads)), 0
    run = _CONV[len(size) - 1]
    return run(x, kernel, bias, stride, padding, dilation, use.get("group", 1))


@operator("ConvTranspose")
def _conv_transpose(use: Use, x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    size = kernel.shape[2:]
    ones = [1] * len(size)
    stride, dilation = use.get("strides", ones), use.get("dilations", ones)
    extra = use.get("output_padding", [0] * len(size))
    # All of the output, and then what is cut off it.
    run = _TRANSPOSED[len(size) - 1]
    groups = use.get("group", 1)
    whole = run(x, kernel, bias, stride, 0, 0, groups, dilation)
    full = [n + e for n, e in zip(whole.shape[2:], extra, strict=True)]
    pads = _cut_off(use, x, full, stride)
    ends = [(-before, e - after) for (before, after), e in zip(pads, extra, strict=True)]
    if bias is None or all(after <= 0 for _, after in ends):
        return functional.pad(whole, flattened(ends))
    # What is added behind the end is the bias alone.
    shape = [-1, *[1] * len(size)]
    return functional.pad(whole - bias.reshape(shape), flattened(ends)) + bias.reshape(shape)


def _cut_off(use: Use, x: Tensor, full: list[int], stride: list[int]) -> Pads:
    auto, given = use.get("auto_pad", "NOTSET"), use.get("output_shape")
    if auto == "VALID" and given is None:
        return [(0, 0)] * len(full)
    if given is None and auto == "NOTSET":
        pads = use.get("pads", [0] * (2 * len(full)))
        return list(zip(pads[: len(full)], pads[len(full) :], strict=True))
    wanted = given
    if wanted is None:
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    totals = (n - w for n, w in zip(full, wanted[-len(full) :], strict=True))
    return [halves(total, odd_first=auto != "SAME_UPPER") for total in totals]


@operator("FusedConv", domain=MICROSOFT)
def _fused_conv(
    use: Use, x: Tensor, kernel: Tensor, bias: Tensor | None = None, added: Tensor | None = None
) -> Tensor:
    found = conv(use, x, kernel, bias)
    return activated(use, found if added is None else found + added)


def activated(use: Use, x: Tensor) -> Tensor:
    """Apply the activation that ONNX Runtime fused with an operator."""
    name: str = use.get("activation", "")
    numbers: list[float] = use.get("activation_params", [])
    if not name:
        return x
    if name == "Clip":
        return torch.clamp(x, *numbers)
    attributes = dict(zip(("alpha", "beta"), numbers, strict=False))
    found: Tensor = OPERATORS["", name].run(Use(attributes, use.opset), x)
    return found
