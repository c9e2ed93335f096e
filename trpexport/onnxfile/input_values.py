"""Which whole numbers a network takes: rows of a table, numbers it compares with, else 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trpexport.onnxfile.recognition import is_ort, not_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# Operators behind which a whole number is still the same one, by the input that it enters at.
_SAME = frozenset(
    (
        *("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Flatten"),
        *("Expand", "Slice", "Concat", "Tile"),
    )
)
_LOOKUPS = {  # operator: (input of the table, input of the row's number)
    ("", "Gather"): (0, 1),
    ("", "GatherElements"): (0, 1),
    ("com.microsoft", "EmbedLayerNormalization"): (2, 0),
}


@dataclass(frozen=True)
class Choice:
    """The whole numbers that an input takes.

    Attributes:
        values: the ones to draw from.
        is_guess: whether the network does not say so.
    """

    values: range | tuple[int, ...]
    is_guess: bool = False


GUESS = Choice(range(2), is_guess=True)


def whole_numbers(model: Path | bytes) -> dict[str, Choice]:
    """Return what is known of the whole numbers that a network's inputs take, by input name.

    An input that is used to look up rows of tables takes those of the smallest one; one
    that is compared with constants takes these. Nothing is known where onnx is not installed, or
    of a file in ONNX Runtime's own format.

    Raises:
        ModelError: it is no ONNX network.
    """
    if isinstance(model, Path) and is_ort(model):
        return {}
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError:
        return {}
    try:
        content = (
            onnx.load_model_from_string(model)
            if isinstance(model, bytes)
            else onnx.load(model, format="protobuf", load_external_data=False)
        )
    except DecodeError:
        raise not_onnx("the network" if isinstance(model, bytes) else str(model)) from None
    return _choices(content)


def _choices(model: ModelProto) -> dict[str, Choice]:
    rows: dict[str, int] = {}
    compared: dict[str, list[int]] = {}
    sizes = _table_sizes(model.graph)
    numbers = _single_numbers(model.graph)
    origin = {value.name: value.name for value in model.graph.input}
    for node in _nodes(model.graph):
        if node.op_type in _SAME and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        lookup = _LOOKUPS.get((node.domain, node.op_type))
        if lookup and len(node.input) > max(lookup) and node.input[lookup[1]] in origin:
            size = _rows(node, sizes.get(node.input[lookup[0]]))
            name = origin[node.input[lookup[1]]]
            if size:
                rows[name] = min(size, rows.get(name, size))
        if node.op_type == "Equal" and len(node.input) == 2:
            for one, other in (node.input, reversed(node.input)):
                if one in origin and other in numbers:
                    compared.setdefault(origin[one], []).append(numbers[other])
    found: dict[str, Choice] = {name: Choice(tuple(known)) for name, known in compared.items()}
    return found | {name: Choice(range(size)) for name, size in rows.items()}


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes of a graph and of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _table_sizes(graph: GraphProto) -> Mapping[str, tuple[int, ...]]:
    tables = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info)
    }
    tables |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        # A quantized table is stored in whole numbers.
        if node.op_type in {"DequantizeLinear", "Cast", "Identity"} and node.input[0] in tables:
            tables[node.output[0]] = tables[node.input[0]]
    return tables


def _single_numbers(graph: GraphProto) -> Mapping[str, int]:
    """Return the constants of one whole number."""
    from onnx.numpy_helper import to_array

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    constants = [node for node in _nodes(graph) if node.op_type == "Constant"]
    tensors |= {n.output[0]: a.t for n in constants for a in n.attribute if a.name == "value"}
    whole = {
        name: to_array(tensor)
        for name, tensor in tensors.items()
        if list(tensor.dims) in ([], [1]) and not tensor.external_data
    }
    return {name: int(a.ravel()[0]) for name, a in whole.items() if a.dtype.kind in "iu" and a.size}


def _rows(node: NodeProto, table: tuple[int, ...] | None) -> int:
    """Return how many rows a table has along the axis that a node looks up; 0 if unknown."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if table is None or not -len(table) <= axis < len(table):
        return 0
    return max(0, table[axis])
