"""The registry of operators, and what one is told of its use in a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import onnx_ir as ir
import torch
from torch import Tensor

from trpexport.errors import ModelError

MICROSOFT = "com.microsoft"
Function = Callable[..., Any]
_F = TypeVar("_F", bound=Function)
_T = TypeVar("_T")

# Unsigned types of which PyTorch computes little are held in wider ones.
_TYPES: Mapping[ir.DataType, torch.dtype] = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.int32,
    ir.DataType.UINT32: torch.int64,
    ir.DataType.UINT64: torch.int64,
}
_COMPUTED = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


@dataclass(frozen=True)
class Use:
    """One use of an operator.

    Attributes:
        attributes: its attributes that are set, as plain values; tensors as tensors.
        opset: version of the operator's domain in the file.
        outputs: how many outputs it has.
        floating: the type that is computed in: for single precision and for half.
    """

    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1
    floating: torch.dtype = torch.float32

    @overload
    def get(self, name: str) -> Any: ...
    @overload
    def get(self, name: str, default: _T) -> _T: ...
    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or what it is where it is left out."""
        return self.attributes.get(name, default)

    def dtype(self, code: int) -> torch.dtype:
        """Return the type that is computed in for one of ONNX's."""
        return torch_type(ir.DataType(code), self.floating)


def torch_type(kind: ir.DataType, floating: torch.dtype = torch.float32) -> torch.dtype:
    """Return the type that is computed in for one of ONNX's.

    Raises:
        ModelError: there is none.
    """
    if kind in _COMPUTED:
        return floating
    if kind not in _TYPES:
        raise ModelError(f"numbers of type {kind.name.lower()} are not computed with in PyTorch")
    return _TYPES[kind]


@dataclass(frozen=True)
class Operator:
    """An operator.

    Attributes:
        run: computes its outputs: one, or a tuple of them, from a :class:`Use` and its inputs, None
            where one is left out.
        numbers: which inputs are read as plain numbers: they need not be where the others are.
    """

    run: Function
    numbers: tuple[int, ...] = ()


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(*names: str, domain: str = "", numbers: tuple[int, ...] = ()) -> Callable[[_F], _F]:
    """Register a function as what operators compute."""

    def register(function: _F) -> _F:
        for name in names:
            OPERATORS[domain, name] = Operator(function, numbers)
        return function

    return register


def unknown_operators(model: ir.Model) -> Counter[str]:
    """Return the operators of a network that are not known, and how often it uses each.

    What stands in functions counts where it is used by none as well.
    """
    functions = {(function.domain, function.name) for function in model.functions.values()}
    found: Counter[str] = Counter()
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            name = (node.domain, node.op_type)
            if name not in OPERATORS and name not in functions:
                found[f"{node.domain}.{node.op_type}".lstrip(".")] += 1
    return found


def integers(tensor: Tensor) -> list[int]:
    """Read a tensor as whole numbers, flattened.

    One after the other, as ``tolist`` does not go through PyTorch's dispatcher: whoever follows
    which values Python decides by would not be told.
    """
    return [int(number) for number in tensor.reshape(-1)]


def floats(tensor: Tensor) -> list[float]:
    """Read a tensor as numbers, flattened."""
    return [float(number) for number in tensor.reshape(-1)]


def axes_of(use: Use, given: Tensor | None, since: int) -> list[int] | None:
    """Return the axes of an operator: an input since some opset, an attribute before.

    None where they are left out.
    """
    if use.opset >= since:
        return None if given is None else integers(given)
    found = use.get("axes")
    return None if found is None else [int(axis) for axis in found]
