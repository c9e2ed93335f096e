"""Linear operators of an ONNX graph with nothing between them, and their free diagonal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trpexport.quantization.linear import (
    CHANNEL_AXIS,
    Stored,
    data_input,
    integer,
    kernel_view,
    stored_tensors,
    uses_of,
)
from trpexport.quantization.scaling import Diagonal, Statistics, best_diagonal
from trpexport.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


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
    stored, uses = stored_tensors(model), uses_of(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    links = []
    for node in model.graph.node:
        tensor = data_input(node, stored, uses)
        before = producers.get(tensor) if tensor else None
        if tensor is None or before is None or data_input(before, stored, uses) is None:
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

    stored = stored_tensors(model)
    first, second = (stored[node.input[1]] for node in (link.first, link.second))
    before, after = (numpy_helper.to_array(one).astype(np.float64) for one in (first, second))
    kernel = kernel_view(link.second, after)
    found = best_diagonal(kernel, channels, is_symmetric=is_symmetric)
    groups, _, inputs, _ = kernel.shape
    kernel /= found.factors.reshape(groups, 1, inputs, 1)
    outputs = kernel_view(link.first, before)
    outputs *= found.factors.reshape(*outputs.shape[:2], 1, 1)
    _store(first, before)
    _store(second, after)
    if len(link.first.input) > 2 and link.first.input[2]:
        bias = stored[link.first.input[2]]
        _store(bias, numpy_helper.to_array(bias).astype(np.float64) * found.factors)
    return found


def _has_own_bias(node: NodeProto, stored: Stored, uses: Counter[str]) -> bool:
    """Whether a linear operator has no bias, or one number an output that nothing else uses."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    bias = stored.get(node.input[2])
    if bias is None or uses[bias.name] > 1:
        return False
    weight = stored[node.input[1]]
    groups = integer(node, "group", 1)
    outputs = {
        "Conv": weight.dims[0],
        "ConvTranspose": weight.dims[1] * groups if len(weight.dims) > 1 else 0,
        "Gemm": weight.dims[0 if integer(node, "transB", 0) else 1],
    }
    return int(np.prod(bias.dims)) == bias.dims[-1] == outputs[node.op_type] if bias.dims else False


def _store(tensor: TensorProto, values: Array) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
