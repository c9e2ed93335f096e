"""What tells the time of a layer: what it computes, and what stands around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from trpexport.networks.onnx.layers import OnnxLayer

_STEPS = 2  # a convolution, an activation, and what decides on the layout behind it


def signature(nodes: Sequence[OnnxLayer]) -> str:
    """Return what layers of the same time have in common, for tables that networks share.

    The operator with its sizes and type, what gives its input, and what follows: layout changes
    and fusion hang on these.

    Args:
        nodes: those that one layer became.
    """
    return " + ".join(map(_signature, nodes))


def _signature(layer: OnnxLayer) -> str:
    window = layer.op.window
    facts = [
        layer.node.op_type,
        str(layer.op),
        f"pads {window.pads}",
        f"at {[(call.places, call.size) for call in layer.calls]}",
        "" if layer.weight is None else layer.weight.dtype.name.lower(),
        "after " + " ".join(_before(layer.data, _STEPS)),
        "before " + " ".join(_behind(layer.node, _STEPS)),
    ]
    return ", ".join(fact for fact in facts if fact)


def _before(value: ir.Value | None, steps: int) -> Iterator[str]:
    node = None if value is None else value.producer()
    if node is None:
        yield "input"
        return
    yield node.op_type
    if steps > 1 and node.inputs:
        yield from _before(node.inputs[0], steps - 1)


def _behind(node: ir.Node, steps: int) -> Iterator[str]:
    for user, _ in sorted(node.outputs[0].uses(), key=lambda use: use[0].op_type):
        yield user.op_type
        if steps > 1 and user.outputs:
            yield from _behind(user, steps - 1)
    if node.outputs[0].is_graph_output():
        yield "output"
