"""Weights that can be used: finite numbers in single precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trpexport.errors import CheckpointError

_CAST = (torch.float16, torch.bfloat16, torch.float64, torch.complex128)
_FLOATS = (torch.float32, torch.complex64)
_KEPT = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def float32_weights(
    path: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Cast float tensors to single precision and check their values; integers stay as they are.

    Args:
        path: the file that they come from, for messages.
        tensors: parameters and buffers by name, of any shape.

    Returns:
        The tensors, and notes on what was cast.

    Raises:
        CheckpointError: a value is NaN or infinite, a running variance is negative (its square
            root would be NaN), or a type is none that a network computes in.
    """
    weights = {}
    cast: dict[torch.dtype, int] = {}
    for name, tensor in tensors.items():
        is_float = tensor.is_floating_point() or tensor.is_complex()
        if tensor.dtype not in (*_CAST, *_FLOATS, *_KEPT):
            raise CheckpointError(
                f"{path}: {name} is of type {_name(tensor.dtype)}: save the weights in float32"
            )
        if tensor.dtype in _CAST:
            cast[tensor.dtype] = cast.get(tensor.dtype, 0) + 1
        single = torch.complex64 if tensor.is_complex() else torch.float32
        weights[name] = tensor.to(single) if is_float else tensor
    _check_values(path, weights)
    notes = (
        f"cast {n} tensors from {_name(dtype)} to {'complex64' if dtype.is_complex else 'float32'}"
        for dtype, n in cast.items()
    )
    return weights, tuple(notes)


def _check_values(path: Path, weights: Mapping[str, Tensor]) -> None:
    remedy = "the training diverged or the file is damaged; use an earlier checkpoint"
    broken = [
        name
        for name, t in weights.items()
        if (t.is_floating_point() or t.is_complex()) and not t.isfinite().all()
    ]
    if broken:
        first = weights[broken[0]]
        bad = first.numel() - int(first.isfinite().sum())
        others = f", and {len(broken) - 1} more tensors have some" if len(broken) > 1 else ""
        raise CheckpointError(
            f"{path}: {broken[0]} has {bad} NaN or infinite of {first.numel()} values{others}: "
            f"{remedy}"
        )
    for name, tensor in weights.items():
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise CheckpointError(f"{path}: {name} has negative variances: {remedy}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
