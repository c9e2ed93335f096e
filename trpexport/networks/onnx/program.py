"""An ONNX graph as steps that PyTorch runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.networks.onnx.interpreter import OPERATORS
from trpexport.networks.onnx.interpreter.registry import Use, torch_type
from trpexport.networks.onnx.steps import Program, Step

# More functions in functions than this are a circle.
_MAX_DEPTH = 64


@dataclass(frozen=True)
class Compiled:
    """A whole graph.

    Attributes:
        steps: what is run; what follows from constants alone was computed before.
        constants: values that are known, by number.
        inputs: numbers of its inputs, by name.
        outputs: numbers of its outputs, by name.
    """

    steps: tuple[Step, ...]
    constants: Mapping[int, Tensor]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def compiled(
    model: ir.Model,
    layers: Mapping[ir.Node, tuple[int, ir.Value]],
    *,
    loosened: int | None = None,
) -> Compiled:
    """Return a network as steps.

    Args:
        model: the network.
        layers: nodes that are layers: the number of each, and which value it is applied to.
        loosened: a batch size that exporters wrote into shapes: what is reshaped to so many rows
            keeps the rows that it has.

    Raises:
        ModelError: an operator of it is not known, or a constant can't be computed.
    """
    return _Compiler(model, layers, loosened).compiled()


class _Scope:
    """Which number each value has, within a graph or one call of a function.

    Args:
        opsets: versions of operators.
        attributes: what attributes of a function's call are.
        around: the scope that this one stands in.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        attributes: Mapping[str, ir.Attr] | None = None,
        around: _Scope | None = None,
    ) -> None:
        self.opsets = opsets
        self.attributes = attributes or {}
        self.around = around
        self.slots: dict[ir.Value, int | None] = {}

    def find(self, value: ir.Value) -> tuple[bool, int | None]:
        """Return whether a value has been seen, and its number."""
        scope: _Scope | None = self
        while scope is not None:
            if value in scope.slots:
                return True, scope.slots[value]
            scope = scope.around
        return False, None


