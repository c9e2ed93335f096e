"""What stays in float32 runs in float32: ONNX Runtime would extend the 8 bits around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})  # that ONNX Runtime quantizes by itself
_ACTIVATIONS = frozenset({"Clip", "Relu"})
_POOL = "MaxPool"
_MOVES = frozenset({"Flatten", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_LOWEST = "lowest_float32"


def hold_float32(model: ModelProto) -> None:
    """Have ONNX Runtime run in float32 what of a quantized network is written in it.

    Two of its rewrites would not:

    - ``WeightBiasQuantization``: a layer from whose output only ReLU and Clip lead to a
      QuantizeLinear, as between layers in int8, gets 8-bit weights with one step for all channels,
      at many times the error of one that is quantized by channel. A leaky ReLU stops that: of
      slope 0 in the place of the ReLU, or of slope 1, which changes nothing. It is fused into the
      layer.
    - ``QDQPropagation``: a QuantizeLinear moves in front of a max pool, which then runs in 8 bits
      with its channels first, at 30 times the time. A Clip that cuts nothing stops that.
      ``ClipQuantFusion`` takes it away afterwards.

    Args:
        model: a network with QuantizeLinear and DequantizeLinear; changed in its place.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    pooled = []
    for node in list(graph.node):
        if node.op_type != "QuantizeLinear":
            continue
        if _is_float32_pool(_maker_of(node, makers, _MOVES), makers):
            pooled.append(node)
            continue
        layer = _maker_of(node, makers, _ACTIVATIONS)
        if layer is not None and layer.op_type in _LAYERS and layer.input[1] in stored:
            _hold_layer(model, layer)
    _hold_pools(model, pooled)


def _maker_of(
    node: NodeProto, makers: dict[str, NodeProto], passed: frozenset[str]
) -> NodeProto | None:
    """Return what computes the input of a node, as far as some operators do not."""
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type in passed:
        maker = makers.get(maker.input[0])
    return maker


def _is_float32_pool(node: NodeProto | None, makers: dict[str, NodeProto]) -> bool:
    if node is None or node.op_type != _POOL:
        return False
    source = makers.get(node.input[0])
    return source is None or source.op_type != "DequantizeLinear"


def _hold_layer(model: ModelProto, layer: NodeProto) -> None:
    """Put a leaky ReLU behind a layer, in the place of a ReLU if there is one."""
    from onnx import helper

    users = [node for node in model.graph.node if layer.output[0] in node.input]
    if any(node.op_type == "LeakyRelu" for node in users):  # several conversions lead to it
        return
    if len(users) == 1 and users[0].op_type == "Relu":
        users[0].op_type = "LeakyRelu"
        users[0].attribute.append(helper.make_attribute("alpha", 0.0))
        return
    output = layer.output[0]
    layer.output[0] = f"{output}_held"
    same = helper.make_node(
        "LeakyRelu", [layer.output[0]], [output], name=f"{layer.name}_held", alpha=1.0
    )
    model.graph.node.insert(list(model.graph.node).index(layer) + 1, same)


def _hold_pools(model: ModelProto, conversions: list[NodeProto]) -> None:
    """Put a Clip that cuts nothing before the conversions behind pools."""
    from onnx import helper, numpy_helper

    graph = model.graph
    for node in conversions:
        tensor = node.input[0]
        clip = helper.make_node(
            "Clip", [tensor, _LOWEST], [f"{tensor}_held"], name=f"{node.name}_held"
        )
        graph.node.insert(list(graph.node).index(node), clip)
        node.input[0] = clip.output[0]
    if conversions:
        lowest = np.array(np.finfo(np.float32).min, np.float32)
        graph.initializer.append(numpy_helper.from_array(lowest, _LOWEST))
