"""Small ONNX graphs, one for each way in which a layer can be written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (2, 4, 9, 8)
ROWS = (2, 5, 6)
_rng = np.random.default_rng(0)


def numbers(*shape: int, dtype: Any = np.float32) -> Any:
    return (_rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(dtype)


@dataclass
class Case:
    """A graph from ``x`` to ``y`` whose only layer, ``w``, may be rewritten.

    Attributes:
        nodes: its nodes.
        stored: its initializers.
        shape: of ``x``.
        sizes: what the file says of it; the same where it is None.
        opset: its operator set.
        ir: its format.
        as_inputs: initializers that are inputs as well.
    """

    nodes: Sequence[onnx.NodeProto]
    stored: Mapping[str, Any]
    shape: Sequence[int] = IMAGE
    sizes: Sequence[int | str] | None = None
    opset: int = 17
    ir: int = 8
    as_inputs: Sequence[str] = ()
    dtype: int = TensorProto.FLOAT
    functions: Sequence[onnx.FunctionProto] = ()

    def model(self) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", self.dtype, self.sizes or self.shape)]
        inputs += [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(self.stored[name].dtype),
                self.stored[name].shape,
            )
            for name in self.as_inputs
        ]  # fmt: skip
        graph = helper.make_graph(
            list(self.nodes),
            "author's graph",
            inputs,
            [helper.make_tensor_value_info("y", self.dtype, [None] * len(self.shape))],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
            doc_string="as the author wrote it",
        )
        imports = [helper.make_opsetid("", self.opset)]
        if self.functions:
            imports.append(helper.make_opsetid("local", 1))
        model = helper.make_model(
            graph, opset_imports=imports, ir_version=self.ir, functions=list(self.functions)
        )
        helper.set_model_props(model, {"author": "somebody"})
        return model

    def save(self, folder: Path) -> Path:
        path = folder / "net.onnx"
        onnx.save(self.model(), path)
        return path


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=f"author/{kind}", **attributes)


def conv(*shape: int, size: Sequence[int] = IMAGE, **attributes: Any) -> Case:
    return Case([node("Conv", "x", "w", **attributes)], {"w": numbers(*shape)}, size)


def transposed(*shape: int, size: Sequence[int] = IMAGE, **attributes: Any) -> Case:
    return Case([node("ConvTranspose", "x", "w", **attributes)], {"w": numbers(*shape)}, size)


def behind(kind: str, weight: Any, *more: Any, last: onnx.NodeProto, **attributes: Any) -> Case:
    """Return a graph whose weight lies behind a node."""
    names = [f"more{index}" for index in range(len(more))]
    first = node(kind, "stored", *names, output="w", **attributes)
    shape = ROWS if last.op_type != "Conv" else IMAGE
    return Case([first, last], {"stored": weight, **dict(zip(names, more, strict=True))}, shape)


def _constant() -> Case:
    value = numpy_helper.from_array(numbers(6, 4, 3, 3))
    return Case([node("Constant", output="w", value=value), node("Conv", "x", "w")], {})


def _normed(opset: int = 17) -> Case:
    norm = node("BatchNormalization", "c", "gamma", "beta", "mean", "var", epsilon=1e-3)
    stored = {
        "w": numbers(6, 4, 3, 3), "gamma": numbers(6), "beta": numbers(6), "mean": numbers(6),
        "var": np.square(numbers(6)) + np.float32(0.1),
    }  # fmt: skip
    return Case([node("Conv", "x", "w", output="c"), norm], stored, opset=opset)


def _old() -> Case:
    case = _normed(7)
    case.ir, case.as_inputs = 3, tuple(case.stored)
    return case


AXES = np.array([2, 3])
CASES: Mapping[str, Callable[[], Case]] = {
    "conv": lambda: conv(6, 4, 3, 3),
    "conv with bias": lambda: Case(
        [node("Conv", "x", "w", "b")], {"w": numbers(6, 4, 3, 3), "b": numbers(6)}
    ),
    "strides, dilations, pads": lambda: conv(
        6, 4, 3, 3, strides=[2, 1], dilations=[1, 2], pads=[1, 0, 2, 3]
    ),
    "groups": lambda: conv(6, 2, 3, 3, group=2),
    "same upper": lambda: conv(6, 4, 3, 2, auto_pad="SAME_UPPER", strides=[2, 3]),
    "same lower": lambda: conv(6, 4, 4, 2, auto_pad="SAME_LOWER"),
    "valid": lambda: conv(6, 4, 3, 3, auto_pad="VALID"),
    "1-D": lambda: conv(6, 4, 5, size=(2, 4, 20), pads=[1, 2], strides=[2]),
    "3-D": lambda: conv(6, 4, 3, 3, 3, size=(1, 4, 6, 6, 6), pads=[1, 1, 1, 0, 1, 1]),
    "transposed": lambda: transposed(4, 6, 3, 3),
    "transposed, strides, pads": lambda: transposed(
        4, 6, 3, 3, strides=[2, 3], pads=[1, 0, 0, 2], output_padding=[1, 2]
    ),
    "transposed, groups": lambda: transposed(4, 3, 3, 3, group=2, dilations=[2, 1]),
    "transposed, same upper": lambda: transposed(4, 6, 4, 3, strides=[2, 2], auto_pad="SAME_UPPER"),
    "transposed, output shape": lambda: transposed(
        4, 6, 3, 3, strides=[2, 2], output_shape=[18, 16]
    ),
    "transposed, 1-D": lambda: transposed(4, 6, 4, size=(2, 4, 10), strides=[2]),
    "product": lambda: Case([node("MatMul", "x", "w")], {"w": numbers(6, 8)}, ROWS),
    "Gemm": lambda: Case(
        [node("Gemm", "x", "w", "b", alpha=0.5, beta=2.0)],
        {"w": numbers(6, 8), "b": numbers(8)}, (3, 6),
    ),
    "Gemm, flipped, bias of one": lambda: Case(
        [node("Gemm", "x", "w", "b", transB=1)], {"w": numbers(8, 6), "b": numbers(1, 1)}, (3, 6)
    ),
    "Gemm without bias": lambda: Case([node("Gemm", "x", "w")], {"w": numbers(6, 8)}, (3, 6)),
    "constant": _constant,
    "behind Identity": lambda: behind("Identity", numbers(6, 4, 3, 3), last=node("Conv", "x", "w")),
    "behind Transpose": lambda: behind(
        "Transpose", numbers(3, 3, 4, 6), last=node("Conv", "x", "w"), perm=[3, 2, 0, 1]
    ),
    "behind Reshape": lambda: behind(
        "Reshape", numbers(6, 36), np.array([6, -1, 3, 3]), last=node("Conv", "x", "w")
    ),
    "behind Cast": lambda: behind(
        "Cast", numbers(6, 4, 3, 3, dtype=np.float64), last=node("Conv", "x", "w"), to=1
    ),
    "behind Squeeze": lambda: behind(
        "Squeeze", numbers(1, 6, 8), np.array([0]), last=node("MatMul", "x", "w")
    ),
    "behind Unsqueeze": lambda: behind(
        "Unsqueeze", numbers(6, 4), AXES, last=node("Conv", "x", "w")
    ),
    "norm behind": _normed,
    "norm behind, opset 9": lambda: _normed(9),
    "of 2018": _old,
}  # fmt: skip


def kept_cases() -> Mapping[str, tuple[Case, str]]:
    """Return graphs whose layer stays, and what is said of it."""
    w = numbers(6, 4, 3, 3)
    body = helper.make_graph(
        [node("Conv", "x", "w", output="inner")], "body", [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None] * 4)],
    )  # fmt: skip
    branches = Case(
        [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Greater", ["m", "zero"], ["c"]),
            helper.make_node("If", ["c"], ["y"], name="choice", then_branch=body, else_branch=body),
        ],
        {"w": w, "zero": np.float32(0)},
    )
    function = helper.make_function(
        "local", "Block", ["a"], ["b"],
        [
            node("Constant", output="w", value=numpy_helper.from_array(w)),
            node("Conv", "a", "w", output="b"),
        ],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    call = helper.make_node("Block", ["x"], ["y"], domain="local")
    quantized = Case(
        [node("DequantizeLinear", "q", "scale", output="w"), node("Conv", "x", "w")],
        {"q": np.ones((6, 4, 3, 3), np.int8), "scale": np.float32(0.1)},
    )
    return {
        "replaceable": (
            Case([node("Conv", "x", "w")], {"w": w}, as_inputs=["w"]),
            "may be replaced at run time",
        ),
        "computed": (
            Case([node("Mul", "w0", "x0", output="w"), node("Conv", "x", "w")],
                 {"w0": w, "x0": np.float32(2)}),
            "is computed while the network runs, by Mul",
        ),
        "in a branch": (branches, "stands inside a body of choice"),
        "in a function": (
            Case([call], {}, functions=[function]), "stands inside the function Block",
        ),
        "quantized": (quantized, "is quantized already"),
        "on the left": (
            Case([node("MatMul", "w", "x")], {"w": numbers(7, 5)}, ROWS), "stands on the left",
        ),
        "a batch of matrices": (
            Case([node("MatMul", "x", "w")], {"w": numbers(2, 6, 8)}, ROWS), "a batch of matrices",
        ),
        "used otherwise": (
            Case([node("MatMul", "x", "w", output="h"), node("Gather", "w", "i", output="e"),
                  node("Add", "h", "e")],
                 {"w": numbers(6, 8), "i": np.array([0])}, ROWS),
            "its weight is used elsewhere as well",
        ),
        "open size": (
            Case([node("ConvTranspose", "x", "w", output_shape=[20, 20], strides=[2, 2])],
                 {"w": numbers(4, 6, 3, 3)}, IMAGE),
            "its output is larger than what it computes",
        ),
    }  # fmt: skip
