from __future__ import annotations

import json
from collections.abc import Callable, Collection
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trpexport import cost
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.operators import COUNTED, LEFT_OUT, PARAMETER_INPUTS, TRANSPARENT
from trpexport.ops import Call, LinearOp, Window

WriteOnnx = Callable[..., Path]
node = helper.make_node


def weights(*shape: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.ones(shape, np.float32)


# --- one layer, by hand ----------------------------------------------------------------------


def test_convolution_with_everything(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [
            node(
                "Conv",
                ["x", "block.0.conv.weight", "block.0.conv.bias"],
                ["y"],
                name="/noise/Conv_3",
                group=2,
                strides=[2, 1],
                dilations=[1, 2],
                pads=[1, 0, 0, 2],
            )
        ],
        {"x": (1, 4, 7, 9)},
        {"y": None},
        {"block.0.conv.weight": weights(6, 2, 3, 3), "block.0.conv.bias": weights(6)},
    )
    result = count_onnx(path)
    (layer,) = result.layers
    # height (7 + 1 + 0 - 3) // 2 + 1 = 3, width (9 + 0 + 2 - 5) // 1 + 1 = 7
    assert layer.name == "block.0.conv"
    assert layer.operator == "Conv"
    assert layer.input_shape == (1, 4, 7, 9)
    assert layer.output_shape == (1, 6, 3, 7)
    assert layer.macs == result.macs == 6 * 3 * 7 * 2 * 3 * 3
    assert result.flops == 2 * 6 * 3 * 7 * 2 * 3 * 3
    assert layer.parameters == result.parameters == 6 * 2 * 3 * 3 + 6
    assert layer.activation_bytes == result.activation_bytes == 6 * 3 * 7 * 4


@pytest.mark.parametrize(
    ("operator", "attributes", "x", "weight", "macs"),
    [
        ("Conv", {}, (1, 2, 10), (3, 2, 3), 3 * 8 * 2 * 3),
        ("Conv", {"strides": [2, 2, 2]}, (2, 1, 4, 4, 4), (2, 1, 2, 2, 2), 2 * 2 * 8 * 8),
        ("Conv", {"group": 3}, (1, 3, 4, 4), (3, 1, 1, 1), 3 * 16),
        ("ConvTranspose", {"strides": [2, 2]}, (1, 4, 5, 5), (4, 3, 2, 2), 4 * 25 * 3 * 4),
        ("ConvTranspose", {"group": 2}, (1, 4, 5, 5), (4, 3, 2, 2), 4 * 25 * 3 * 4),
        ("Gemm", {"transB": 1}, (2, 8), (5, 8), 2 * 8 * 5),
        ("Gemm", {"transA": 1}, (8, 2), (8, 5), 2 * 8 * 5),
        ("MatMul", {}, (2, 3, 4, 5), (5, 6), 2 * 3 * 4 * 5 * 6),
        ("MatMul", {}, (2, 1, 4, 5), (3, 5, 6), 2 * 3 * 4 * 5 * 6),
        ("MatMul", {}, (5,), (5, 6), 5 * 6),
    ],
)
def test_macs_by_hand(
    *,
    write_onnx: WriteOnnx,
    operator: str,
    attributes: dict[str, Any],
    x: tuple[int, ...],
    weight: tuple[int, ...],
    macs: int,
) -> None:
    path = write_onnx(
        [node(operator, ["x", "w"], ["y"], **attributes)],
        {"x": x},
        {"y": None},
        {"w": weights(*weight)},
    )
    result = count_onnx(path)
    assert result.macs == macs
    assert result.parameters == prod(weight)
    assert result.uncounted == result.left_out == {}


def test_a_product_of_two_activations_has_no_parameters(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("MatMul", ["a", "b"], ["y"])], {"a": (2, 3, 4), "b": (2, 4, 5)}, {"y": None}
    )
    result = count_onnx(path)
    assert (result.macs, result.parameters) == (2 * 3 * 4 * 5, 0)
    assert result.layers[0].name == "MatMul_0"


