"""Operators that move elements: slices, gathers and scatters, pads, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import Use, integers, operator

# ONNX's names of what scattering does where something stands already, and PyTorch's.
_SCATTERED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("Concat")
def _concat(use: Use, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, use.get("axis", 1))


@operator("Split", numbers=(1,))
def _split(use: Use, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = use.get("axis", 0)
    sizes = use.get("split") if given is None else integers(given)
    if sizes is None:
        each = -(-x.shape[axis] // use.outputs)
        sizes = [each] * (use.outputs - 1)
        sizes.append(x.shape[axis] - sum(sizes))
    return torch.split(x, list(sizes), axis)


@operator("Slice", numbers=(1, 2, 3, 4))
def _slice(use: Use, x: Tensor, *given: Tensor | None) -> Tensor:
    if use.opset < 10:
        starts, ends, axes, steps = use.get("starts"), use.get("ends"), use.get("axes"), None
    else:
        numbers = [None if part is None else integers(part) for part in given]
        starts, ends, axes, steps = [*numbers, None, None][:4]
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, last, step = slice(start, end, step).indices(x.shape[axis])  # noqa: PLW2901
        if step > 0:
            x = _stepping(x, axis, first, max(first, last), step)
        else:
            places = torch.arange(first, min(first, last), step, device=x.device)
            x = x.index_select(axis, places)
    return x


def _stepping(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    index: list[Any] = [slice(None)] * x.ndim
    index[axis] = slice(start, end, step)
    return x[tuple(index)]


def _positive(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).long()


@operator("Gather", numbers=(1,))
def _gather(use: Use, x: Tensor, indices: Tensor) -> Tensor:
    axis = use.get("axis", 0) % x.ndim
    places = _positive(indices.to(x.device), x.shape[axis])
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(use: Use, x: Tensor, indices: Tensor) -> Tensor:
    axis = use.get("axis", 0)
    return x.gather(axis, _positive(indices, x.shape[axis]))


@operator("GatherND")
def _gather_nd(use: Use, x: Tensor, indices: Tensor) -> Tensor:
    batch = use.get("batch_dims", 0)
    depth = indices.shape[-1]
    leading: list[Tensor] = [
        torch.arange(x.shape[axis], device=x.device).reshape(
            [-1 if i == axis else 1 for i in range(indices.ndim - 1)]
        )
        for axis in range(batch)
    ]
    within = [_positive(indices[..., i], x.shape[batch + i]) for i in range(depth)]
    return x[tuple(leading + within)]


@operator("Scatter", "ScatterElements")
def _scatter_elements(use: Use, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis, how = use.get("axis", 0), use.get("reduction", "none")
    places = _positive(indices, x.shape[axis])
    if how == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _SCATTERED[how])


@operator("ScatterND")
def _scatter_nd(use: Use, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    depth, how = indices.shape[-1], use.get("reduction", "none")
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for i in range(depth):
        places = places * x.shape[i] + _positive(indices[..., i], x.shape[i])
    flat = x.reshape(-1, *x.shape[depth:])
    rows = updates.reshape(-1, *x.shape[depth:])
    places = places.reshape(-1)
    if how == "none":
        return flat.index_copy(0, places, rows).reshape(x.shape)
    places = places.reshape(-1, *[1] * (rows.ndim - 1)).expand_as(rows)
    return flat.scatter_reduce(0, places, rows, _SCATTERED[how]).reshape(x.shape)


@operator("Tile", numbers=(1,))
def _tile(_: Use, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(integers(repeats))


@operator("Pad", numbers=(1, 2, 3))
def _pad(
    use: Use,
    x: Tensor,
    given: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    pads = use.get("pads") if given is None else integers(given)
    fill = use.get("value", 0.0) if value is None else value.item()
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in integers(axes)]
    by_axis = {axis: (pads[i], pads[i + len(chosen)]) for i, axis in enumerate(chosen) if x.ndim}
    return padded(x, by_axis, use.get("mode", "constant"), fill)


def padded(
    x: Tensor, pads: dict[int, tuple[int, int]], mode: str = "constant", fill: float = 0.0
) -> Tensor:
    """Return a tensor with elements before and after it; fewer where a number is negative.

    Args:
        x: the tensor.
        pads: (before, after) by axis.
        mode: ``constant``, ``edge``, ``reflect`` or ``wrap``.
        fill: the constant.
    """
    if mode == "constant":
        flat = [n for axis in range(x.ndim - 1, -1, -1) for n in pads.get(axis, (0, 0))]
        return functional.pad(x, flat, value=bool(fill) if x.dtype == torch.bool else fill)
    for axis, (before, after) in pads.items():
        size = x.shape[axis]
        if before or after:
            places = torch.arange(-before, size + after, device=x.device)
            x = x.index_select(axis, _folded(places, size, mode))
    return x


def _folded(places: Tensor, size: int, mode: str) -> Tensor:
    """Bring places outside an axis to those inside that stand for them."""
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    period = max(1, 2 * (size - 1))
    places = places % period
    return torch.where(places >= size, period - places, places)


@operator("DepthToSpace")
def _depth_to_space(use: Use, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    size = use.get("blocksize")
    inner = channels // size**2
    if use.get("mode", "DCR") == "DCR":
        blocks = x.reshape(n, size, size, inner, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(n, inner, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, inner, height * size, width * size)


@operator("SpaceToDepth")
def _space_to_depth(use: Use, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    size = use.get("blocksize")
    blocks = x.reshape(n, channels, height // size, size, width // size, size)
    is_depth_first = use.get("mode", "DCR") == "DCR"
    blocks = (
        blocks.permute(0, 3, 5, 1, 2, 4) if is_depth_first else blocks.permute(0, 1, 3, 5, 2, 4)
    )
    return blocks.reshape(n, channels * size**2, height // size, width // size)


@operator("Trilu", numbers=(1,))
def _trilu(use: Use, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    k = 0 if diagonal is None else int(diagonal)
    return x.triu(k) if use.get("upper", 1) else x.tril(k)


@operator("Compress")
def _compress(use: Use, x: Tensor, condition: Tensor) -> Tensor:
    axis = use.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    return x.index_select(axis, torch.nonzero(condition.reshape(-1)).reshape(-1))


@operator("ReverseSequence")
def _reverse_sequence(use: Use, x: Tensor, lengths: Tensor) -> Tensor:
    time, batch = use.get("time_axis", 0), use.get("batch_axis", 1)
    moved = x.movedim((time, batch), (0, 1))
    steps = torch.arange(len(moved), device=x.device)[:, None]
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    columns = torch.arange(moved.shape[1], device=x.device)
    return moved[places, columns].movedim((0, 1), (time, batch))


@operator("CenterCropPad", numbers=(1,))
def _center_crop_pad(use: Use, x: Tensor, given: Tensor) -> Tensor:
    axes: Sequence[int] = use.get("axes", range(x.ndim))
    for axis, size in zip(axes, integers(given), strict=True):
        extra = size - x.shape[axis]
        before = extra // 2 if extra >= 0 else -(-extra // 2)
        x = padded(x, {axis % x.ndim: (before, extra - before)})
    return x
