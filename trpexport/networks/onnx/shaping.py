"""The shapes of the tensors of an ONNX graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from trpexport.networks.onnx.saving import open_model, skeleton
from trpexport.onnxfile.graph import Graph, graph_of
from trpexport.tensors import Shapes, TensorInfo


def shaped(model: ir.Model, path: Path, shapes: Shapes) -> Graph:
    """Return a graph with the shapes of its tensors, from a run where nothing else tells.

    Args:
        model: the graph.
        path: what its file is called.
        shapes: of its inputs.
    """
    graph = graph_of(skeleton(model), path, shapes)
    names = {name for node in graph.nodes for name in node.outputs}
    unknown = [
        value
        for value in values_of(model)
        if value.name in names and graph.shape(value.name) is None
    ]
    if not unknown:
        return graph
    session = open_model(model, unknown)
    outputs = session.run(session.random_inputs(overrides=shapes))
    measured = {
        value.name: TensorInfo(value.name, outputs[value.name].shape, outputs[value.name].dtype)
        for value in unknown
        if value.name is not None and hasattr(outputs.get(value.name), "shape")
    }
    return replace(graph, tensors=graph.tensors | measured)


def values_of(model: ir.Model) -> list[ir.Value]:
    """Return the inputs of the main graph and what its nodes put out."""
    outputs = [value for node in model.graph for value in node.outputs if value.name]
    return [*model.graph.inputs, *outputs]
