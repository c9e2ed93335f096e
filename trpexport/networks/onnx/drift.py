"""Where one ONNX graph begins to differ from another one of the same names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.saving import open_model
from trpexport.tensors import Array, Arrays


def first_difference(
    reference: ir.Model,
    candidate: ir.Model,
    layers: Sequence[OnnxLayer],
    feeds: Arrays,
    tolerance: float,
) -> str | None:
    """Return the first layer behind which two graphs of one file differ, or None.

    A batch norm that was folded took the place of its layer's output: what it puts out is compared.

    Args:
        reference: a graph.
        candidate: another one.
        layers: the layers of the file that both come from.
        feeds: inputs by name.
        tolerance: largest relative RMS difference that is no drift.
    """
    ours, theirs = _values(reference), _values(candidate)
    places: dict[str, str] = {}
    for layer in layers:
        value = layer.node.outputs[0]
        uses = [use.node.outputs[0] for use in value.uses()]
        for name in (value.name, *(behind.name for behind in uses)):
            if name is not None and name in ours and name in theirs:
                places[name] = layer.name
                break
    expected, actual = (
        _run(model, [values[name] for name in places], feeds)
        for model, values in ((reference, ours), (candidate, theirs))
    )
    for name, layer_name in places.items():
        if not _difference(expected[name], actual[name]) <= tolerance:
            return layer_name
    return None


def _values(model: ir.Model) -> dict[str | None, ir.Value]:
    return {value.name: value for node in model.graph for value in node.outputs}


def _run(model: ir.Model, values: Sequence[ir.Value], feeds: Arrays) -> Arrays:
    session = open_model(model, values)
    return session.run(session.named(feeds))


def _difference(expected: Array, actual: Array) -> float:
    """Return the RMS difference over the RMS of what is expected."""
    if expected.shape != actual.shape:
        return float("inf")
    reference = expected.astype(np.float64)
    squares = float(np.mean(np.square(actual - reference)))
    scale = float(np.mean(np.square(reference)))
    return 0.0 if squares == 0 else float(np.sqrt(squares / scale)) if scale else float("inf")
