"""What stays in float32 is run in float32, and nothing that is computed changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.ort import Quantizer, ready, serialized
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
RANGES = dict.fromkeys(("x", "h", "r", "p", "t", "y"), (-4.0, 4.0))


@pytest.fixture
def model(write_onnx: Write) -> onnx.ModelProto:
    """Return a layer, a pool, a flattening and another layer."""
    rng = np.random.default_rng(0)
    node = helper.make_node
    path = write_onnx(
        [
            node("Conv", ["x", "first"], ["h"], pads=[1, 1, 1, 1]),
            node("Relu", ["h"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Transpose", ["p"], ["t"], perm=[0, 1, 3, 2]),
            node("Conv", ["t", "second"], ["y"]),
        ],
        {"x": (1, 3, 8, 8)},
        {"y": (1, 8, 4, 4)},
        {
            "first": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) / 5,
            "second": rng.normal(size=(8, 8, 1, 1)).astype(np.float32) / 3,
        },
    )
    return ready(path)


def pooled(content: bytes, folder: Path) -> set[int]:
    """Return the types that max pools get in the graph that ONNX Runtime runs."""
    open_session(content, optimized_path=folder / "optimized.onnx", graph_optimization="extended")
    graph = onnx.shape_inference.infer_shapes(onnx.load(folder / "optimized.onnx")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    return {types[node.input[0]] for node in graph.node if "MaxPool" in node.op_type}


def quantized(model: onnx.ModelProto, layers: slice) -> onnx.ModelProto:
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    left = [name for name in convolutions if name not in convolutions[layers]]
    relu = [node.name for node in model.graph.node if node.op_type == "Relu"]
    return Quantizer(model, NumberFormat())(RANGES, without=[*left, *(relu if left else [])])


def test_behind_a_layer_in_float32_it_is_in_float32(model: onnx.ModelProto, tmp_path: Path) -> None:
    content = serialized(quantized(model, slice(1, 2)))
    assert pooled(content, tmp_path) == {onnx.TensorProto.FLOAT}


def test_behind_a_layer_in_int8_nothing_is_put_in(model: onnx.ModelProto, tmp_path: Path) -> None:
    whole = quantized(model, slice(0, 2))
    assert "Clip" not in {node.op_type for node in whole.graph.node}
    assert pooled(serialized(whole), tmp_path) == {onnx.TensorProto.UINT8}


def test_what_stops_the_move_is_gone_when_it_runs_and_changes_nothing(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    mixture = quantized(model, slice(1, 2))
    (clip,) = (node for node in mixture.graph.node if node.op_type == "Clip")
    x: Any = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    found = open_session(
        serialized(mixture), optimized_path=tmp_path / "run.onnx", graph_optimization="extended"
    ).run({"x": x})["y"]
    assert "Clip" not in {node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node}
    without = onnx.ModelProto()
    without.CopyFrom(mixture)
    for node in without.graph.node:
        node.input[:] = [clip.input[0] if name == clip.output[0] else name for name in node.input]
    expected = open_session(serialized(without)).run({"x": x})["y"]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("activation", ["Relu", "Clip", None])
@pytest.mark.parametrize("operator", ["Conv", "Gemm"])
def test_a_layer_between_layers_in_int8_keeps_its_weights(
    operator: str, activation: str | None, write_onnx: Write, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    node, tail = helper.make_node, () if operator == "Gemm" else (1, 1)
    bounds = ["low", "high"] if activation == "Clip" else []
    made = "h" if activation is None else "r"
    path = write_onnx(
        [
            node(operator, ["x", "a.weight"], ["g"]),
            node(operator, ["g", "b.weight"], ["h"]),
            *([] if activation is None else [node(activation, ["h", *bounds], ["r"])]),
            node(operator, [made, "c.weight"], ["y"]),
        ],
        {"x": (4, 6, *tail)},
        {"y": (4, 6, *tail)},
        {
            # One channel is large: with one step for all of them the others would be lost.
            **{
                f"{name}.weight": (rng.normal(size=(6, 6, *tail)) * scale).astype(np.float32)
                for name, scale in (
                    ("a", 0.4),
                    ("b", np.array([40, *[0.2] * 5]).reshape(1, 6, *tail)),
                    ("c", 0.4),
                )
            },
            **{
                name: np.array(bound, np.float32)
                for name, bound in zip(bounds, range(0, 12, 6), strict=False)
            },
        },
    )
    model = ready(path)
    middle = model.graph.node[1].name
    left = [middle, *(one.name for one in model.graph.node if one.op_type == activation)]
    ranges = dict.fromkeys(("x", "g", "h", "r", "y"), (-8.0, 8.0))
    content = serialized(Quantizer(model, NumberFormat())(ranges, without=left))
    optimized = tmp_path / "run.onnx"
    session = open_session(content, optimized_path=optimized, graph_optimization="extended")
    run = onnx.load(optimized).graph
    kinds = {tensor.data_type for tensor in run.initializer if len(tensor.dims) == 2 + len(tail)}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT}
    assert len([one for one in run.node if "QLinear" in one.op_type or "QGemm" in one.op_type]) == 2
    x: Any = rng.normal(size=(4, 6, *tail)).astype(np.float32)
    as_written = open_session(content, graph_optimization="disable").run({"x": x})["y"]
    assert np.abs(session.run({"x": x})["y"] - as_written).max() <= 2 * 16 / 255
