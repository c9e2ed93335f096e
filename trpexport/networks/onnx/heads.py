"""Which layers' outputs leave a graph without passing another layer: its heads."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from trpexport.networks.onnx.layers import OnnxLayer, nodes_within
from trpexport.onnxfile.operators import COUNTED, TRANSPARENT

# Their operands may all be computed: then there are no weights.
_PRODUCTS = frozenset(
    {
        *("MatMul", "Gemm", "Einsum", "MatMulInteger", "QLinearMatMul"),
        *("FusedMatMul", "FusedGemm"),
    }
)


def heads(model: ir.Model, layers: Sequence[OnnxLayer]) -> tuple[str, ...]:
    """Return the names of the layers behind which nothing has weights, in the order of the file.

    Args:
        model: the network.
        layers: its linear layers.
    """
    weighted = {layer.node for layer in layers}
    functions = {
        identifier
        for identifier, function in model.functions.items()
        if any(_has_weights(node, weighted) for node, _ in nodes_within(function, None))
    }
    around: dict[ir.Node, ir.Node] = {}  # of the nodes within bodies, the node of the main graph
    stops: set[ir.Node] = set()
    for top in model.graph:
        inner = [node for node, place in nodes_within([top], None)]
        around |= dict.fromkeys(inner, top)
        if any(_has_weights(n, weighted) or n.op_identifier() in functions for n in inner):
            stops.add(top)
    leaves, meets = set[ir.Node](), set[ir.Node]()  # the network; a weight, on the way
    for node in reversed(model.graph):
        for value in node.outputs:
            behind = [around[user] for user in value.consumers() if user in around]
            if value.is_graph_output() or any(u in leaves and u not in stops for u in behind):
                leaves.add(node)
            if any(user in stops or user in meets for user in behind):
                meets.add(node)
    return tuple(
        layer.name
        for layer in layers
        if layer.calls and layer.node in leaves and layer.node not in meets
    )


def _has_weights(node: ir.Node, layers: set[ir.Node]) -> bool:
    """Whether a node multiplies with weights: products do where one is stored."""
    kind = (node.domain, node.op_type)
    if node in layers or kind not in COUNTED:
        return node in layers
    return node.op_type not in _PRODUCTS or any(map(_is_stored, node.inputs))


def _is_stored(value: ir.Value | None) -> bool:
    """Whether a file holds a tensor, or what it is a mere rearrangement of."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or (node.domain, node.op_type) not in TRANSPARENT:
            return node is not None and node.op_type == "Constant"
        value = node.inputs[0]
    return value is not None
