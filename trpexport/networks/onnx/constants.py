"""Tensors of a graph that are known before it runs, behind whatever only rearranges them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.tensors import Array, Shape

# From here on an initializer that is an input as well is its default; before, each had to be one.
_DEFAULTS_SINCE_IR = 4


@dataclass(frozen=True)
class Constant:
    """A stored tensor, as the graph uses it.

    Attributes:
        source: the value that is stored; its name is what the author knows it by.
        tensor: what is stored under it.
        nodes: what rearranges it, in the order in which they run.
    """

    source: ir.Value
    tensor: ir.TensorProtocol
    nodes: tuple[ir.Node, ...] = ()

    @property
    def shape(self) -> Shape:
        """Shape of what the graph uses; the stored numbers are not read."""
        array = np.broadcast_to(np.zeros(()), self.tensor.shape.numpy())
        for node in self.nodes:
            if node.op_type != "Cast":
                array = _REARRANGING[node.op_type](array, node)
        return tuple(array.shape)

    @property
    def dtype(self) -> ir.DataType:
        """Element type of what the graph uses."""
        casts = [node for node in self.nodes if node.op_type == "Cast"]
        return ir.DataType(_attribute(casts[-1], "to", 1)) if casts else self.tensor.dtype

    @property
    def rearrangement(self) -> tuple[str, ...]:
        """What tells how the stored tensor is used from other ways to use it."""
        return tuple(
            f"{node.op_type}{sorted((a.name, str(a.value)) for a in node.attributes.values())}"
            f"{[numbers(value) for value in node.inputs[1:]]}"
            for node in self.nodes
            if node.op_type != "Identity"
        )

    def numpy(self) -> Array:
        """Return what the graph uses.

        Raises:
            ModelError: what is stored is damaged.
        """
        try:
            array: Array = self.tensor.numpy()
        except MemoryError:
            raise
        except Exception as error:  # numpy's, the system's or onnx_ir's, for each way to be cut
            raise ModelError(
                f"the tensor {self.source.name} is damaged ({first_line(error)}): copy the file, "
                "and those that its weights lie in, again"
            ) from error
        for node in self.nodes:
            array = _REARRANGING[node.op_type](array, node)
        return array


class Constants:
    """Tells which values of a network are constants, and why others are not."""

    def __init__(self, model: ir.Model) -> None:
        self._have_defaults = (model.ir_version or 0) >= _DEFAULTS_SINCE_IR

    def find(self, value: ir.Value | None) -> Constant | None:
        """Return the constant that a value is, or None."""
        nodes: list[ir.Node] = []
        while value is not None:
            tensor = self._stored(value)
            if tensor is not None:
                found = Constant(value, tensor, tuple(reversed(nodes)))
                return found if _is_sound(found) else None
            node = value.producer()
            if node is None or not rearranges(node):
                return None
            nodes.append(node)
            value = node.inputs[0]
        return None

    def origin(self, value: ir.Value) -> ir.Value:
        """Return what a value is made from by rearranging alone."""
        while (node := value.producer()) is not None and rearranges(node):
            if node.inputs[0] is None:
                break
            value = node.inputs[0]
        return value

    def why_not(self, value: ir.Value) -> str:
        """Say why a value is no constant, as of a layer's weight."""
        origin = self.origin(value)
        node = origin.producer()
        if node is not None and node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
            return "is quantized already"
        if node is not None and self._stored(origin) is None:
            return f"is computed while the network runs, by {node.op_type}"
        if origin.is_graph_input():
            may = " and may be replaced at run time" if origin.is_initializer() else ""
            return f"is an input of the network{may}"
        if self._stored(origin) is not None:
            return "is stored in another shape than the graph asks for"
        return "is not in the file"

    def _stored(self, value: ir.Value) -> ir.TensorProtocol | None:
        if value.is_initializer():
            is_default = value.is_graph_input() and self._have_defaults
            return None if is_default else value.const_value
        node = value.producer()
        if node is None or node.op_type != "Constant" or node.domain:
            return None
        attribute = node.attributes.get("value")
        if attribute is None or attribute.type != ir.AttributeType.TENSOR or attribute.is_ref():
            return None
        tensor: ir.TensorProtocol = attribute.value
        return tensor


def rearranges(node: ir.Node) -> bool:
    """Whether a node only rearranges its first input, by numbers that are in the file."""
    if node.domain or node.op_type not in _REARRANGING or not node.inputs:
        return False
    return all(numbers(value) is not None for value in node.inputs[1:])


def numbers(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the whole numbers that a stored value holds; () where it is left out, else None."""
    if value is None:
        return ()
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype not in {ir.DataType.INT64, ir.DataType.INT32}:
        return None
    return tuple(int(number) for number in tensor.numpy().reshape(-1))


def _is_sound(constant: Constant) -> bool:
    """Whether the stored tensor can be used as the graph says."""
    try:
        return all(size >= 0 for size in constant.shape)
    except (ValueError, IndexError, TypeError, KeyError):
        return False


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value


def _axes(node: ir.Node) -> Sequence[int]:
    """Return the axes of Squeeze or Unsqueeze: an input since opset 13."""
    given = numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    return given or tuple(_attribute(node, "axes", ()))


def _reshape(array: Array, node: ir.Node) -> Array:
    sizes = numbers(node.inputs[1]) or ()
    if not _attribute(node, "allowzero", 0):
        sizes = tuple(size or array.shape[axis] for axis, size in enumerate(sizes))
    return array.reshape(sizes)


def _squeeze(array: Array, node: ir.Node) -> Array:
    return array.squeeze(tuple(_axes(node)) or None)


def _flatten(array: Array, node: ir.Node) -> Array:
    axis = _attribute(node, "axis", 1)
    rows = int(np.prod(array.shape[:axis], dtype=np.int64))
    return array.reshape(rows, array.size // rows if rows else 0)


_REARRANGING: Mapping[str, Callable[[Array, ir.Node], Array]] = {
    "Cast": lambda array, node: array.astype(ir.DataType(_attribute(node, "to", 1)).numpy()),
    "Flatten": _flatten,
    "Identity": lambda array, _: array,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": lambda array, node: array.transpose(_attribute(node, "perm", None)),
    "Unsqueeze": lambda array, node: np.expand_dims(array, tuple(_axes(node))),
}
