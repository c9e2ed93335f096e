"""Reading an ONNX graph and the shapes of all its tensors, with the package onnx alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.installing import install_command
from trpexport.onnxfile.computed_shapes import (
    Inferred,
    infer_computed_shapes,
    take_known_branches,
)
from trpexport.onnxfile.operators import STANDARD_FORMS, Attributes, Operator
from trpexport.onnxfile.recognition import (
    check_onnx_file,
    is_ort,
    no_opset,
    not_onnx,
    only_runs,
)
from trpexport.supervision import (
    MEMORY_VARIABLE,
    guarded,
    memory_allowance,
    time_allowance,
)
from trpexport.tensors import (
    ONLY_INPUT,
    UNNAMED,
    Shape,
    Shapes,
    TensorInfo,
    bind_dimensions,
    free_dimensions,
    resolve_shapes,
    with_usual_shapes,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto

_MAX_NODES = 1_000_000  # once functions are inlined
_MAX_NESTING = 100  # of functions


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        name: its name, which exporters may leave empty.
        operator: (domain, name) of its operator; the domain of ONNX itself is ``""``.
        inputs: names of its input tensors, empty where one is left out.
        outputs: names of its output tensors.
        attributes: its attributes that are an integer or a text, by name; 0 for others.
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
        import onnx.shape_inference  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"onnx can't be imported ({error}): {install_command('edge')}"
        ) from None
    size = path.stat().st_size
    with guarded(f"reading {path}", memory=memory_allowance(size), seconds=time_allowance(size)):
        return _read_graph(path, shapes)


def _read_graph(path: Path, shapes: Shapes) -> Graph:
    return graph_of(load_proto(path), path, shapes)


def graph_of(model: ModelProto, path: Path, shapes: Shapes) -> Graph:
    """Fix the input shapes of a network and infer all others.

    Args:
        model: the network, which is changed.
        path: what it is called in messages.
        shapes: as for :func:`read_graph`.

    Raises:
        ModelError: the shapes do not fit or suffice.
    """
    constants = {info.name: info for info in _constants(model.graph)}
    _fix_dimensions(model, constants, shapes)
    inferred = _infer(path, model)
    for _ in range(_MAX_NESTING):
        if not take_known_branches(model, inferred.values):
            break
        inferred = _infer(path, model)
    nodes = tuple(_node(node) for node in model.graph.node)
    tensors = {
        name: _tensor_info(name, kind)
        for name, kind in inferred.types.items()
        if kind.tensor_type.elem_type and kind.tensor_type.HasField("shape")
    }
    constants = {info.name: info for info in _constants(model.graph)}
    return Graph(nodes, constants, tensors | constants)


def _infer(path: Path, model: ModelProto) -> Inferred:
    """Return what can be told of all tensors.

    Raises:
        ModelError: nothing can.
    """
    from onnx import ModelProto
    from onnx.shape_inference import infer_shapes

    standard = ModelProto()
    standard.CopyFrom(model)
    for node in standard.graph.node:
        _standardize(node)
    try:
        inferred = infer_shapes(standard, data_prop=True).graph
    except MemoryError:
        raise _too_large(path) from None
    except Exception as error:  # a bare RuntimeError, ValueError or onnx's own
        if "bad_alloc" in str(error):
            raise _too_large(path) from None
        reason = " ".join(str(error).split())
        raise ModelError(f"the shapes of {path} can't be inferred: {reason}") from error
    known = [*inferred.input, *inferred.value_info, *inferred.output]
    return infer_computed_shapes(standard, known)


def _too_large(path: Path) -> ModelError:
    return ModelError(
        f"the shapes of {path} take more memory than a network of its size should: the file is "
        f"damaged, or allow more, as in {MEMORY_VARIABLE}=16G"
    )


def load_proto(path: Path) -> ModelProto:
    """Parse an ONNX file; weights in other files stay there.

    Raises:
        ModelError: it is no ONNX network.
    """
    if is_ort(path):
        raise only_runs(str(path))
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError:
        raise not_onnx(str(path)) from None
    if not model.HasField("graph") or not all(node.output for node in model.graph.node):
        raise not_onnx(str(path))
    if not model.opset_import:
        raise no_opset(str(path))
    _check_functions(model, str(path))
    # A name that is damaged is no text: protobuf gives it as bytes.
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise not_onnx(str(path))
    return model


def _check_functions(model: ModelProto, label: str) -> None:
    """Refuse functions that stand for too many nodes, or for themselves: libraries inline them."""
    functions = {(function.domain, function.name): function for function in model.functions}
    if not functions:
        return
    counts: dict[tuple[str, str], int] = {}

    def expanded(nodes: Iterable[NodeProto], path: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in path or len(path) > _MAX_NESTING:
                raise ModelError(f"{label} has functions that call each other without end")
            if key in functions and key not in counts:
                counts[key] = expanded(functions[key].node, (*path, key))
            total += counts.get(key, 1)
        return total

    if expanded(model.graph.node, ()) > _MAX_NODES:
        raise ModelError(
            f"{label} stands for over {_MAX_NODES:,} nodes by functions that call functions: "
            "export it without them"
        )


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


def _fix_dimensions(model: ModelProto, constants: dict[str, TensorInfo], shapes: Shapes) -> None:
    """Give every input a fixed shape, and the dimensions that share a name with one of its."""
    graph = model.graph
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    inputs = [value for value in graph.input if value.name not in constants]
    for value in inputs:
        given = {value.name, ONLY_INPUT} & shapes.keys()
        if not given and not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"the input {value.name} has no shape: give it one, as in {value.name}=1x3x224x224",
                parameters=("shapes",),
            )
    infos = with_usual_shapes((_input_info(value) for value in inputs), metadata)
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
            elif dimension.dim_value < 0:  # as Paddle writes a free one
                dimension.Clear()


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
        attributes={a.name: a.i or a.s.decode(errors="replace") or 0 for a in node.attribute},
    )


def _input_info(value: ValueInfoProto) -> TensorInfo:
    info = _tensor_info(value.name, value.type)
    return replace(info, shape=free_dimensions(info.shape))


def _tensor_info(name: str, kind: TypeProto) -> TensorInfo:
    tensor = kind.tensor_type
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else d.dim_param or UNNAMED for d in tensor.shape.dim
    )
    return TensorInfo(name, shape, _dtype(name, tensor.elem_type))


def _dtype(name: str, element_type: int) -> np.dtype[Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        return tensor_dtype_to_np_dtype(element_type)
    except KeyError:
        raise ModelError(
            f"the tensor {name} has the element type {element_type}, which this onnx does not "
            f"know: update it ({install_command('edge', update=True)}), or export the network again"
        ) from None
