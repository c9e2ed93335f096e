"""Sizes that a graph computes, against those that ONNX Runtime really makes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from trpexport.errors import ModelError
from trpexport.onnxfile.counting import count_onnx
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]
node = helper.make_node
WEIGHT = np.ones((8, 3, 3, 3), np.float32)


def whole(*values: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(values, np.int64)


def half_of_the_height() -> list[NodeProto]:
    return [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "two"], ["height"]),
        node("Div", ["height", "two"], ["half"]),
    ]


# name: (nodes that make q of x, as they are found in networks)
WAYS = {
    "padding": [
        *half_of_the_height(),
        node("Concat", ["zeros", "half", "half", "zeros", "half", "half"], ["pads"], axis=0),
        node("Pad", ["x", "pads"], ["q"]),
    ],
    "slicing": [*half_of_the_height(), node("Slice", ["x", "one", "half", "two"], ["q"])],
    "resizing by floats": [
        *half_of_the_height(),
        node("Cast", ["half"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "scale"], ["g"]),
        node("Floor", ["g"], ["h"]),
        node("Cast", ["h"], ["size"], to=TensorProto.INT64),
        node("Slice", ["s", "zero", "two", "zero"], ["front"]),
        node("Concat", ["front", "size", "size"], ["sizes"], axis=0),
        node("Resize", ["x", "", "", "sizes"], ["q"]),
    ],
    "reshaping there and back": [
        node("Shape", ["x"], ["s"]),
        node("Reshape", ["x", "flat"], ["r"]),
        node("Relu", ["r"], ["relu"]),
        node("Reshape", ["relu", "s"], ["q"]),
    ],
    "expanding": [
        node("ReduceMean", ["x"], ["m"], axes=[2, 3]),
        node("Shape", ["x"], ["s"]),
        node("Where", ["is", "s", "s"], ["t"]),
        node("Expand", ["m", "t"], ["q"]),
    ],
    "a range": [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "scalar"], ["height"]),
        node("Range", ["nothing", "height", "step"], ["rows"]),
        node("Gather", ["x", "rows"], ["q"], axis=2),
    ],
}
CONSTANTS = {
    "two": whole(2), "one": whole(1), "zero": whole(0), "zeros": whole(0, 0), "flat": whole(1, -1),
    "scale": np.array([0.7], np.float32), "w": WEIGHT, "is": np.array(True),
    "scalar": np.array(2), "nothing": np.array(0), "step": np.array(2),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_convolution_behind_computed_sizes_is_counted(write_onnx: WriteOnnx, way: str) -> None:
    path = write_onnx(
        [*WAYS[way], node("Conv", ["q", "w"], ["y"])],
        {"x": (1, 3, "height", "width")},
        {"y": None},
        CONSTANTS,
        opsets={"": 17},
    )
    inputs = {"x": np.ones((1, 3, 12, 12), np.float32)}
    made = open_session(path).run(inputs)["y"].shape
    cost = count_onnx(path, shapes={"x": (1, 3, 12, 12)})
    assert not cost.uncounted
    (layer,) = cost.layers
    assert layer.output_shape == made
    assert layer.macs == np.prod(made) * 27


def test_what_depends_on_values_stays_unknown(write_onnx: WriteOnnx) -> None:
    path = write_onnx(
        [
            node("NonZero", ["x"], ["places"]),
            node("Cast", ["places"], ["q"], to=TensorProto.FLOAT),
            node("MatMul", ["k", "q"], ["y"]),
        ],
        {"x": (2, 3)},
        {"y": None},
        {"k": np.ones((5, 2), np.float32)},
    )
    assert count_onnx(path).uncounted == {"MatMul": 1}


@pytest.mark.parametrize("free", [-1, -2])
def test_a_size_below_zero_is_a_free_one(write_onnx: WriteOnnx, free: int) -> None:
    path = write_onnx(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": (-1, 3, free, free)},
        {"y": (-1, 8, free, free)},
        {"w": WEIGHT},
    )
    with pytest.raises(ModelError, match="dynamic dimensions: give its shape"):
        count_onnx(path)
    shapes = {"x": (2, 3, 6, 7)}
    assert count_onnx(path, shapes=shapes).macs == 2 * 8 * 4 * 5 * 27
    session = open_session(path)
    assert session.batch_size is None
    inputs = session.random_inputs(overrides=shapes)
    assert session.run(inputs)["y"].shape == (2, 8, 4, 5)


def test_a_missing_operator_set_is_said(write_onnx: WriteOnnx) -> None:
    path = write_onnx([node("Relu", ["x"], ["y"])], {"x": (1,)}, {"y": (1,)})
    model = onnx.load(path)
    del model.opset_import[:]
    model.ir_version = 1
    path.write_bytes(model.SerializeToString())
    for read in (count_onnx, open_session):
        with pytest.raises(ModelError, match="does not say which operator set"):
            read(path)


def functions(calls: int, depth: int, last: str) -> list[onnx.FunctionProto]:
    """Return functions that each call the next so many times."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = []
    for level in range(depth):
        called = f"f{level + 1}" if level + 1 < depth else last
        domain = "own" if called.startswith("f") else ""
        names = ["a", *(f"b{call}" for call in range(calls))]
        body = [node(called, [before], [after], domain=domain) for before, after in pairwise(names)]
        made.append(helper.make_function("own", f"f{level}", ["a"], [names[-1]], body, opsets))
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (functions(2, 40, "Relu"), "over 1,000,000 nodes"),
        (functions(1, 1, "f0"), "without end"),
        (functions(1, 3, "f1"), "without end"),
        (functions(1, 200, "Relu"), "without end"),
    ],
)
def test_functions_that_never_end(
    write_onnx: WriteOnnx, made: list[onnx.FunctionProto], why: str
) -> None:
    path = write_onnx(
        [node("f0", ["x"], ["y"], domain="own")],
        {"x": (1,)},
        {"y": (1,)},
        opsets={"": 17, "own": 1},
    )
    model = onnx.load(path)
    model.functions.extend(made)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=why):
        count_onnx(path)


