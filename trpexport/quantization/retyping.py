"""Nodes of a graph that compute in another type of floats, with casts where the types meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from trpexport.quantization.schemas import TypedNode


def retype(model: ir.Model, nodes: Iterable[TypedNode], dtype: ir.DataType) -> None:
    """Let some nodes of a graph compute in another type; inputs and outputs of it stay as they are.

    Args:
        model: the network, which is changed.
        nodes: nodes of its main graph, and which of their float32 tensors take the type.
        dtype: the type.
    """
    job = _Retyping(model.graph, dtype)
    chosen = list(nodes)
    for one in chosen:
        for place in one.outputs:
            job.produce(one.node.outputs[place])
    takers = {(id(one.node), place) for one in chosen for place in one.inputs}
    for one in chosen:
        for place in one.inputs:
            value = one.node.inputs[place]
            assert value is not None
            if value not in job.produced:
                one.node.replace_input_with(place, job.lowered(value))
    for value in job.produced:
        for node, place in value.uses():
            if (id(node), place) not in takers and node not in job.casts:
                node.replace_input_with(place, job.raised(value))
        job.keep_output(value)
    job.remove_unused()


class _Retyping:
    """One graph on its way.

    Attributes:
        produced: values that nodes now produce in the type.
        casts: the nodes that were added.
    """

    def __init__(self, graph: ir.Graph, dtype: ir.DataType) -> None:
        self._graph = graph
        self._dtype = dtype
        self._lowered: dict[ir.Value, ir.Value] = {}
        self._raised: dict[ir.Value, ir.Value] = {}
        self.produced: dict[ir.Value, None] = {}
        self.casts: set[ir.Node] = set()

    def produce(self, value: ir.Value) -> None:
        """Say that a value is of the type from now on."""
        value.type = ir.TensorType(self._dtype)
        self.produced[value] = None

    def lowered(self, value: ir.Value) -> ir.Value:
        """Return a float32 value in the type: stored so, or by a cast behind its producer."""
        if value not in self._lowered:
            self._lowered[value] = self._stored(value) or self._cast(value, self._dtype, "half")
        return self._lowered[value]

    def raised(self, value: ir.Value) -> ir.Value:
        """Return a value of the type in float32."""
        if value not in self._raised:
            self._raised[value] = self._cast(value, ir.DataType.FLOAT, "float32")
        return self._raised[value]

    def keep_output(self, value: ir.Value) -> None:
        """Give an output of the graph its type and its name back."""
        if not value.is_graph_output():
            return
        name, raised = value.name, self.raised(value)
        value.name = f"{name}_half"
        raised.name = name
        raised.shape = value.shape
        for place, output in enumerate(self._graph.outputs):
            if output is value:
                self._graph.outputs[place] = raised

    def remove_unused(self) -> None:
        """Take away weights that nothing uses any more."""
        for value in self._lowered:
            if value.const_value is not None and not value.uses() and not value.is_graph_output():
                self._graph.initializers.pop(str(value.name), None)

    def _stored(self, value: ir.Value) -> ir.Value | None:
        stored = value.const_value
        if stored is None or value.is_graph_input():
            return None
        array: Any = np.asarray(stored.numpy()).astype(self._dtype.numpy())
        half = ir.val(f"{value.name}_half", const_value=ir.tensor(array, self._dtype))
        self._graph.register_initializer(half)
        return half

    def _cast(self, value: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Value:
        name = f"{value.name}_{suffix}"
        cast = ir.node("Cast", [value], {"to": dtype}, name=f"{name}_cast")
        output = cast.outputs[0]
        output.name = name
        output.type = ir.TensorType(dtype)
        output.shape = value.shape
        self.casts.add(cast)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return output
