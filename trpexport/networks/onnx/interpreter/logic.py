"""Comparisons, logic, and choices between elements."""

from __future__ import annotations

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, operator

for _name, _function in {
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}.items():
    operator(_name)(lambda _, *inputs, function=_function: function(*inputs))


@operator("IsInf")
def _is_inf(use: Use, x: Tensor) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if use.get("detect_positive", 1):
        found = found | torch.isposinf(x)
    if use.get("detect_negative", 1):
        found = found | torch.isneginf(x)
    return found


@operator("NonZero")
def _non_zero(_: Use, x: Tensor) -> Tensor:
    return torch.nonzero(x).T


@operator("OneHot", numbers=(1,))
def _one_hot(use: Use, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count, axis = int(depth), use.get("axis", -1)
    indices = indices.long()
    indices = torch.where(indices < 0, indices + count, indices)
    places = torch.arange(count, device=indices.device)
    axis %= indices.ndim + 1
    places = places.reshape(-1, *[1] * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == places, values[1], values[0])
