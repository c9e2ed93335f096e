"""Operators on shapes: what they read and change moves no element."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, axes_of, integers, operator


@operator("Shape")
def _shape(use: Use, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[slice(use.get("start", 0), use.get("end"))], dtype=torch.int64)


@operator("Size")
def _size(_: Use, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


@operator("Reshape", numbers=(1,))
def _reshape(use: Use, x: Tensor, given: Tensor) -> Tensor:
    sizes = integers(given)
    if not use.get("allowzero", 0):
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Flatten")
def _flatten(use: Use, x: Tensor) -> Tensor:
    axis = use.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operator("Squeeze", numbers=(1,))
def _squeeze(use: Use, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(use, given, 13)
    if axes is None:
        return x.squeeze()
    axes = [axis % x.ndim for axis in axes]
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {axes} of shape {tuple(x.shape)} are not all of size 1")
    return x.squeeze(axes)


@operator("Unsqueeze", numbers=(1,))
def _unsqueeze(use: Use, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = axes_of(use, given, 13) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Transpose")
def _transpose(use: Use, x: Tensor) -> Tensor:
    return x.permute(use.get("perm", tuple(range(x.ndim))[::-1]))


@operator("Expand", numbers=(1,))
def _expand(_: Use, x: Tensor, given: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(x.shape, integers(given))  # type: ignore[no-untyped-call]
    return x.expand(shape)


@operator("ConstantOfShape", numbers=(0,))
def _constant_of_shape(use: Use, given: Tensor) -> Tensor:
    value = use.get("value")
    if value is None:
        return torch.zeros(integers(given), dtype=use.floating)
    return torch.full(integers(given), value.item(), dtype=value.dtype)


@operator("Constant")
def _constant(use: Use) -> Tensor:
    ((name, value),) = use.attributes.items()
    if isinstance(value, Tensor):
        return value
    kind = torch.int64 if name.startswith("value_int") else use.floating
    return torch.tensor(value, dtype=kind)


@operator("Range", numbers=(0, 1, 2))
def _range(_: Use, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    first, last, by = (number.item() for number in (start, limit, step))
    return torch.arange(first, last, by, dtype=start.dtype, device=start.device)


@operator("EyeLike")
def _eye_like(use: Use, x: Tensor) -> Tensor:
    kind = use.dtype(use.get("dtype")) if use.get("dtype") else x.dtype
    rows, columns = x.shape
    places = torch.arange(columns, device=x.device) - torch.arange(rows, device=x.device)[:, None]
    return (places == use.get("k", 0)).to(kind)
