"""Which nodes of an ONNX graph are linear layers, and what each computes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from trpexport.networks.onnx.constants import Constant, Constants, rearranges
from trpexport.networks.onnx.operators import OPERATORS, Operator, Read
from trpexport.onnxfile.graph import Graph
from trpexport.onnxfile.naming import module_name
from trpexport.ops import Call, Layer
from trpexport.tensors import Array, Shape

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


@dataclass(frozen=True, kw_only=True)
class OnnxLayer(Layer):
    """A layer, and the node that it is.

    Attributes:
        node: the node.
        weight: where its kernel comes from; None where that is no constant.
        read: how it reads its weight and its bias.
        place: name of the node whose body it stands in, or of the function; None in the main graph.
    """

    node: ir.Node
    weight: Constant | None
    read: Read
    place: str | None = None

    @property
    def data(self) -> ir.Value:
        """What the kernel is multiplied with."""
        value = self.node.inputs[self.read.data]
        assert value is not None
        return value

    @property
    def kernel(self) -> Array:
        """Its kernel (out_channels, in_channels / groups, *kernel), in the type of the file."""
        assert self.weight is not None
        return self.read.kernel(self.weight.numpy())

    @property
    def bias(self) -> Array | None:
        """Its bias (out_channels,), in the type of the file; None where it has none."""
        found = self.read.bias
        if found is None:
            return None
        values = found.numpy().reshape(-1) * np.asarray(self.read.bias_scale, found.dtype.numpy())
        return np.array(np.broadcast_to(values, (self.op.out_channels,)))


def linear_layers(
    model: ir.Model, graph: Graph | None = None, *, batch: int = 1
) -> tuple[OnnxLayer, ...]:
    """Return the linear layers of a network, in the order in which they run.

    Those inside the bodies of nodes and in functions are listed, to stay as they are. A product of
    two tensors that are both computed is no layer.

    Args:
        model: the network.
        graph: shapes of its tensors; None takes those that the file writes down.
        batch: images in the input that the shapes are for.
    """
    return _Finder(model, graph, batch).layers()


class _Finder:
    """Finds layers, and names each once."""

    def __init__(self, model: ir.Model, graph: Graph | None, batch: int) -> None:
        self._model = model
        self._graph = graph
        self._batch = batch
        self._constants = Constants(model)
        self._names: Counter[str] = Counter()

    def layers(self) -> tuple[OnnxLayer, ...]:
        """Return the layers."""
        found = []
        for index, (node, place) in enumerate(_nodes(self._model)):
            operator = OPERATORS.get((node.domain, node.op_type))
            layer = operator and self._layer(node, operator, place, f"{node.op_type}_{index}")
            if layer:
                found.append(layer)
        return tuple(_tied(found))

    def _layer(
        self, node: ir.Node, operator: Operator, place: str | None, fallback: str
    ) -> OnnxLayer | None:
        index = self._weight_index(node, operator)
        if index is None or len(node.inputs) <= index:
            return None
        value = node.inputs[index]
        assert value is not None
        weight = self._constants.find(value)
        kernel_shape = weight.shape if weight else self._shape(value)
        if kernel_shape is None:
            return None
        read = operator.read(node, index, kernel_shape, self._shape, self._constants)
        if read is None or not read.op.is_consistent:
            return None
        return OnnxLayer(
            name=self._name(node, index, operator, fallback),
            op=read.op,
            calls=self._calls(node, read),
            fixed=self._fixed(node, place, value, weight, read),
            node=node,
            weight=weight,
            read=read,
            place=place,
        )

    def _weight_index(self, node: ir.Node, operator: Operator) -> int | None:
        """Return which input is the weight: of a product, the one that the file stores."""
        if not operator.is_product:
            return operator.weight
        for index in (operator.weight, operator.data):
            value = node.inputs[index] if len(node.inputs) > index else None
            if value is None:
                return None
            if self._is_kept(value):
                return index
        return None

    def _is_kept(self, value: ir.Value) -> bool:
        """Whether the file stores what a value is made from."""
        origin = self._constants.origin(value)
        node = origin.producer()
        if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            origin = self._constants.origin(node.inputs[0])
            node = origin.producer()
        return origin.is_initializer() or (node is not None and node.op_type == "Constant")

    def _fixed(
        self, node: ir.Node, place: str | None, value: ir.Value, weight: Constant | None, read: Read
    ) -> str | None:
        """Say why nobody may rewrite a layer, or None."""
        if read.fixed is not None:
            return read.fixed
        if weight is None:
            return f"its weight {self._constants.why_not(value)}"
        if place is not None:
            return f"stands inside {place}, which is left as it is"
        if weight.dtype not in _FLOATS:
            return f"its weight is of type {weight.dtype.name.lower()}"
        return None

    def _name(self, node: ir.Node, index: int, operator: Operator, fallback: str) -> str:
        weight, data = node.inputs[index], node.inputs[operator.data]
        found = None
        for value in (weight, data):
            if value is not None and found is None and self._is_kept(value):
                found = module_name(self._origin_name(value))
        name = found or node.name or fallback
        if self._names[name] and node.name:
            name = node.name
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}#{self._names[name]}"

    def _origin_name(self, value: ir.Value) -> str:
        origin = self._constants.origin(value)
        node = origin.producer()
        if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
            origin = self._constants.origin(node.inputs[0])
        return origin.name or ""

    def _calls(self, node: ir.Node, read: Read) -> tuple[Call, ...]:
        data = node.inputs[read.data]
        shape = None if data is None else self._shape(data)
        ndim = read.op.ndim
        if shape is None or len(shape) < ndim + 1 or (ndim and len(shape) != ndim + 2):
            return ()
        places = prod(shape[: len(shape) - ndim - 1])
        return (Call(-(-places // self._batch), shape[len(shape) - ndim :]),)

    def _shape(self, value: ir.Value) -> Shape | None:
        if self._graph is not None:
            return self._graph.shape(value.name or "")
        if value.shape is None or not value.shape.is_static():
            return None
        return value.shape.numpy()


def _nodes(model: ir.Model) -> Iterator[tuple[ir.Node, str | None]]:
    """Yield all nodes in the order in which they stand, and the node or function around each."""
    yield from nodes_within(model.graph, None)
    for function in model.functions.values():
        yield from nodes_within(function, f"the function {function.name}")


def nodes_within(
    nodes: Iterable[ir.Node], place: str | None
) -> Iterator[tuple[ir.Node, str | None]]:
    """Yield nodes and those in their bodies, each with the node or the function around it."""
    for node in nodes:
        yield node, place
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            bodies: tuple[ir.Graph, ...] = ()
            if attribute.type == ir.AttributeType.GRAPH:
                bodies = (attribute.value,)
            elif attribute.type == ir.AttributeType.GRAPHS:
                bodies = tuple(attribute.value)
            for body in bodies:
                yield from nodes_within(body, place or f"a body of {node.name or node.op_type}")


def _tied(layers: list[OnnxLayer]) -> Iterator[OnnxLayer]:
    """Say of each layer whose weight it shares, and keep those whose weight is used otherwise."""
    first: dict[tuple[object, ...], str] = {}
    ways: dict[ir.Value, set[tuple[object, ...]]] = {}
    weight_slots = {(layer.node, layer.read.weight) for layer in layers if layer.weight is not None}
    keys: dict[str, tuple[object, ...]] = {}
    for layer in layers:
        if layer.weight is not None:
            key = keys[layer.name] = (*layer.weight.rearrangement, *layer.read.way)
            ways.setdefault(layer.weight.source, set()).add(key)
    for layer in layers:
        if layer.weight is None:
            yield layer
            continue
        source = layer.weight.source
        owner = first.setdefault((source, keys[layer.name]), layer.name)
        fixed = layer.fixed
        if fixed is None and (len(ways[source]) > 1 or _is_used_beside(source, weight_slots)):
            fixed = "its weight is used elsewhere as well, which a rewrite would not make smaller"
        yield replace(layer, shares=None if owner == layer.name else owner, fixed=fixed)


def _is_used_beside(value: ir.Value, weight_slots: set[tuple[ir.Node, int]]) -> bool:
    """Whether a stored value goes elsewhere than to the weights of layers."""
    if value.is_graph_output():
        return True
    for node, index in value.uses():
        if index == 0 and rearranges(node):
            if _is_used_beside(node.outputs[0], weight_slots):
                return True
        elif (node, index) not in weight_slots:
            return True
    return False
