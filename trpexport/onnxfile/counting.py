"""What an ONNX network costs: MACs, parameters and activations of every layer."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

from trpexport.cost import Cost, OperatorCost
from trpexport.onnxfile.graph import Graph, Node, read_graph
from trpexport.onnxfile.naming import module_name
from trpexport.onnxfile.operators import (
    COUNTED,
    LEFT_OUT,
    PARAMETER_INPUTS,
    TRANSPARENT,
    operator_text,
)
from trpexport.tensors import NO_SHAPES, Shapes


def count_onnx(path: Path, *, shapes: Shapes = NO_SHAPES) -> Cost:
    """Count what an ONNX file costs, from shapes alone; weights in a second file may be missing.

    Convolutions and matrix products are counted, also ONNX Runtime's fused and quantized ones.
    Parameters are the constants that nodes use, each counted once: neither the whole numbers
    (int64) that exporters leave for shapes and axes, nor the scales of quantization, nor running
    statistics.

    Args:
        path: the file.
        shapes: whole input shapes by name; needed where a dimension other than the first is
            dynamic. A dynamic first dimension without one is taken as 1; a fixed one is kept, and
            the cost is that of the whole batch.

    Raises:
        ModelError: the file is no ONNX network, or the shapes do not fit or suffice.
        MissingDependencyError: the package onnx is not installed.
    """
    return count_graph(read_graph(path, shapes))


def count_graph(graph: Graph) -> Cost:
    """Count what a graph costs, as :func:`count_onnx` does."""
    parameters = _Parameters(graph)
    layers: list[OperatorCost] = []
    left_out: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    other_parameters = 0
    for index, node in enumerate(graph.nodes):
        layer = _layer(graph, node, parameters, f"{node.operator[1]}_{index}")
        if layer is not None:
            layers.append(layer)
        elif node.operator in TRANSPARENT:
            left_out[operator_text(node.operator)] += 1
        else:
            counts = left_out if node.operator in LEFT_OUT else unknown
            counts[operator_text(node.operator)] += 1
            other_parameters += parameters.claim(node)
    return Cost(tuple(layers), dict(left_out), dict(unknown), other_parameters)


def _layer(
    graph: Graph, node: Node, parameters: _Parameters, fallback_name: str
) -> OperatorCost | None:
    """Return the cost of a node that multiplies and adds; None if it does not, or can't be told."""
    counted = COUNTED.get(node.operator)
    if counted is None or not counted.weight < len(node.inputs) <= counted.most_inputs:
        return None
    data = graph.shape(node.inputs[counted.data])
    weight = graph.shape(node.inputs[counted.weight])
    output = graph.shape(node.outputs[0])
    if not data or not weight or output is None:
        return None
    return OperatorCost(
        name=parameters.layer_name(node) or node.name or fallback_name,
        operator=operator_text(node.operator),
        input_shape=data,
        output_shape=output,
        macs=counted.macs(data, weight, output, node.attributes),
        parameters=parameters.claim(node),
        activation_bytes=prod(output) * graph.tensors[node.outputs[0]].dtype.itemsize,
    )


class _Parameters:
    """Which constants of a graph are parameters, and which of them are already counted."""

    def __init__(self, graph: Graph) -> None:
        self._sizes = {
            name: prod(graph.shape(name) or ())
            for name, info in graph.constants.items()
            if info.dtype.kind not in "bO" and info.dtype != "int64"
        }
        self._claimed: set[str] = set()
        self._origin = {name: name for name in self._sizes}  # of every tensor made of one constant
        for node in graph.nodes:
            if node.operator in TRANSPARENT and node.inputs and node.inputs[0] in self._origin:
                self._origin[node.outputs[0]] = self._origin[node.inputs[0]]

    def claim(self, node: Node) -> int:
        """Return the number of parameters of ``node`` that no earlier node has claimed."""
        names = self._of(node) - self._claimed
        self._claimed |= names
        return sum(self._sizes[name] for name in names)

    def layer_name(self, node: Node) -> str | None:
        """Return the module's dotted name, if the weight of ``node`` bears one."""
        counted = COUNTED[node.operator]
        for index in (counted.weight, counted.data):
            name = module_name(self._origin.get(node.inputs[index], ""))
            if name is not None:
                return name
        return None

    def _of(self, node: Node) -> set[str]:
        if node.operator in COUNTED:
            indices = COUNTED[node.operator].parameters
        else:
            indices = PARAMETER_INPUTS.get(node.operator, tuple(range(len(node.inputs))))
        inputs = [node.inputs[index] for index in indices if index < len(node.inputs)]
        return {self._origin[name] for name in inputs if name in self._origin}
