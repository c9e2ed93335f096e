"""In numbers of how many bits an ONNX file computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trpexport.errors import ModelError
from trpexport.onnxfile.external_data import external_files

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# What quantizers leave in a graph, of ONNX and of ONNX Runtime's own operators.
_QUANTIZED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "QAttention"),
    *("MatMulNBits", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearAdd"),
}


def check_float32(path: Path) -> None:
    """Refuse a network that is quantized, or not in float32.

    Raises:
        ModelError: it is, or is no ONNX network.
    """
    check_unquantized(path)
    types = sorted(_weight_types(_skeleton(path)) - {"float32"})
    if types:
        raise ModelError(
            f"{path} has weights in {', '.join(types)}: give the file in float32 that it was made "
            "from"
        )


def check_unquantized(path: Path) -> None:
    """Refuse a network that is quantized already: nothing can be told of what it was.

    Raises:
        ModelError: it is, or is no ONNX network.
    """
    kinds = sorted({node.op_type for node in _nodes(_skeleton(path).graph)} & _QUANTIZED)
    if kinds:
        raise ModelError(
            f"{path} is quantized already (it has {', '.join(kinds)}): give the file in float32 "
            "that it was made from"
        )


def _skeleton(path: Path) -> ModelProto:
    import onnx

    external_files(path)  # refuses what is no ONNX
    return onnx.load(path, load_external_data=False)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield all nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _weight_types(model: ModelProto) -> set[str]:
    """Return the types of floats among the stored weights of more than one dimension."""
    from onnx import TensorProto

    names = {
        TensorProto.FLOAT: "float32",
        TensorProto.FLOAT16: "float16",
        TensorProto.BFLOAT16: "bfloat16",
        TensorProto.DOUBLE: "float64",
    }
    return {
        names[tensor.data_type]
        for tensor in model.graph.initializer
        if tensor.data_type in names and len(tensor.dims) > 1
    }
