"""Linear operators of an ONNX graph whose weights are their own."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from trpexport.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

CHANNEL_AXIS = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""The axis of channels in what each linear operator gets and gives."""

Stored = dict[str, "TensorProto"]


def stored_tensors(model: ModelProto) -> Stored:
    """Return the tensors that a network stores, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def uses_of(model: ModelProto) -> Counter[str]:
    """Return how often each tensor is used: by nodes, their bodies, and as an input or output."""
    graph = model.graph
    uses = Counter(name for node in graph.node for name in node.input)
    # What bodies of loops and branches use of it isn't seen among the nodes of the graph itself.
    uses.update(name for node in graph.node for name in names_in_bodies(node))
    uses.update(value.name for value in (*graph.output, *graph.input))
    return uses


def data_input(node: NodeProto, stored: Stored, uses: Counter[str]) -> str | None:
    """Return the input of a linear operator whose weight is its own; None for another node."""
    from onnx import TensorProto

    if node.domain not in {"", "ai.onnx"} or node.op_type not in CHANNEL_AXIS:
        return None
    weight = stored.get(node.input[1])
    if weight is None or uses[weight.name] > 1 or weight.data_type != TensorProto.FLOAT:
        return None
    if node.op_type == "MatMul" and len(weight.dims) != 2:
        return None
    if integer(node, "transA", 0):
        return None
    data: str = node.input[0]
    return data


def kernel_view(node: NodeProto, weight: Array) -> Array:
    """Return the view of a weight as (groups, outputs, inputs, taps), both of a group."""
    groups = integer(node, "group", 1)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not integer(node, "transB", 0)):
        return weight.T[None, :, :, None]
    taps = int(np.prod(weight.shape[2:]))
    by_group = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], taps)
    return by_group.swapaxes(1, 2) if node.op_type == "ConvTranspose" else by_group


def integer(node: NodeProto, name: str, default: int) -> int:
    """Return an attribute that is a whole number."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def integers(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of whole numbers."""
    return next((list(a.ints) for a in node.attribute if a.name == name), default)


def names_in_bodies(node: NodeProto) -> list[str]:
    """Return what the bodies of a node use, whether it is theirs or not."""
    bodies = [body for a in node.attribute for body in (*a.graphs, *([a.g] if a.g.node else []))]
    inner = [one for body in bodies for one in body.node]
    return [name for one in inner for name in (*one.input, *names_in_bodies(one))]