@pytest.mark.parametrize("size", [12, 13])
def test_the_branch_of_a_known_condition_is_counted(write_onnx: WriteOnnx, size: int) -> None:
    def branch(weight: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        return helper.make_graph([node("Conv", ["x", weight], ["out"])], "branch", [], [out])

    path = write_onnx(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "scalar"], ["height"]),
            node("Equal", ["height", "twelve"], ["is_twelve"]),
            node("If", ["is_twelve"], ["y"], then_branch=branch("w"), else_branch=branch("v")),
        ],
        {"x": (1, 3, "height", "width")},
        {"y": None},
        {
            **{"w": WEIGHT, "v": np.ones((5, 3, 1, 1), np.float32)},
            **{"scalar": np.array(2), "twelve": np.array(12)},
        },
    )
    cost = count_onnx(path, shapes={"x": (1, 3, size, size)})
    assert not cost.uncounted
    assert cost.macs == (8 * 10 * 10 * 27 if size == 12 else 5 * 13 * 13 * 3)
    made = open_session(path).run({"x": np.ones((1, 3, size, size), np.float32)})["y"].shape
    assert cost.layers[0].output_shape == made


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_multiply_at_every_step(
    write_onnx: WriteOnnx, kind: str, gates: int
) -> None:
    hidden, size, steps, batch = 6, 10, 7, 2
    path = write_onnx(
        [node(kind, ["x", "w", "r"], ["y"], hidden_size=hidden)],
        {"x": (steps, batch, size)},
        {"y": None},
        {
            "w": np.ones((1, gates * hidden, size), np.float32),
            "r": np.ones((1, gates * hidden, hidden), np.float32),
        },
    )
    cost = count_onnx(path)
    # A matrix of the input and one of the state, at each step of each sequence.
    assert cost.macs == steps * batch * gates * hidden * (size + hidden)
    assert cost.parameters == gates * hidden * (size + hidden)
