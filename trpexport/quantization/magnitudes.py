"""How large the values of a network become."""

from __future__ import annotations

import math

import onnx_ir as ir

from trpexport.inputs import images_of, rows
from trpexport.quantization import graphs
from trpexport.tensors import Arrays

_BATCH = 8
_IMAGES = 32
_PREFIX = "largest of "
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}


def largest_values(model: ir.Model, feeds: Arrays) -> dict[str, float]:
    """Return the largest absolute value of each tensor of floats that a node computes, by name.

    NaN where there is a NaN or an infinity among them. Nodes inside of other nodes are not looked
    at.

    Args:
        model: the network.
        feeds: inputs by name, of which the first few are run.

    Raises:
        ModelError: the network can't be run on them.
    """
    probed = model.clone()
    outputs = [_probe(probed.graph, value) for value in _computed(probed)]
    probed.graph.outputs.clear()
    probed.graph.outputs.extend(outputs)
    found = {str(output.name).removeprefix(_PREFIX): 0.0 for output in outputs}
    with graphs.opened(probed) as session:
        batch = session.batch_size or _BATCH
        for start in range(0, min(_IMAGES, images_of(feeds)), batch):
            some = rows(feeds, slice(start, start + batch))
            if session.batch_size is not None and images_of(some) < batch:
                break
            for name, value in session.run(session.named(some)).items():
                key = name.removeprefix(_PREFIX)
                found[key] = float(value) if math.isnan(value) else max(found[key], float(value))
    return found


def _computed(model: ir.Model) -> list[ir.Value]:
    return [
        value
        for node in model.graph
        for value in node.outputs
        if value.name and isinstance(value.type, ir.TensorType) and value.dtype in _FLOATS
    ]


def _probe(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Add what finds the largest absolute value of a tensor, NaN if that is not finite."""
    exact = ir.node("Cast", [value], {"to": ir.DataType.FLOAT})
    size = ir.node("Abs", exact.outputs)
    largest = ir.node("ReduceMax", size.outputs, {"keepdims": 0})
    # A maximum may pass over NaN; an infinity less itself is one.
    zero = ir.node("Sub", [exact.outputs[0], exact.outputs[0]])
    zeros = ir.node("ReduceSum", zero.outputs, {"keepdims": 0})
    result = ir.node("Add", [largest.outputs[0], zeros.outputs[0]])
    graph.extend([exact, size, largest, zero, zeros, result])
    output = result.outputs[0]
    output.name = f"{_PREFIX}{value.name}"
    output.type = ir.TensorType(ir.DataType.FLOAT)
    output.shape = ir.Shape(())
    return output
