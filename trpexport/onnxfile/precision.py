"""In which numbers an ONNX file computes: what is quantized already is not quantized again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trpexport.errors import ModelError
from trpexport.onnxfile.external_data import external_files
from trpexport.onnxfile.graph import load_proto

if TYPE_CHECKING:
    from onnx import GraphProto

# How the names begin of what quantizers leave in a graph.
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "QLinear", "QGemm")
_QUANTIZED_TOO = ("MatMulNBits", "QAttention", "MatMulIntegerToFloat")


def check_float32(path: Path) -> None:
    """Refuse a file that is not of float32 numbers.

    Raises:
        ModelError: it is quantized already, or of another precision; or no ONNX file.
    """
    from onnx import TensorProto, helper

    external_files(path)  # refuses what is no ONNX file, in one line
    model = load_proto(path)
    check_unquantized(path, _operators(model.graph))
    sizes = Counter[int]()
    for tensor in model.graph.initializer:
        sizes[tensor.data_type] += len(tensor.dims) > 1
    for kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        if sizes[kind] > sizes[TensorProto.FLOAT]:
            name = str(helper.tensor_dtype_to_np_dtype(kind))
            raise ModelError(
                f"{path} computes in {name}: give the file in float32 that it was made from"
            )


def check_unquantized(path: Path, operators: Iterable[str]) -> None:
    """Refuse a file that is quantized already.

    Args:
        path: the file.
        operators: the kinds of its nodes.

    Raises:
        ModelError: it is.
    """
    for kind in operators:
        if kind.startswith(_QUANTIZED) or kind.endswith("Integer") or kind in _QUANTIZED_TOO:
            raise ModelError(
                f"{path} is quantized already (it has a node {kind}): give the file in float32 "
                "that it was made from"
            )


def _operators(graph: GraphProto) -> Iterator[str]:
    """Yield the kinds of all nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _operators(inner)
