"""What a linear operator of an ONNX graph multiplies its weights with: a sample of its patches."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport.quantization.linear import integer, integers
from trpexport.tensors import Array

if TYPE_CHECKING:
    from onnx import NodeProto


def sampled_patches(
    node: NodeProto, weight: tuple[int, ...], data: Array, most: int, rng: np.random.Generator
) -> Array:
    """Return patches of a convolution's or a matrix product's input, drawn evenly from all.

    Args:
        node: the operator, not transposed.
        weight: the shape of its weight.
        data: its input, of some images.
        most: how many there are at most.
        rng: draws them.

    Returns:
        (groups, patches, inputs · taps), both of a group, ordered as the weights of an output are.
    """
    if node.op_type != "Conv":
        rows = data.reshape(-1, data.shape[-1])
        return rows[_drawn(len(rows), most, rng)][None]
    kernel, ndim = weight[2:], len(weight) - 2
    strides = integers(node, "strides", [1] * ndim)
    dilations = integers(node, "dilations", [1] * ndim)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(node, data.shape[2:], reach, strides)
    data = np.pad(data, [(0, 0), (0, 0), *pads])
    sizes = [
        (size - length) // stride + 1
        for size, length, stride in zip(data.shape[2:], reach, strides, strict=True)
    ]
    drawn = _drawn(len(data) * prod(sizes), most, rng)
    image, *places = np.unravel_index(drawn, (len(data), *sizes))
    index = [
        (place * stride)[:, None] + np.arange(k) * dilation
        for place, stride, k, dilation in zip(places, strides, kernel, dilations, strict=True)
    ]
    # Each index has an axis of its own behind that of the patches: (patches, *kernel, channels).
    spread = [
        one.reshape(len(one), *(1,) * axis, -1, *(1,) * (ndim - axis - 1))
        for axis, one in enumerate(index)
    ]
    where: tuple[Any, ...] = (image.reshape(-1, *(1,) * ndim), slice(None), *spread)
    found = data[where]
    groups = integer(node, "group", 1)
    found = np.moveaxis(found, -1, 1).reshape(len(drawn), groups, -1)
    groups_first: Array = found.swapaxes(0, 1)
    return groups_first


def _drawn(count: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False))


def _pads(
    node: NodeProto, sizes: tuple[int, ...], reach: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """Return what is added before and behind each axis."""
    auto = next((a.s.decode() for a in node.attribute if a.name == "auto_pad"), "NOTSET")
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        totals = [
            max((-(-size // stride) - 1) * stride + length - size, 0)
            for size, length, stride in zip(sizes, reach, strides, strict=True)
        ]
        befores = [(total + (auto == "SAME_LOWER")) // 2 for total in totals]
        return [(before, total - before) for before, total in zip(befores, totals, strict=True)]
    ndim = len(sizes)
    pads = integers(node, "pads", [0] * 2 * ndim)  # all that is before, then all that is behind
    return list(zip(pads[:ndim], pads[ndim:], strict=True))
