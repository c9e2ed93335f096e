"""Weights that can be used: finite numbers in float32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from trpexport.errors import CheckpointError

_CAST = (torch.float16, torch.bfloat16, torch.float64)
_KEPT = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


def float32_weights(
    path: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Cast all float tensors to float32 and check their values; integer buffers stay as they are.

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
        if tensor.dtype not in (*_CAST, torch.float32, *_KEPT):
            raise CheckpointError(
                f"{path}: {name} is of type {_name(tensor.dtype)}: save the weights in float32"
            )
        if tensor.dtype in _CAST:
            cast[tensor.dtype] = cast.get(tensor.dtype, 0) + 1
        weights[name] = tensor.float() if tensor.is_floating_point() else tensor
    _check_values(path, weights)
    notes = (f"cast {n} tensors from {_name(dtype)} to float32" for dtype, n in cast.items())
    return weights, tuple(notes)


def _check_values(path: Path, weights: Mapping[str, Tensor]) -> None:
    remedy = "the training diverged or the file is damaged; use an earlier checkpoint"
    broken = [
        name for name, t in weights.items() if t.is_floating_point() and not t.isfinite().all()
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
