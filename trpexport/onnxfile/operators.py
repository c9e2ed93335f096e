"""How ONNX operators count: which multiply and add, and which are left out by convention.

An operator is (domain, name); the domain of ONNX itself is ``""``. Whatever is in neither
:data:`COUNTED` nor :data:`LEFT_OUT` is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, prod
from typing import Any

from trpexport.onnxfile.einsum import einsum_macs
from trpexport.tensors import Shape

Operator = tuple[str, str]
Attributes = Mapping[str, Any]
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Counted:
    """An operator that multiplies and adds.

    Attributes:
        macs: MACs from the shapes of data, weight and output, and the attributes.
        data: index of the input that is the data.
        weight: index of the input that is the weight.
        parameters: indices of all inputs that are parameters where they are constant.
        most_inputs: with how many inputs it is counted.
    """

    macs: Callable[[Shape, Shape, Shape, Attributes], int]
    data: int = 0
    weight: int = 1
    parameters: tuple[int, ...] = (1, 2)
    most_inputs: float = inf


def _conv(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    # weight: out_channels x in_channels/groups x kernel
    return prod(output) * prod(weight[1:])


def _conv_transpose(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    # weight: in_channels x out_channels/groups x kernel; every input pixel meets all of its row
    return prod(data) * prod(weight[1:])


def _gemm(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    return prod(output) * data[0 if attributes.get("transA") else -1]


def _matmul(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    return prod(output) * data[-1]


def _fused_matmul(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    # transBatchA brings the first dimension to the last place but one, transA swaps the last two
    if not attributes.get("transA"):
        return prod(output) * data[-1]
    return prod(output) * (data if attributes.get("transBatchA") else data[-2:])[0]


def _recurrent(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    # data: steps x batch x size (or batch first); weight: directions x gates * hidden x size; the
    # matrix of the state is as high, and as wide as the state
    steps = data[0] * data[1]
    return steps * weight[0] * weight[1] * (weight[2] + int(attributes["hidden_size"]))


def _by_equation(data: Shape, weight: Shape, output: Shape, attributes: Attributes) -> int:
    # its only operand, or the first and the last one of two
    shapes = [data] if "," not in attributes["equation"] else [data, weight]
    return einsum_macs(attributes["equation"], shapes) or 0


COUNTED: Mapping[Operator, Counted] = {
    ("", "Conv"): Counted(_conv),
    ("", "ConvTranspose"): Counted(_conv_transpose),
    # Of more than two operands, nobody knows in which order they are multiplied.
    ("", "Einsum"): Counted(_by_equation, weight=-1, parameters=(0, 1), most_inputs=2),
    ("", "Gemm"): Counted(_gemm, parameters=(0, 1, 2)),
    ("", "MatMul"): Counted(_matmul, parameters=(0, 1)),
    **{("", name): Counted(_recurrent, parameters=(1, 2, 3)) for name in ("LSTM", "GRU", "RNN")},
    ("", "ConvInteger"): Counted(_conv, parameters=(1,)),
    ("", "MatMulInteger"): Counted(_matmul, parameters=(0, 1)),
    ("", "QLinearConv"): Counted(_conv, weight=3, parameters=(3, 8)),
    ("", "QLinearMatMul"): Counted(_matmul, weight=3, parameters=(0, 3)),
    (_MICROSOFT, "FusedConv"): Counted(_conv),
    (_MICROSOFT, "FusedGemm"): Counted(_gemm, parameters=(0, 1, 2)),
    (_MICROSOFT, "FusedMatMul"): Counted(_fused_matmul, parameters=(0, 1)),
}

_LEFT_OUT_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu CenterCropPad Clip
    Compress Concat Constant ConstantOfShape Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather
    GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization
    IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization
    LpPool Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round
    Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile
    TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""

# ONNX Runtime's own operators as the standard one that has the same output shape, and which of
# their inputs are its inputs: ONNX infers shapes only through operators that it knows.
STANDARD_FORMS: Mapping[Operator, tuple[str, tuple[int, ...]]] = {
    (_MICROSOFT, "FusedConv"): ("Conv", (0, 1, 2)),
    (_MICROSOFT, "FusedGemm"): ("Gemm", (0, 1, 2)),
    (_MICROSOFT, "FusedMatMul"): ("MatMul", (0, 1)),
    (_MICROSOFT, "QLinearAdd"): ("Add", (0, 3)),
    (_MICROSOFT, "QLinearGlobalAveragePool"): ("GlobalAveragePool", (0,)),
}

LEFT_OUT: frozenset[Operator] = frozenset(("", name) for name in _LEFT_OUT_NAMES.split()) | {
    operator for operator in STANDARD_FORMS if operator not in COUNTED
}

# Operators that pass a constant on, so that what lies behind them is the parameter.
TRANSPARENT: frozenset[Operator] = frozenset(
    {
        ("", "Cast"),
        ("", "DequantizeLinear"),
        ("", "Flatten"),
        ("", "Identity"),
        ("", "QuantizeLinear"),
        ("", "Reshape"),
        ("", "Squeeze"),
        ("", "Transpose"),
        ("", "Unsqueeze"),
    }
)

# Left-out operators some of whose constants are settings or running statistics, no parameters:
# the indices of those inputs that are.
PARAMETER_INPUTS: Mapping[Operator, tuple[int, ...]] = {
    ("", "BatchNormalization"): (1, 2),
    ("", "Clip"): (),
    ("", "Pad"): (),
    ("", "Resize"): (),
    ("", "Upsample"): (),
    (_MICROSOFT, "QLinearAdd"): (0, 3),
    (_MICROSOFT, "QLinearGlobalAveragePool"): (0,),
}


def operator_text(operator: Operator) -> str:
    """Return an operator as it is listed: ``Conv``, or ``com.microsoft:FusedConv``."""
    domain, name = operator
    return f"{domain}:{name}" if domain else name
