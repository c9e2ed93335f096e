"""Linear operators of an ONNX graph with nothing between them, and their free diagonal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trpexport.quantization.scaling import Diagonal, Statistics, best_diagonal
from trpexport.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""The axis of channels in what each linear operator gets and gives."""


@dataclass(frozen=True)
class Link:
    """Two linear operators, the second of which alone uses what the first gives.

    Attributes:
        first, second: the nodes.
        tensor: name of what lies between them.
        axis: that of its channels.
    """

    first: NodeProto
    second: NodeProto
    tensor: str
    axis: int


def find_links(model: ModelProto) -> list[Link]:
    """Return the links of a graph, the last ones first.

    A chain of three operators has two links; to rescale the later one first has the earlier one
    see the error of its outputs in the steps that these are quantized by.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    # What bodies of loops and branches use of it isn't seen among the nodes of the graph itself.
    uses.update(name for node in graph.node for name in _of_bodies(node))
    uses.update(value.name for value in (*graph.output, *graph.input))
    producers = {name: node for node in graph.node for name in node.output}
    links = []
    for node in graph.node:
        tensor = _data(node, stored, uses)
        before = producers.get(tensor) if tensor else None
        if tensor is None or before is None or _data(before, stored, uses) is None:
            continue
        axis = CHANNEL_AXIS[node.op_type]
        fits = CHANNEL_AXIS[before.op_type] == axis and uses[tensor] == 1
        if fits and _has_own_bias(before, stored, uses):
            links.append(Link(before, node, tensor, axis))
    return links[::-1]


def rescale(model: ModelProto, link: Link, channels: Statistics, *, is_symmetric: bool) -> Diagonal:
    """Put the best diagonal between two operators, which compute together what they did.

    Args:
        model: the network, which is changed.
        link: the two.
        channels: of the tensor between them.
        is_symmetric: whether that tensor's range is as large on both sides of 0.
    """
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    first, second = (stored[node.input[1]] for node in (link.first, link.second))
    before, after = (numpy_helper.to_array(one).astype(np.float64) for one in (first, second))
    kernel = _kernel(link.second, after)
    found = best_diagonal(kernel, channels, is_symmetric=is_symmetric)
    groups, _, inputs, _ = kernel.shape
    kernel /= found.factors.reshape(groups, 1, inputs, 1)
    outputs = _kernel(link.first, before)
    outputs *= found.factors.reshape(*outputs.shape[:2], 1, 1)
    _store(first, before)
    _store(second, after)
    if len(link.first.input) > 2 and link.first.input[2]:
        bias = stored[link.first.input[2]]
        _store(bias, numpy_helper.to_array(bias).astype(np.float64) * found.factors)
    return found


def _data(node: NodeProto, stored: dict[str, TensorProto], uses: Counter[str]) -> str | None:
    """Return the input of a linear operator whose weight is its own; None for another node."""
    from onnx import TensorProto

    if node.domain not in {"", "ai.onnx"} or node.op_type not in CHANNEL_AXIS:
        return None
    weight = stored.get(node.input[1])
    if weight is None or uses[weight.name] > 1 or weight.data_type != TensorProto.FLOAT:
        return None
    if node.op_type == "MatMul" and len(weight.dims) != 2:
        return None
    if _integer(node, "transA", 0):
        return None
    data: str = node.input[0]
    return data


def _has_own_bias(node: NodeProto, stored: dict[str, TensorProto], uses: Counter[str]) -> bool:
    """Whether a linear operator has no bias, or one number an output that nothing else uses."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    bias = stored.get(node.input[2])
    if bias is None or uses[bias.name] > 1:
        return False
    weight = stored[node.input[1]]
    groups = _integer(node, "group", 1)
    outputs = {
        "Conv": weight.dims[0],
        "ConvTranspose": weight.dims[1] * groups if len(weight.dims) > 1 else 0,
        "Gemm": weight.dims[0 if _integer(node, "transB", 0) else 1],
    }
    return int(np.prod(bias.dims)) == bias.dims[-1] == outputs[node.op_type] if bias.dims else False


def _kernel(node: NodeProto, weight: Array) -> Array:
    """Return the view of a weight as (groups, outputs, inputs, taps), both of a group."""
    groups = _integer(node, "group", 1)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _integer(node, "transB", 0)):
        return weight.T[None, :, :, None]
    by_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return by_group.swapaxes(1, 2) if node.op_type == "ConvTranspose" else by_group


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _of_bodies(node: NodeProto) -> list[str]:
    """Return what the bodies of a node use, whether it is theirs or not."""
    bodies = [body for a in node.attribute for body in (*a.graphs, *([a.g] if a.g.node else []))]
    inner = [one for body in bodies for one in body.node]
    return [name for one in inner for name in (*one.input, *_of_bodies(one))]


def _store(tensor: TensorProto, values: Array) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
