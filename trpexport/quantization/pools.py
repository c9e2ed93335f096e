"""Max pools that get float32 run in float32, also where 8 bits follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

_POOL = "MaxPool"
_MOVES = frozenset({"Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_LOWEST = "lowest_float32"


def hold_pools(model: ModelProto) -> None:
    """Keep ONNX Runtime from running the max pools of a quantized network in 8 bits for float32.

    It moves a QuantizeLinear in front of what only moves numbers (``QDQPropagation``). A max pool
    behind a layer in float32 is then in 8 bits and has its channels first, in which it is 30 times
    as slow. A Clip that cuts nothing stops the move; ONNX Runtime takes it away afterwards
    (``ClipQuantFusion``), so that it costs nothing.

    Args:
        model: a network with QuantizeLinear and DequantizeLinear; changed in its place.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    held = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            maker = makers.get(node.input[0])
            while maker is not None and maker.op_type in _MOVES:
                maker = makers.get(maker.input[0])
            if maker is not None and maker.op_type == _POOL:
                source = makers.get(maker.input[0])
                if source is None or source.op_type != "DequantizeLinear":
                    held.append(node)
    for node in held:
        tensor = node.input[0]
        clip = helper.make_node(
            "Clip", [tensor, _LOWEST], [f"{tensor}_held"], name=f"{node.name}_held"
        )
        graph.node.insert(list(graph.node).index(node), clip)
        node.input[0] = clip.output[0]
    if held:
        lowest = np.array(np.finfo(np.float32).min, np.float32)
        graph.initializer.append(numpy_helper.from_array(lowest, _LOWEST))
