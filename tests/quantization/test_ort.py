"""What the quantizer writes, against the same network computed by hand in whole numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.quantization.networks import classifier
from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.ort import Quantizer, quantizable, ready, serialized
from trpexport.runtime.session import import_onnxruntime, open_session

Write = Callable[..., Path]


def rounded(values: Any, low: float, high: float, numbers: NumberFormat) -> Any:
    """Return values as they are after quantization in a range."""
    if numbers.is_symmetric:
        step, zero = 2 * max(-low, high) / 254, 0
        lowest, highest = -127, 127
    else:
        step = (max(high, 0) - min(low, 0)) / 255
        lowest, highest = (-128, 127) if numbers.is_signed else (0, 255)
        zero = round(lowest - min(low, 0) / step)
    return (np.clip(np.round(values / step) + zero, lowest, highest) - zero) * step


def by_row(weight: Any, bits: int = 8) -> Any:
    """Return a matrix as it is after symmetric quantization of each row."""
    largest = 2 ** (bits - 1) - 1
    if bits == 7:
        largest = 64
    step = np.abs(weight).max(1, keepdims=True) / largest
    return np.round(weight / step) * step


@pytest.mark.parametrize(
    "numbers",
    [NumberFormat(), NumberFormat(is_signed=True), NumberFormat(is_signed=True, is_symmetric=True)],
    ids=lambda numbers: f"{numbers.name} {'symmetric' if numbers.is_symmetric else 'affine'}",
)
def test_two_layers_by_hand(numbers: NumberFormat, write_onnx: Write) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (3, 6)))
    bias = rng.normal(size=6).astype(np.float32)
    path = write_onnx(
        [
            helper.make_node("Conv", ["x", "a", "c"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Conv", ["r", "b"], ["y"]),
        ],
        {"x": (5, 4, 1, 1)},
        {"y": (5, 3, 1, 1)},
        {"a": first.reshape(6, 4, 1, 1), "b": second.reshape(3, 6, 1, 1), "c": bias},
    )
    x = rng.normal(size=(5, 4)).astype(np.float32)
    hidden = np.maximum(x @ first.T + bias, 0)
    ranges = {
        "x": (float(x.min()), float(x.max())),
        "r": (0.0, float(hidden.max())),
        "y": (float((hidden @ second.T).min()), float((hidden @ second.T).max())),
    }
    known = {**ranges, "h": (-9.0, 9.0)}
    content = serialized(Quantizer(ready(path), numbers)(known))
    given = open_session(content).run({"x": x.reshape(5, 4, 1, 1)})["y"].reshape(5, 3)

    r = rounded(rounded(x, *ranges["x"], numbers) @ by_row(first).T + bias, *ranges["r"], numbers)
    r = np.maximum(r, 0)
    expected = rounded(r @ by_row(second).T, *ranges["y"], numbers)
    step = (ranges["y"][1] - ranges["y"][0]) / 255
    assert np.abs(given - expected).max() <= 2.1 * step  # what lies between two may go either way
    assert np.abs(given - expected).mean() <= 0.3 * step


def test_weights_of_seven_bits_stay_below_half(write_onnx: Write) -> None:
    path = classifier(write_onnx)
    ranges = dict.fromkeys(("x", *"abcdehiy"), (-3.0, 3.0))
    model = Quantizer(ready(path), NumberFormat(is_reduced=True))(ranges)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weight = stored["stem.weight_quantized"]
    assert weight.dtype == np.int8
    assert np.abs(weight.astype(int)).max() == 64


def test_only_and_without_name_what_is_quantized(write_onnx: Write) -> None:
    model = ready(classifier(write_onnx))
    ranges = dict.fromkeys(("x", *"abcdehiy"), (-3.0, 3.0))
    stem = model.graph.node[0].name
    alone = Quantizer(model, NumberFormat())(ranges, only=[stem])
    others = Quantizer(model, NumberFormat())(ranges, without=[stem])

    def weights(found: onnx.ModelProto) -> set[str]:
        return {t.name for t in found.graph.initializer if t.name.endswith("weight_quantized")}

    assert weights(alone) == {"stem.weight_quantized"}
    assert weights(others) == {
        f"{name}.weight_quantized" for name in ("chain.0", "chain.1", "head")
    }


def test_batch_norms_fold_and_nodes_get_names(write_onnx: Write) -> None:
    ones = np.ones(8, np.float32)
    path = write_onnx(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"]),
            helper.make_node("Relu", ["b"], ["c"], name="Sigmoid_2"),
            helper.make_node("Sigmoid", ["c"], ["y"]),
        ],
        {"x": ("n", 3, 4, 4)},
        {"y": ("n", 8, 4, 4)},
        {"w": np.ones((8, 3, 1, 1), np.float32)} | dict.fromkeys("stmv", 2 * ones),
        opsets={"": 17, "ai.onnx.ml": 3},
    )
    model = ready(path)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "Sigmoid"]
    assert len({node.name for node in model.graph.node} - {""}) == 3
    assert [opset.domain for opset in model.opset_import] == [""]  # none that nothing uses


@pytest.mark.parametrize(("opset", "ir_version"), [(9, 3), (11, 6)])
def test_an_old_operator_set_is_brought_up_to_date(
    opset: int, ir_version: int, write_onnx: Write
) -> None:
    stored = {"w": np.eye(3, dtype=np.float32), "c": np.ones(3, np.float32)}
    as_inputs = {"w": (3, 3), "c": (3,)} if ir_version < 4 else {}
    path = write_onnx(
        [helper.make_node("Gemm", ["x", "w", "c"], ["y"])],
        {"x": (2, 3), **as_inputs},
        {"y": (2, 3)},
        stored,
        opsets={"": opset},
        ir_version=ir_version,
    )
    model = Quantizer(ready(path), NumberFormat())({"x": (-1, 1), "y": (-1, 2)})
    given = open_session(serialized(model)).run({"x": np.full((2, 3), 0.5, np.float32)})["y"]
    assert given == pytest.approx(np.full((2, 3), 1.5), abs=0.02)


def test_metadata_stays_and_nothing_is_added(write_onnx: Write) -> None:
    path = classifier(write_onnx)
    model = onnx.load(path)
    model.metadata_props.add(key="author", value="me")
    onnx.save(model, path)
    made = Quantizer(ready(path), NumberFormat())(dict.fromkeys(("x", *"abcdehiy"), (-3.0, 3.0)))
    assert {prop.key: prop.value for prop in made.metadata_props} == {"author": "me"}


def test_nothing_is_said_or_left_behind(
    write_onnx: Write, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    handlers, disabled = list(logging.getLogger().handlers), logging.root.manager.disable
    path = classifier(write_onnx)
    Quantizer(ready(path), NumberFormat())(dict.fromkeys(("x", *"abcdehiy"), (-3.0, 3.0)))
    assert capfd.readouterr() == ("", "")
    assert (logging.getLogger().handlers, logging.root.manager.disable) == (handlers, disabled)
    assert list(tmp_path.iterdir()) == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]


FLOAT_NODES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "ConvTranspose": (["a", "w"], {"w": np.ones((8, 8, 2, 2), np.float32)}),
    "InstanceNormalization": (["a", "s", "s"], {"s": np.ones(8, np.float32)}),
    "LayerNormalization": (["a", "s", "s"], {"s": np.ones(8, np.float32)}),
}


@pytest.mark.parametrize("operator", FLOAT_NODES)
def test_the_cpu_computes_in_float_what_is_not_quantized_for_it(
    operator: str, write_onnx: Write, tmp_path: Path
) -> None:
    inputs, stored = FLOAT_NODES[operator]
    path = write_onnx(
        [
            helper.make_node("Conv", ["x", "v"], ["a"]),
            helper.make_node(operator, inputs, ["b"]),
            helper.make_node("Sigmoid", ["b"], ["y"]),
        ],
        {"x": (1, 3, 8, 8)},
        {"y": [None] * 4},
        {"v": np.ones((8, 3, 1, 1), np.float32), **stored},
    )
    ranges = dict.fromkeys("xaby", (-3.0, 3.0))
    made = Quantizer(ready(path), NumberFormat())(ranges)  # all operators
    optimized = tmp_path / "optimized.onnx"
    open_session(serialized(made), optimized_path=optimized)
    assert operator in [node.op_type for node in onnx.load(optimized).graph.node]


def test_the_operators_are_those_of_this_onnxruntime() -> None:
    import_onnxruntime()
    assert {"Conv", "Gemm", "MatMul", "Add", "Resize"} <= quantizable(NumberFormat())
    without = NumberFormat(float_operators=frozenset({"Resize"}))
    assert "Resize" not in quantizable(without)
