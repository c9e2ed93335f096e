"""Shapes that a graph computes: what makes sizes out of sizes is worked out on the way.

ONNX's own inference follows such values through a few operators only. Here every node is inferred
with the values of its inputs, where these are small and known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from trpexport.tensors import Array

if TYPE_CHECKING:
    from onnx import (
        GraphProto,
        ModelProto,
        NodeProto,
        OperatorSetIdProto,
        TypeProto,
        ValueInfoProto,
    )

_MAX_ELEMENTS = 1024  # of a value that makes shapes


@dataclass(frozen=True)
class Inferred:
    """What can be told of the tensors of a main graph before it runs.

    Attributes:
        types: by name.
        values: of small tensors that depend on nothing but constants and sizes, by name.
    """

    types: dict[str, TypeProto]
    values: dict[str, Array]


def infer_computed_shapes(model: ModelProto, known: Sequence[ValueInfoProto]) -> Inferred:
    """Return the types and small values of all tensors that can be told.

    Args:
        model: the network; its inputs have shapes.
        known: types that ONNX has inferred, which stay where they are complete.
    """
    return _Inference(model, known).run()


def take_known_branches(model: ModelProto, values: Mapping[str, Array]) -> bool:
    """Put into the main graph the branches of conditions that are known; say whether any was.

    Args:
        model: the network, which is changed.
        values: known values by name.
    """
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        branch = _known_branch(node, values)
        nodes += [node] if branch is None else _inlined(node, branch)
        if branch is not None:
            model.graph.initializer.extend(branch.initializer)
    if len(nodes) == len(model.graph.node) and nodes == list(model.graph.node):
        return False
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return True


def _known_branch(node: NodeProto, values: Mapping[str, Array]) -> GraphProto | None:
    if node.op_type != "If" or node.domain or node.input[0] not in values:
        return None
    name = "then_branch" if values[node.input[0]].all() else "else_branch"
    return next((attribute.g for attribute in node.attribute if attribute.name == name), None)


def _inlined(node: NodeProto, branch: GraphProto) -> list[NodeProto]:
    from onnx import helper

    return [
        *branch.node,
        *(
            helper.make_node("Identity", [inner.name], [outer])
            for inner, outer in zip(branch.output, node.output, strict=False)
        ),
    ]


class _Inference:
    """Types and small values of tensors, node by node."""

    def __init__(self, model: ModelProto, known: Sequence[ValueInfoProto]) -> None:
        self._graph = model.graph
        self._opsets = list(model.opset_import)
        self._ir_version = model.ir_version
        self._types: dict[str, TypeProto] = {value.name: value.type for value in known}
        self._values: dict[str, Array] = {}

    def run(self) -> Inferred:
        from onnx.helper import make_tensor_type_proto

        for tensor in self._graph.initializer:
            self._types[tensor.name] = make_tensor_type_proto(tensor.data_type, tensor.dims)
            if prod(tensor.dims) <= _MAX_ELEMENTS and not tensor.external_data:
                self._learn(tensor.name, tensor)
        for node in self._graph.node:
            if not all(_is_complete(self._types.get(name)) for name in node.output):
                self._infer(node)
            self._evaluate(node)
        return Inferred(self._types, self._values)

    def _learn(self, name: str, tensor: Any) -> None:
        from onnx.numpy_helper import to_array

        with suppress(Exception):  # a tensor that is damaged has no value
            self._values[name] = to_array(tensor)

    def _infer(self, node: NodeProto) -> None:
        """Take in the types of a node's outputs, as far as they follow from its inputs."""
        from onnx import defs, numpy_helper
        from onnx.shape_inference import infer_node_outputs

        names = [name for name in node.input if name]
        if not all(name in self._types for name in names):
            return
        with suppress(Exception):  # onnx raises a dozen types for an operator that it can't infer
            schema = defs.get_schema(node.op_type, _version(self._opsets, node.domain), node.domain)
            found = infer_node_outputs(
                schema,
                node,
                {name: self._types[name] for name in names},
                {n: numpy_helper.from_array(self._values[n]) for n in names if n in self._values},
                opset_imports=self._opsets,
                ir_version=self._ir_version,
            )
            for name, inferred in found.items():
                if inferred.tensor_type.HasField("shape") or name not in self._types:
                    self._types[name] = inferred

    def _evaluate(self, node: NodeProto) -> None:
        """Take in the values of a node's outputs, where they are small and follow from its inputs.

        Sizes are whole numbers; floats are followed as well, since some are scaled on the way.
        """
        outputs = [self._types.get(name) for name in node.output]
        if not all(_is_complete(kind) and _elements(kind) <= _MAX_ELEMENTS for kind in outputs):
            return
        if node.op_type == "Shape" and _is_complete(self._types.get(node.input[0])):
            with suppress(Exception):
                shape = np.asarray(_dimensions(self._types[node.input[0]]), np.int64)
                bounds = {attribute.name: attribute.i for attribute in node.attribute}
                self._values[node.output[0]] = shape[bounds.get("start", 0) : bounds.get("end")]
            return
        names = [name for name in node.input if name]
        is_random = node.op_type.startswith("Random") or node.op_type in {"Bernoulli", "Dropout"}
        has_graphs = any(a.HasField("g") or a.graphs for a in node.attribute)
        if is_random or has_graphs or not all(name in self._values for name in names):
            return
        with suppress(Exception):  # what onnx can't run stays unknown
            self._values.update(_run(node, self._opsets, {n: self._values[n] for n in names}))


def _run(
    node: NodeProto, opsets: Sequence[OperatorSetIdProto], inputs: dict[str, Array]
) -> dict[str, Array]:
    """Run one node in Python."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
         for n, a in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )  # fmt: skip
    results = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, inputs)
    return {
        name: np.asarray(result)
        for name, result in zip(filter(None, node.output), results, strict=True)
    }


def _version(opsets: Sequence[OperatorSetIdProto], domain: str) -> int:
    return next(o.version for o in opsets if o.domain in {domain, domain or "ai.onnx"})


def _dimensions(kind: TypeProto) -> list[int]:
    return [d.dim_value for d in kind.tensor_type.shape.dim]


def _elements(kind: TypeProto | None) -> int:
    return prod(_dimensions(kind)) if kind is not None else 0


def _is_complete(kind: TypeProto | None) -> bool:
    return (
        kind is not None
        and kind.tensor_type.HasField("shape")
        and all(d.HasField("dim_value") for d in kind.tensor_type.shape.dim)
    )
