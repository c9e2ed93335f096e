"""The graph that ONNX Runtime made of a file, and which of its nodes a trace speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trpexport.measure.profile.profile import NodeTime
from trpexport.tensors import Shape

# Fused convolutions, in the usual layout and in the blocked one, add their fourth input.
_WITH_SUM = frozenset({"FusedConv", "Conv"})


@dataclass(frozen=True)
class OptimizedNode:
    """A node of an optimized graph.

    Attributes:
        name: its name; may be empty.
        operator: its operator, without the domain.
        inputs: names of its input tensors, empty where one is left out.
        outputs: names of its output tensors.
        activation: operator of the activation that was fused in; None if there is none.
        weight_shape: shape of its second input; None if that is no constant.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str | None
    weight_shape: Shape | None

    @property
    def computes(self) -> str:
        """The operators of the file that it stands for, as far as they show: ``Conv+Add+Relu``."""
        has_sum = self.operator in _WITH_SUM and any(self.inputs[3:4])
        parts = [self.operator.removeprefix("Fused"), *["Add"] * has_sum, self.activation]
        return "+".join(part for part in parts if part)


def read_optimized(content: bytes) -> tuple[OptimizedNode, ...]:
    """Read an optimized graph that ONNX Runtime has written; weights in other files stay there."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return tuple(
        OptimizedNode(
            name=node.name,
            operator=node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            activation=next((a.s.decode() for a in node.attribute if a.name == "activation"), None),
            weight_shape=constants.get(node.input[1]) if len(node.input) > 1 else None,
        )
        for node in graph.node
    )


def link(
    times: Sequence[NodeTime], nodes: Sequence[OptimizedNode]
) -> tuple[OptimizedNode | None, ...]:
    """Return the node of the optimized graph for each node of a trace; None where there is none.

    A trace calls a node without a name ``<operator>_<index>``, an index that the graph as written
    does not tell: such nodes are taken in order, among those with the same operator and weight.
    """
    free = list(nodes)
    linked: list[OptimizedNode | None] = []
    for time in times:
        same = [node for node in free if node.operator == time.operator]
        unnamed = [node for node in same if not node.name and _has_weight(time, node)]
        node = next((node for node in same if node.name == time.name), None)
        node = node or next(iter(unnamed), None)
        if node is not None:
            free.remove(node)
        linked.append(node)
    return tuple(linked)


def _has_weight(time: NodeTime, node: OptimizedNode) -> bool:
    return node.weight_shape is None or node.weight_shape in time.input_shapes