@given(st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_convolutions_cost_what_the_formulas_say(
    write_onnx: WriteOnnx, data: st.DataObject
) -> None:
    ndim = data.draw(st.integers(1, 3))
    groups = data.draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    before, after = sizes(0, 2), sizes(0, 2)
    conv = LinearOp(
        in_channels=groups * data.draw(st.integers(1, 3)),
        out_channels=groups * data.draw(st.integers(1, 3)),
        groups=groups,
        bias=data.draw(st.booleans()),
        window=Window(
            kernel=sizes(1, 3),
            stride=sizes(1, 3),
            pads=tuple(zip(before, after, strict=True)),
            dilation=sizes(1, 2),
        ),
    )
    size = sizes(1, 9)
    output = cost.output_size(conv, size)
    assume(min(output) > 0)
    constants = {"w": weights(conv.out_channels, conv.in_channels // groups, *conv.kernel)}
    if conv.bias:
        constants["b"] = weights(conv.out_channels)
    path = write_onnx(
        [
            node(
                "Conv",
                ["x", *constants],
                ["y"],
                strides=conv.window.stride,
                dilations=conv.window.dilation,
                pads=[*before, *after],
                group=groups,
            )
        ],
        {"x": ("n", conv.in_channels, *size)},
        {"y": None},
        constants,
    )
    (layer,) = count_onnx(path).layers
    assert layer.output_shape == (1, conv.out_channels, *output)
    assert layer.macs == cost.macs([conv], [Call(1, size)])
    assert layer.parameters == cost.parameter_count(conv)


# --- what is left out, what is unknown -------------------------------------------------------


def test_nothing_is_dropped_in_silence(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("FancyPool", ["b"], ["c"], domain="my.ops"),
            node("Conv", ["c", "w"], ["d"]),  # its shapes can't be known
            node("Conv", ["b", "w"], ["e"]),
            node("Relu", ["e"], ["y"]),
        ],
        {"x": (1, 2, 4, 4)},
        {"y": None, "d": None},
        {"w": weights(2, 2, 1, 1)},
        opsets={"": 17, "my.ops": 1},
    )
    result = count_onnx(path)
    assert [layer.name for layer in result.layers] == ["Conv_0", "Conv_4"]
    assert result.macs == 2 * (2 * 16 * 2)
    assert result.left_out == {"Relu": 2}
    assert result.uncounted == {"my.ops:FancyPool": 1, "Conv": 1}
    assert result.parameters == 4  # the shared weight once
    assert [layer.parameters for layer in result.layers] == [4, 0]


def test_shapes_that_the_file_states_lead_past_an_unknown_operator(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [
            node("FancyPool", ["x"], ["a"], domain="my.ops"),
            node("Conv", ["a", "w"], ["y"]),
        ],
        {"x": ("batch", 2, 8, 8)},
        {"y": ("batch", 2, 4, 4)},
        {"w": weights(2, 2, 1, 1)},
        known={"a": ("batch", 2, 4, 4)},
        opsets={"": 17, "my.ops": 1},
    )
    result = count_onnx(path, shapes={"x": (3, 2, 8, 8)})
    assert result.macs == 3 * 2 * 16 * 2
    assert result.uncounted == {"my.ops:FancyPool": 1}


def test_subgraphs_and_functions_are_unknown(write_onnx: WriteOnnx, tmp_path: Path) -> None:
    branch = helper.make_graph(
        [node("Conv", ["x", "w"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    path = write_onnx(
        [
            node("If", ["flag"], ["a"], then_branch=branch, else_branch=branch),
            node("Block", ["x"], ["b"], domain="local"),
        ],
        {"x": (1, 2, 4, 4), "flag": ()},
        {"a": None, "b": None},
        {"w": weights(2, 2, 1, 1)},
        types={"flag": TensorProto.BOOL},
        opsets={"": 17, "local": 1},
    )
    model = onnx.load(path)
    body = [node("Relu", ["i"], ["o"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Block", ["i"], ["o"], body, opsets))
    onnx.save(model, path)
    result = count_onnx(path)
    assert result.uncounted == {"If": 1, "local:Block": 1}
    assert result.macs == 0


def test_the_tables_name_operators_that_exist() -> None:
    standard = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    tables: list[Collection[tuple[str, str]]] = [COUNTED, LEFT_OUT, TRANSPARENT, PARAMETER_INPUTS]
    for table in tables:
        assert {name for domain, name in table if not domain} <= standard
    assert not LEFT_OUT & COUNTED.keys()
    assert TRANSPARENT <= LEFT_OUT


def test_only_parameters_are_parameters(write_onnx: WriteOnnx) -> None:
    constant = helper.make_tensor("value", TensorProto.FLOAT, [2, 3], [1.0] * 6)
    path = write_onnx(
        [
            node("BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["a"]),
            node("Clip", ["a", "low", "high"], ["b"]),
            node("Reshape", ["b", "shape"], ["c"]),
            node("Constant", [], ["stored"], value=constant),
            node("Transpose", ["stored"], ["turned"], perm=[1, 0]),
            node("MatMul", ["c", "turned"], ["d"]),
            node("PRelu", ["d", "slope"], ["y"]),
        ],
        {"x": (1, 3, 2, 2)},
        {"y": None},
        {
            **{name: weights(3) for name in ("scale", "shift", "mean", "var")},
            "low": np.zeros((), np.float32),
            "high": np.ones((), np.float32),
            "shape": np.array([4, 3]),
            "slope": weights(2),
            "unused": weights(100),
        },
    )
    result = count_onnx(path)
    assert result.layers[0].parameters == 6
    assert result.other_parameters == 3 + 3 + 2
    assert result.parameters == 14
    assert result.macs == 4 * 3 * 2


def test_json(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ("n", 3, 1, 1)},
        {"y": None},
        {"w": weights(2, 3, 1, 1)},
    )
    data = json.loads(json.dumps(count_onnx(path).to_json()))
    assert data == {
        "macs": 6,
        "flops": 12,
        "parameters": 6,
        "activation_bytes": 8,
        "layers": [
            {
                "name": "Conv_0",
                "operator": "Conv",
                "input_shape": [1, 3, 1, 1],
                "output_shape": [1, 2, 1, 1],
                "macs": 6,
                "parameters": 6,
                "activation_bytes": 8,
            }
        ],
        "left_out": {},
        "uncounted": {},
        "other_parameters": 0,
        "uncounted_macs": 0,
    }
