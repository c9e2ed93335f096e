"""How each of ONNX's linear operators is to be read: what it computes, from which kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from trpexport.networks.onnx.constants import Constant, Constants
from trpexport.networks.onnx.windows import convolution_window, transposed_window
from trpexport.ops import LinearOp
from trpexport.tensors import Array, Shape

ShapeOf = Callable[[ir.Value], Shape | None]
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Read:
    """What a node computes.

    Attributes:
        op: the operator.
        data: index of the input that is the data.
        weight: index of the input that is the weight.
        kernel: makes (out_channels, in_channels / groups, *kernel) of the weight.
        way: what tells one way to read a weight from another.
        bias: where the bias comes from, or None.
        bias_scale: what it is multiplied with.
        fixed: why the node can't be rewritten, or None.
    """

    op: LinearOp
    data: int
    weight: int
    kernel: Callable[[Array], Array]
    way: tuple[object, ...] = ()
    bias: Constant | None = None
    bias_scale: float = 1.0
    fixed: str | None = None


Reader = Callable[[ir.Node, int, Shape, ShapeOf, Constants], Read | None]


@dataclass(frozen=True)
class Operator:
    """A linear operator of ONNX.

    Attributes:
        read: reads a node; None where its weight does not fit it.
        data: index of the input that is the data.
        weight: index of the input that is the weight.
        is_product: whether the two inputs may change places, so that the stored one is the weight.
    """

    read: Reader
    data: int = 0
    weight: int = 1
    is_product: bool = False


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Return the value of an attribute, or what it is where it is left out."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.value


def transposed_kernel(weight: Array, groups: int) -> Array:
    """Return the kernel (out, in / groups, *kernel) of a weight (in, out / groups, *kernel).

    It is its own inverse, with the two changed places.
    """
    by_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    swapped = by_group.swapaxes(1, 2)
    return swapped.reshape(-1, *swapped.shape[2:])


def _conv(
    node: ir.Node, index: int, shape: Shape, shape_of: ShapeOf, constants: Constants
) -> Read | None:
    groups = int(attribute(node, "group", 1))
    if len(shape) < 3 or groups < 1:
        return None
    size = _size(node, 0, shape, shape_of)
    window, fixed = convolution_window(node, shape[2:], size)
    bias, why = _bias(node, 2, constants, shape[0]) if node.op_type == "Conv" else (None, None)
    op = LinearOp(shape[1] * groups, shape[0], groups, bias is not None, window)
    return Read(op, 0, index, lambda weight: weight, (), bias, fixed=fixed or why)


def _conv_transpose(
    node: ir.Node, index: int, shape: Shape, shape_of: ShapeOf, constants: Constants
) -> Read | None:
    groups = int(attribute(node, "group", 1))
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    size = _size(node, 0, shape, shape_of)
    window, fixed = transposed_window(node, shape[2:], size)
    bias, why = _bias(node, 2, constants, shape[1] * groups)
    op = LinearOp(shape[0], shape[1] * groups, groups, bias is not None, window)
    way = ("transposed", groups)
    return Read(op, 0, index, lambda w: transposed_kernel(w, groups), way, bias, fixed=fixed or why)


def _gemm(
    node: ir.Node, index: int, shape: Shape, shape_of: ShapeOf, constants: Constants
) -> Read | None:
    if len(shape) != 2:
        return None
    is_flipped = bool(attribute(node, "transB" if index else "transA", 0)) is bool(index)
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    out, inside = shape if is_flipped else shape[::-1]
    fixed = None if index else "its weight stands on the left of the product"
    if attribute(node, "transA", 0) and index:
        fixed = "it multiplies the columns of its input"
    bias, why = _bias(node, 2, constants, out)

    def kernel(weight: Array) -> Array:
        matrix = weight if is_flipped else weight.T
        return matrix if alpha == 1.0 else matrix * np.asarray(alpha, matrix.dtype)

    op = LinearOp(inside, out, bias=bias is not None)
    return Read(op, 1 - index, index, kernel, (is_flipped, alpha), bias, beta, fixed or why)


def _matmul(
    node: ir.Node, index: int, shape: Shape, shape_of: ShapeOf, constants: Constants
) -> Read | None:
    if len(shape) < 2:
        return None
    inside, out = shape[-2:] if index else shape[:-3:-1]
    fixed = None if index else "its weight stands on the left of the product"
    if len(shape) > 2:
        fixed = "its weight is a batch of matrices"
    op = LinearOp(inside, out)
    return Read(op, 1 - index, index, lambda weight: weight.T, ("product",), fixed=fixed)


def _quantized(reader: Reader) -> Reader:
    """Return a reader of an operator that computes in whole numbers."""
    return _kept(reader, "is quantized already")


def _fused(reader: Reader) -> Reader:
    """Return a reader of an operator that ONNX Runtime makes when it optimizes a file."""
    return _kept(reader, "was fused by ONNX Runtime: take the file from before that")


def _kept(reader: Reader, reason: str) -> Reader:
    def read(
        node: ir.Node, index: int, shape: Shape, shape_of: ShapeOf, constants: Constants
    ) -> Read | None:
        found = reader(node, index, shape, shape_of, constants)
        if found is None:
            return None
        return Read(found.op, found.data, found.weight, found.kernel, found.way, fixed=reason)

    return read


def _bias(
    node: ir.Node, index: int, constants: Constants, out: int
) -> tuple[Constant | None, str | None]:
    """Return where a node's bias comes from, and why the node can't be rewritten, if it is none."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return None, None
    found = constants.find(value)
    if found is None:
        return None, f"its bias {constants.why_not(value)}"
    if not _is_vector(found.shape, out):
        return None, f"its bias is not one number for each of {out} outputs"
    return found, None


def _is_vector(shape: Shape, out: int) -> bool:
    """Whether a bias has one number an output, the same for all rows."""
    count = int(np.prod(shape, dtype=np.int64))
    return count == 1 or (count == out and shape[-1] == out)


def _size(node: ir.Node, index: int, weight: Shape, shape_of: ShapeOf) -> Shape | None:
    """Return the spatial size of a convolution's input, or None where it is not known."""
    value = node.inputs[index]
    shape = None if value is None else shape_of(value)
    return shape[2:] if shape is not None and len(shape) == len(weight) else None


OPERATORS: Mapping[tuple[str, str], Operator] = {
    ("", "Conv"): Operator(_conv),
    ("", "ConvTranspose"): Operator(_conv_transpose),
    ("", "Gemm"): Operator(_gemm, is_product=True),
    ("", "MatMul"): Operator(_matmul, is_product=True),
    ("", "ConvInteger"): Operator(_quantized(_conv)),
    ("", "MatMulInteger"): Operator(_quantized(_matmul)),
    ("", "QLinearConv"): Operator(_quantized(_conv), weight=3),
    ("", "QLinearMatMul"): Operator(_quantized(_matmul), weight=3),
    (_MICROSOFT, "FusedConv"): Operator(_fused(_conv)),
    (_MICROSOFT, "FusedGemm"): Operator(_fused(_gemm)),
    (_MICROSOFT, "FusedMatMul"): Operator(_fused(_matmul)),
}
