"""Whole numbers to real ones and back."""

from __future__ import annotations

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, operator


@operator("DequantizeLinear")
def _dequantize(use: Use, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps, origin = _along(use, x, scale, zero)
    return (x.to(scale.dtype) - origin) * steps


@operator("QuantizeLinear")
def _quantize(use: Use, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    if zero is not None:
        kind = zero.dtype
    else:
        kind = use.dtype(use.get("output_dtype")) if use.get("output_dtype") else torch.uint8
    if kind not in (torch.int8, torch.uint8, torch.int16):
        raise ValueError(f"quantization to {kind} is not computed")
    steps, origin = _along(use, x, scale, zero)
    limits = torch.iinfo(kind)
    return (torch.round(x / steps) + origin).clamp(limits.min, limits.max).to(kind)


def _along(
    use: Use, x: Tensor, scale: Tensor, zero: Tensor | None
) -> tuple[Tensor, Tensor | float]:
    """Return scale and zero point in a shape that fits an input: of one, by axis, or by block."""
    parts = [scale] if zero is None else [scale, zero.to(scale.dtype)]
    axis = use.get("axis", 1)
    if scale.numel() == 1:
        parts = [part.reshape(()) for part in parts]
    elif scale.ndim == 1:
        shape = [1] * x.ndim
        shape[axis] = -1
        parts = [part.reshape(shape) for part in parts]
    else:
        size = use.get("block_size")
        parts = [
            part.repeat_interleave(size, axis).narrow(axis, 0, x.shape[axis]) for part in parts
        ]
    return parts[0], parts[1] if len(parts) > 1 else 0.0
