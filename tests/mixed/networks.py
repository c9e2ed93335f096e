"""A machine on which conversions between precisions take their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tests.latency.networks import FakeStopwatch


class Converting(FakeStopwatch):
    """A machine on which each conversion between float32 and int8 takes a time of its own.

    Args:
        conversion: seconds of one, of a tensor of any size.
        int8: as of :class:`FakeStopwatch`.
    """

    def __init__(self, conversion: float = 0.0, int8: Any = 1.0, **how: Any) -> None:
        super().__init__(**how)
        self.conversion = conversion
        self.int8 = int8

    def _times(self, file: Path) -> dict[str, float]:
        times = super()._times(file)
        for name in conversions(file):
            times[name] += self.conversion
        return times


def conversions(file: Path) -> list[str]:
    """Return the nodes of a file that convert a tensor between layers of two precisions.

    Those between two layers in int8 are fused with these.
    """
    graph = onnx.load(file).graph
    stored = {tensor.name for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}

    def is_int8(node: Any) -> bool:
        """Whether a layer is in int8, by its weight; what is no layer never is."""
        if node is not None and node.op_type == "Relu":
            node = maker.get(node.input[0])
        weight = maker.get(node.input[1]) if node is not None and len(node.input) > 1 else None
        return weight is not None and weight.op_type == "DequantizeLinear"

    found = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and not is_int8(maker.get(node.input[0])):
            found.append(node.name)
        if node.op_type == "DequantizeLinear" and node.input[0] not in stored:
            behind = [one for one in graph.node if node.output[0] in one.input]
            if not all(map(is_int8, behind)) or not behind:
                found.append(node.name)
    return found
