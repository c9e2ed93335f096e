from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from trpexport.onnxfile.counting import count_onnx
from trpexport.runtime.session import import_onnxruntime

WriteOnnx = Callable[..., Path]
node = helper.make_node


def weights(*shape: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.ones(shape, np.float32)


def test_quantize_dequantize_pairs_lead_to_the_weight(write_onnx: WriteOnnx) -> None:
    scales = {"s": np.ones(2, np.float32), "z": np.zeros(2, np.int8)}
    path = write_onnx(
        [
            node("DequantizeLinear", ["net.conv.weight_quantized", "s", "z"], ["w"], axis=0),
            node("DequantizeLinear", ["net.conv.bias_quantized", "s", "zb"], ["b"], axis=0),
            node("Conv", ["x", "w", "b"], ["y"]),
        ],
        {"x": (1, 3, 4, 4)},
        {"y": None},
        {
            "net.conv.weight_quantized": np.ones((2, 3, 3, 3), np.int8),
            "net.conv.bias_quantized": np.ones(2, np.int32),
            "zb": np.zeros(2, np.int32),
            **scales,
        },
    )
    result = count_onnx(path)
    (layer,) = result.layers
    assert layer.name == "net.conv"
    assert layer.macs == 2 * 4 * 3 * 9
    assert result.parameters == layer.parameters == 2 * 3 * 9 + 2
    assert result.left_out == {"DequantizeLinear": 2}


def test_quantized_operators(write_onnx: WriteOnnx) -> None:
    quantization = ["s", "z"]
    path = write_onnx(
        [
            node(
                "QLinearConv",
                ["x", *quantization, "w", *quantization, *quantization, "b"],
                ["a"],
            ),
            node(
                "QLinearAdd",
                ["a", *quantization, "a", *quantization, *quantization],
                ["c"],
                domain="com.microsoft",
            ),
            node("ConvInteger", ["c", "v", "z", "z"], ["i"]),
            node("QLinearMatMul", ["c", *quantization, "m", *quantization, *quantization], ["d"]),
            node("MatMulInteger", ["d", "n", "z", "z"], ["j"]),
        ],
        {"x": (1, 3, 4, 4)},
        {"i": None, "j": None},
        {
            "s": np.ones((), np.float32),
            "z": np.zeros((), np.uint8),
            "w": np.ones((2, 3, 3, 3), np.uint8),
            "b": np.ones(2, np.int32),
            "v": np.ones((5, 2, 1, 1), np.uint8),
            "m": np.ones((2, 6), np.uint8),
            "n": np.ones((6, 7), np.uint8),
        },
        types={"x": TensorProto.UINT8, "i": TensorProto.INT32, "j": TensorProto.INT32},
        opsets={"": 17, "com.microsoft": 1},
    )
    result = count_onnx(path)
    assert [(layer.operator, layer.macs) for layer in result.layers] == [
        ("QLinearConv", 2 * 4 * 3 * 9),
        ("ConvInteger", 5 * 4 * 2),
        ("QLinearMatMul", 2 * 2 * 6 * 2),
        ("MatMulInteger", 2 * 2 * 7 * 6),
    ]
    assert [layer.parameters for layer in result.layers] == [56, 10, 12, 42]
    assert [layer.activation_bytes for layer in result.layers] == [8, 5 * 4 * 4, 24, 28 * 4]
    assert result.other_parameters == 0
    assert result.left_out == {"com.microsoft:QLinearAdd": 1}
    assert result.uncounted == {}


def test_graphs_that_onnxruntime_fused_cost_the_same(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    path = write_onnx(
        [
            node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "w2", "b2"], ["c"], strides=[2, 2]),
            node("Relu", ["c"], ["e"]),
            node("Flatten", ["e"], ["f"]),
            node("Gemm", ["f", "w3", "b3"], ["g"], transB=1),
            node("Relu", ["g"], ["y"]),
        ],
        {"x": (1, 3, 8, 8)},
        {"y": (1, 5)},
        {
            "w1": weights(4, 3, 3, 3),
            "b1": weights(4),
            "w2": weights(4, 4, 3, 3),
            "b2": 2 * weights(4),  # onnxruntime merges equal constants
            "w3": weights(5, 36),
            "b3": weights(5),
        },
    )
    onnxruntime: Any = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    plain, fused = count_onnx(path), count_onnx(tmp_path / "fused.onnx")
    assert {layer.operator for layer in fused.layers} == {
        "com.microsoft:FusedConv",
        "com.microsoft:FusedGemm",
    }
    assert [layer.macs for layer in fused.layers] == [
        4 * 64 * 3 * 9,
        4 * 9 * 4 * 9,
        36 * 5,
    ]
    assert fused.macs == plain.macs
    assert fused.parameters == plain.parameters
    assert fused.uncounted == {}


@pytest.mark.parametrize(
    ("attributes", "x", "weight", "known", "macs"),
    [
        ({}, (2, 3, 4), (4, 5), None, 2 * 3 * 4 * 5),
        ({"transA": 1}, (2, 4, 3), (4, 5), (2, 3, 5), 2 * 3 * 4 * 5),
        ({"transB": 1}, (2, 3, 4), (5, 4), (2, 3, 5), 2 * 3 * 4 * 5),
        ({"transA": 1, "transBatchA": 1}, (4, 2, 3), (4, 5), (2, 3, 5), 2 * 3 * 4 * 5),
        ({"transB": 1}, (2, 3, 4), (5, 4), None, None),
    ],
)
def test_fused_matrix_products(
    *,
    write_onnx: WriteOnnx,
    attributes: dict[str, Any],
    x: tuple[int, ...],
    weight: tuple[int, ...],
    known: tuple[int, ...] | None,
    macs: int | None,
) -> None:
    path = write_onnx(
        [node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", **attributes)],
        {"x": x},
        {"y": known},
        {"w": weights(*weight)},
        opsets={"": 17, "com.microsoft": 1},
    )
    result = count_onnx(path)
    if macs is None:
        assert result.uncounted == {"com.microsoft:FusedMatMul": 1}
    else:
        assert result.macs == macs
