"""Reading an ONNX graph and the shapes of all its tensors, with the package onnx alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.onnxfile.operators import STANDARD_FORMS, Attributes, Operator
from trpexport.onnxfile.recognition import check_onnx_file, not_onnx
from trpexport.tensors import (
    UNNAMED,
    Shape,
    Shapes,
    TensorInfo,
    bind_dimensions,
    resolve_shapes,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        name: its name, which exporters may leave empty.
        operator: (domain, name) of its operator; the domain of ONNX itself is ``""``.
        inputs: names of its input tensors, empty where one is left out.
        outputs: names of its output tensors.
        attributes: its integer attributes by name.
    """

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


@dataclass(frozen=True)
class Graph:
    """A graph for one size of input.

    Attributes:
        nodes: the nodes, in the order in which they run.
        constants: every tensor that is stored in the file, by name.
        tensors: every tensor whose shape is known, the constants included, by name.
    """

    nodes: tuple[Node, ...]
    constants: dict[str, TensorInfo]
    tensors: dict[str, TensorInfo]

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor; None if it is unknown or partly so."""
        info = self.tensors.get(name)
        if info is None:
            return None
        shape = tuple(n for n in info.shape if isinstance(n, int))
        return shape if len(shape) == len(info.shape) else None


def read_graph(path: Path, shapes: Shapes) -> Graph:
    """Read an ONNX file, fix its input shapes and infer all others; weights in other files stay.

    Args:
        path: the file.
        shapes: whole input shapes by name. A dynamic first dimension without one is taken as 1.

    Raises:
        ModelError: the file is no ONNX network, or the shapes do not fit or suffice.
        MissingDependencyError: the package onnx is not installed.
    """
    check_onnx_file(path)
    try:
        from onnx.shape_inference import infer_shapes
    except ImportError as error:
        raise MissingDependencyError(
            f'onnx can\'t be imported ({error}): pip install "trpexport[edge]"'
        ) from None
    model = _load(path)
    constants = {info.name: info for info in _constants(model.graph)}
    _fix_dimensions(model.graph, constants, shapes)
    nodes = tuple(_node(node) for node in model.graph.node)
    for node in model.graph.node:
        _standardize(node)
    try:
        graph = infer_shapes(model, data_prop=True).graph
    except Exception as error:  # a bare RuntimeError, ValueError or onnx's own
        reason = " ".join(str(error).split())
        raise ModelError(f"the shapes of {path} can't be inferred: {reason}") from error
    tensors = {
        value.name: _tensor_info(value)
        for value in [*graph.input, *graph.value_info, *graph.output]
        if value.type.tensor_type.elem_type and value.type.tensor_type.HasField("shape")
    }
    return Graph(nodes, constants, tensors | constants)


def _load(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError:
        raise not_onnx(str(path)) from None
    if not model.HasField("graph") or not all(node.output for node in model.graph.node):
        raise not_onnx(str(path))
    # A name that is damaged is no text: protobuf gives it as bytes.
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise not_onnx(str(path))
    return model


def _names(graph: GraphProto) -> Iterator[str]:
    """Yield the names of all nodes, values and dimensions."""
    for node in graph.node:
        yield from (node.name, node.domain, node.op_type, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name
        yield from (dimension.dim_param for dimension in value.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in graph.initializer)


def _constants(graph: GraphProto) -> Iterator[TensorInfo]:
    """Yield the initializers, and the values of Constant nodes."""
    stored = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            stored += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
    for name, tensor in stored:
        yield TensorInfo(name, tuple(tensor.dims), _dtype(name, tensor.data_type))


def _fix_dimensions(graph: GraphProto, constants: dict[str, TensorInfo], shapes: Shapes) -> None:
    """Give every input a fixed shape, and the dimensions that share a name with one of its."""
    inputs = [value for value in graph.input if value.name not in constants]
    for value in inputs:
        if not value.type.tensor_type.HasField("shape") and value.name not in shapes:
            raise ModelError(
                f"the input {value.name} has no shape: give it one, as in {value.name}=1x3x224x224",
                parameters=("shapes",),
            )
    infos = [_tensor_info(value) for value in inputs]
    resolved = resolve_shapes(infos, shapes)
    sizes: dict[str, int] = {}
    for info in infos:
        bind_dimensions(info, resolved[info.name], sizes)
    for value in inputs:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in resolved[value.name]:
            shape.dim.add().dim_value = size
    for value in [*graph.value_info, *graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]


def _standardize(node: NodeProto) -> None:
    """Turn one of ONNX Runtime's operators into the standard one with the same output shape."""
    standard = STANDARD_FORMS.get((node.domain, node.op_type))
    if standard is None:
        return
    if standard[0] == "MatMul" and any(a.name.startswith("trans") and a.i for a in node.attribute):
        return  # MatMul does not transpose
    node.op_type, indices = standard
    node.domain = ""
    inputs = [node.input[index] for index in indices if index < len(node.input)]
    del node.input[:]
    node.input.extend(inputs)


def _node(node: NodeProto) -> Node:
    return Node(
        name=node.name,
        operator=("" if node.domain == "ai.onnx" else node.domain, node.op_type),
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={a.name: a.i for a in node.attribute},
    )


def _tensor_info(value: ValueInfoProto) -> TensorInfo:
    tensor = value.type.tensor_type
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or UNNAMED for d in tensor.shape.dim
    )
    return TensorInfo(value.name, shape, _dtype(value.name, tensor.elem_type))


def _dtype(name: str, element_type: int) -> np.dtype[Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        return tensor_dtype_to_np_dtype(element_type)
    except KeyError:
        raise ModelError(
            f"the tensor {name} has the element type {element_type}, which this onnx does not "
            'know: update it (pip install -U "trpexport[edge]"), or export the network again'
        ) from None