class _Compiler:
    """Goes through a graph in its order."""

    def __init__(
        self,
        model: ir.Model,
        layers: Mapping[ir.Node, tuple[int, ir.Value]],
        loosened: int | None,
    ) -> None:
        self._model = model
        self._layers = layers
        self._loosened = loosened
        self._constants: dict[int, Tensor] = {}
        self._count = 0
        self._depth = 0

    def compiled(self) -> Compiled:
        """Return the steps."""
        graph = self._model.graph
        scope = _Scope(graph.opset_imports)
        inputs = {}
        for value in graph.inputs:
            if not value.is_initializer():
                inputs[value.name or ""] = scope.slots[value] = self._new()
        wanted = self._wanted(graph)
        steps = []
        for step in self._steps((node for node in graph if node in wanted), scope):
            if step.layer is None and all(slot in self._constants for slot in step.reads):
                step.run(self._constants, torch.float32, ())
            else:
                steps.append(step)
        outputs = {value.name or "": self._slot(value, scope) for value in graph.outputs}
        kept = tuple(_freeing(steps, set(outputs.values()) | self._constants.keys()))
        read = set(outputs.values()).union(*(step.reads for step in kept))
        constants = {slot: value for slot, value in self._constants.items() if slot in read}
        return Compiled(kept, constants, inputs, outputs)

    def _wanted(self, graph: ir.Graph) -> set[ir.Node]:
        """Return the nodes that an output follows from; a layer follows from its data alone."""
        found: set[ir.Node] = set()
        values = list(graph.outputs)
        while values:
            node = values.pop().producer()
            if node is None or node in found:
                continue
            found.add(node)
            if node in self._layers:
                values.append(self._layers[node][1])
                continue
            values.extend(value for value in node.inputs if value is not None)
            for body in _bodies(node):
                for inner in ir.traversal.RecursiveGraphIterator(body):
                    values.extend(value for value in inner.inputs if value is not None)
                values.extend(body.outputs)
        return found

    def _steps(self, nodes: Iterator[ir.Node], scope: _Scope) -> Iterator[Step]:
        for node in nodes:
            function = self._model.functions.get(node.op_identifier())
            if function is not None and (node.domain, node.op_type) not in OPERATORS:
                yield from self._call(node, function, scope)
            else:
                yield self._step(node, scope)

    def _step(self, node: ir.Node, scope: _Scope) -> Step:
        label = f"the node {node.name or '?'} ({node.op_type})"
        layer, data = self._layers.get(node, (None, None))
        operator = OPERATORS.get((node.domain, node.op_type))
        if layer is None and operator is None:
            raise ModelError(f"{label} can't be computed in PyTorch: its operator is not known")
        inputs = node.inputs if data is None else (data,)
        taken = tuple(None if value is None else self._slot(value, scope) for value in inputs)
        while taken and taken[-1] is None:
            taken = taken[:-1]
        attributes, bodies = {}, {}
        for name, attribute in self._attributes(node, scope).items():
            if layer is not None:
                break
            if attribute.type == ir.AttributeType.GRAPH:
                bodies[name] = self._body(attribute.value, scope)
            else:
                attributes[name] = _plain(attribute, label)
        outputs = []
        for value in node.outputs:
            scope.slots[value] = slot = self._new() if value.name else None
            outputs.append(slot)
        if self._loosened is not None and (node.domain, node.op_type) == ("", "Reshape"):
            taken = (taken[0], self._loose(taken[1], attributes))
        use = Use(attributes, scope.opsets.get(node.domain, 1), len(outputs))
        return Step(label, operator, use, layer, taken, tuple(outputs), bodies)

    def _loose(self, slot: int | None, attributes: dict[str, Any]) -> int | None:
        """Return sizes to reshape to, of which the first is that of the input if it was a batch."""
        sizes = None if slot is None else self._constants.get(slot)
        if sizes is None or len(sizes) < 2 or int(sizes[0]) != self._loosened:
            return slot
        if attributes.get("allowzero", 0) and not sizes.all():
            return slot
        attributes["allowzero"] = 0
        sizes = sizes.clone()
        sizes[0] = 0
        slot = self._new()
        self._constants[slot] = sizes
        return slot

    def _attributes(self, node: ir.Node, scope: _Scope) -> dict[str, ir.Attr]:
        """Return a node's attributes; those that refer to a function's own are these."""
        found = {}
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                given = scope.attributes.get(attribute.ref_attr_name or "")
                if given is not None:
                    found[name] = given
            else:
                found[name] = attribute
        return found

    def _body(self, graph: ir.Graph, around: _Scope) -> Program:
        scope = _Scope(around.opsets, around.attributes, around)
        inputs = []
        for value in graph.inputs:
            scope.slots[value] = slot = self._new()
            inputs.append(slot)
        steps = tuple(self._steps(iter(graph), scope))
        outputs = tuple(self._slot(value, scope) for value in graph.outputs)
        return Program(steps, tuple(inputs), outputs)

    def _call(self, node: ir.Node, function: ir.Function, around: _Scope) -> Iterator[Step]:
        """Yield what a function does in the place where it is called."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ModelError(f"the function {function.name} calls itself")
        defaults = {name: a for name, a in function.attributes.items() if a.value is not None}
        scope = _Scope(function.opset_imports, {**defaults, **self._attributes(node, around)})
        for index, value in enumerate(function.inputs):
            given = node.inputs[index] if index < len(node.inputs) else None
            scope.slots[value] = None if given is None else self._slot(given, around)
        yield from self._steps(iter(function), scope)
        for value, inner in zip(node.outputs, function.outputs, strict=False):
            around.slots[value] = self._slot(inner, scope)
        self._depth -= 1

    def _slot(self, value: ir.Value, scope: _Scope) -> Any:
        """Return the number of a value; a stored one gets it when it is first asked for."""
        is_known, slot = scope.find(value)
        if is_known:
            return slot
        tensor = value.const_value if value.is_initializer() else None
        if tensor is None:
            raise ModelError(f"the network reads {value.name or 'a value'}, which nothing gives")
        while scope.around is not None:
            scope = scope.around
        scope.slots[value] = slot = self._new()
        self._constants[slot] = tensor_of(tensor, value.name or "a constant")
        return slot

    def _new(self) -> int:
        self._count += 1
        return self._count


def tensor_of(stored: ir.TensorProtocol, label: str) -> Tensor:
    """Return a stored tensor in the type that is computed in.

    Raises:
        ModelError: its type is not computed with, or it is damaged.
    """
    kind = torch_type(stored.dtype)
    try:
        array = stored.numpy()
        values = array if array.dtype.kind in "bi" else array.astype(_numpy(kind))
        return torch.from_numpy(np.array(values)).to(kind)
    except Exception as error:  # numpy's, the system's or onnx_ir's, for each way to be cut
        raise ModelError(
            f"{label} is damaged ({first_line(error)}): copy the file again"
        ) from error


def _numpy(kind: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(kind).removeprefix("torch."))


def _plain(attribute: ir.Attr, label: str) -> Any:
    """Return an attribute as a plain value."""
    if attribute.type == ir.AttributeType.TENSOR:
        return tensor_of(attribute.value, label)
    if attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
        return list(attribute.value)
    return attribute.value


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.value


def _freeing(steps: Sequence[Step], kept: Collection[int]) -> Iterator[Step]:
    """Yield steps that take values away which nothing reads after them."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        for slot in (*step.reads, *filter(None, step.outputs)):
            last[slot] = index
    for index, step in enumerate(steps):
        here = (*step.reads, *filter(None, step.outputs))
        freed = {slot for slot in here if last[slot] == index and slot not in kept}
        yield replace(step, freed=tuple(freed))
