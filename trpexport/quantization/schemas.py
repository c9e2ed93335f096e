"""Which of a node's tensors may be of which type, as ONNX defines its operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class TypedNode:
    """A node that may compute in another type of floats than float32.

    Attributes:
        node: the node.
        inputs: places of the float32 inputs that would be of that type.
        outputs: places of the outputs that would be; none where it can't compute in it.
        since: version of the operator set in which its operator was last defined; 0 if unknown.
    """

    node: ir.Node
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    since: int = 0


def typed_node(node: ir.Node, opsets: Mapping[str, int], dtype: ir.DataType) -> TypedNode:
    """Return which float32 inputs and outputs of a node would be of another type if it were.

    None of one that ONNX does not define so, that holds graphs, or whose outputs are of a type
    that no input decides on. One whose outputs are no floats may take inputs of that type.

    Args:
        node: the node, the types of its values known.
        opsets: version of each operator set, by domain.
        dtype: the other type.
    """
    import onnx

    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return TypedNode(node)
    stays = TypedNode(node, since=schema.since_version)
    if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
        return stays
    name = f"tensor({dtype.name.lower()})"
    free = {one.type_param_str for one in schema.type_constraints if name in one.allowed_type_strs}
    inputs = _of_types(node.inputs, schema.inputs, free)
    decided = {_formal(schema.inputs, place).type_str for place in inputs}
    outputs = _of_types(node.outputs, schema.outputs, free & decided)
    floats = [value for value in node.outputs if not _is_other(value)]
    if len(outputs) < len(floats):
        return stays
    return TypedNode(node, inputs, outputs, schema.since_version)


def _of_types(
    values: Sequence[ir.Value | None], formals: Sequence[Any], types: set[str]
) -> tuple[int, ...]:
    """Return the places of the float32 tensors among arguments whose parameters have some types."""
    return tuple(
        place
        for place, value in enumerate(values)
        if value is not None
        and isinstance(value.type, ir.TensorType)
        and value.dtype == ir.DataType.FLOAT
        and _formal(formals, place).type_str in types
    )


def _formal(formals: Sequence[Any], place: int) -> Any:
    """Return the parameter that an argument is for: the last one may stand for several."""
    return formals[min(place, len(formals) - 1)]


def _is_other(value: ir.Value) -> bool:
    """Whether a value is unused, or known to be no float."""
    if not value.name:
        return True
    return isinstance(value.type, ir.TensorType) and value.dtype != ir.DataType.FLOAT
