"""Networks of half the bits: what is in float16, and what stays in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trpexport.errors import ModelError
from trpexport.quantization.half import BFLOAT16, FLOAT16, convert
from trpexport.quantization.settings import QuantizationSettings
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
FEEDS = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)}
WEIGHT = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(
        kind, inputs.split(), outputs.split(), name=f"n_{outputs}", **attributes
    )


def run(path: Path, feeds: Mapping[str, Any] = FEEDS) -> dict[str, Any]:
    return open_session(path).run(feeds)


def converted(source: Path, tmp_path: Path, feeds: Mapping[str, Any] = FEEDS) -> tuple[Path, Any]:
    target = tmp_path / "half.onnx"
    found = convert(source, target, FLOAT16, QuantizationSettings(calibration=feeds))
    onnx.checker.check_model(str(target), full_check=True)
    return target, {one["node"]: one["reason"] for one in found.facts["float32"]}


def types_in(path: Path) -> dict[str, set[int]]:
    """Types of the inputs of each node, by the node's name; of values whose types are known."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    known = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    known |= {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    known |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    known |= {t.name: t.data_type for t in model.graph.initializer}
    return {n.name: {known[name] for name in n.input if name in known} for n in model.graph.node}


def linear(write_onnx: Write, *nodes: onnx.NodeProto, **more: Any) -> Path:
    """``y`` of a product ``p`` of x and the weight, by some nodes."""
    constants = {"w": WEIGHT, **more.pop("constants", {})}
    return write_onnx(
        [node("MatMul", "x w", "p"), *nodes],
        {"x": ("batch", 8)},
        more.pop("outputs", {"y": None}),
        constants,
        **more,
    )


def test_weights_are_halved_and_inputs_and_outputs_stay(write_onnx: Write, tmp_path: Path) -> None:
    source = linear(write_onnx, node("Relu", "p", "y"))
    target, kept = converted(source, tmp_path)
    model = onnx.load(target)
    assert [t.data_type for t in model.graph.initializer] == [HALF]
    assert {v.name: v.type.tensor_type.elem_type for v in model.graph.output} == {"y": FLOAT}
    assert {v.name: v.type.tensor_type.elem_type for v in model.graph.input} == {"x": FLOAT}
    assert kept == {}
    found, expected = run(target)["y"], np.maximum(FEEDS["x"] @ WEIGHT, 0)
    assert found.dtype == np.float32
    # Half precision has 11 bits: products of 8 numbers differ by a few times 2**-11 of their size.
    assert 0 < np.abs(found - expected).max() < 8 * 2**-11 * np.abs(expected).max()


CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "an output that is used as well": (
        [node("Relu", "p", "r"), node("Neg", "r", "y")],
        {"outputs": {"r": None, "y": None}},
    ),
    "a weight that two types share": (
        [node("Add", "p w2", "s"), node("Expand", "w2 shape", "big"), node("Mul", "s big", "y")],
        {"constants": {"w2": np.full(1, 3.0, np.float32), "shape": np.array([1, 8])}},
    ),
    "an integer between floats": (
        [
            node("Cast", "p", "i", to=TensorProto.INT32),
            node("Cast", "i", "f", to=FLOAT),
            node("Add", "f p", "y"),
        ],
        {},
    ),
    "a constant node": (
        [
            helper.make_node(
                "Constant", [], ["c"], value=helper.make_tensor("c", FLOAT, [1], [2.0])
            ),
            node("Mul", "p c", "y"),
        ],
        {},
    ),
    "a shape that is computed": (
        [
            node("Shape", "p", "s"),
            node("ConstantOfShape", "s", "z", value=helper.make_tensor("v", FLOAT, [1], [1.5])),
            node("Add", "p z", "y"),
        ],
        {},
    ),
    "places of maxima": (
        [node("TopK", "p k", "y at", axis=1)],
        {"constants": {"k": np.array([3])}},
    ),
    "an operator of ONNX Runtime's own": (
        [
            helper.make_node("Gelu", ["p"], ["g"], name="own", domain="com.microsoft"),
            node("Relu", "g", "y"),
        ],
        {"opsets": {"": 17, "com.microsoft": 1}, "outputs": {"y": ("batch", 8)}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_types_meet_by_casts(case: str, write_onnx: Write, tmp_path: Path) -> None:
    nodes, more = CASES[case]
    source = linear(write_onnx, *nodes, **more)
    target, _ = converted(source, tmp_path)
    before, after = run(source), run(target)
    assert before.keys() == after.keys()
    for name, expected in before.items():
        assert after[name].dtype == expected.dtype
        np.testing.assert_allclose(
            after[name], expected, rtol=0.02, atol=0.02 * np.abs(expected).max()
        )


def test_what_a_branch_takes_from_outside_stays_float32(write_onnx: Write, tmp_path: Path) -> None:
    def branch(kind: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info("b", FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["p"], ["b"])], kind, [], [output])

    source = linear(
        write_onnx,
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "is"),
        node("If", "is", "chosen", then_branch=branch("Relu"), else_branch=branch("Neg")),
        node("MatMul", "chosen w", "y"),
        constants={"zero": np.array(0, np.float32)},
    )
    target, kept = converted(source, tmp_path)
    assert "n_chosen" in kept
    for sign in (1, -1):
        feeds = {"x": sign * np.abs(FEEDS["x"])}
        expected = run(source, feeds)["y"]
        np.testing.assert_allclose(run(target, feeds)["y"], expected, atol=0.02 * expected.std())


@pytest.mark.parametrize(
    ("constant", "reason"), [(1e5, "large"), (1e-12, "c becomes"), (3e4, "large")]
)
def test_numbers_beyond_float16_stay(
    constant: float, reason: str, write_onnx: Write, tmp_path: Path
) -> None:
    source = linear(
        write_onnx,
        node("Mul", "p c", "large"),
        node("Div", "large c", "y"),
        constants={"c": np.array(constant, np.float32)},
    )
    target, kept = converted(source, tmp_path)
    assert reason in kept["n_large"]
    assert "n_y" in kept
    assert "n_p" not in kept
    assert types_in(target)["n_large"] == {FLOAT}
    found = run(target)["y"]
    np.testing.assert_allclose(found, run(source)["y"], atol=0.01)


def test_nothing_is_left_to_convert(write_onnx: Write, tmp_path: Path) -> None:
    source = write_onnx(
        [node("Mul", "x c", "y")], {"x": (4, 8)}, {"y": None}, {"c": np.full(1, 1e9, np.float32)}
    )
    with pytest.raises(ModelError, match=r"nothing in .* can be computed in float16"):
        converted(source, tmp_path)


def test_bfloat16_is_written_where_onnx_defines_it(write_onnx: Write, tmp_path: Path) -> None:
    source = linear(
        write_onnx,
        node("Mul", "p c", "large"),
        node("Relu", "large", "y"),
        constants={"c": np.array(1e9, np.float32)},  # bfloat16 has the range of float32
    )
    target = tmp_path / "bf16.onnx"
    convert(source, target, BFLOAT16, QuantizationSettings(calibration=FEEDS))
    onnx.checker.check_model(str(target), full_check=True)
    assert types_in(target)["n_y"] == {TensorProto.BFLOAT16}
    # ONNX Runtime has no kernels for it on processors; ONNX's own evaluator has.
    from onnx.reference import ReferenceEvaluator

    outputs: Any = ReferenceEvaluator(str(target)).run(None, dict(FEEDS))
    found = outputs[0]
    expected = run(source)["y"]
    assert np.abs(np.asarray(found) - expected).max() < 0.03 * np.abs(expected).max()
