"""Links of a graph: which there are, and that a rescaled one computes what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from trpexport.quantization.chains import find_links, rescale
from trpexport.quantization.observing import channel_statistics
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
_rng = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    # Channels of very different sizes, so that a diagonal has something to do.
    values = _rng.normal(size=shape) * np.exp(_rng.normal(size=(shape[0], *[1] * (len(shape) - 1))))
    return values.astype(np.float32)


def conv(name: str, source: str, weight: str, *more: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight, *more], [name], name=name, **attributes)


PADDED = {"pads": [1, 0, 1, 0]}
CASES: Mapping[str, tuple[Sequence[onnx.NodeProto], Mapping[str, Any], Sequence[int], int]] = {
    "spatial": (
        [conv("h", "x", "a", **PADDED), conv("y", "h", "b", "c")],
        {"a": numbers(5, 4, 3, 1), "b": numbers(6, 5, 1, 3), "c": numbers(6)},
        (2, 4, 9, 8),
        1,
    ),
    "with a bias between": (
        [conv("h", "x", "a", "c"), conv("y", "h", "b")],
        {"a": numbers(5, 4, 1, 1), "b": numbers(6, 5, 3, 3), "c": numbers(5)},
        (2, 4, 9, 8),
        1,
    ),
    "grouped": (
        [conv("h", "x", "a"), conv("y", "h", "b", group=3)],
        {"a": numbers(6, 4, 1, 1), "b": numbers(9, 2, 3, 3)},
        (2, 4, 9, 8),
        1,
    ),
    "grouped first": (
        [conv("h", "x", "a", group=2), conv("y", "h", "b")],
        {"a": numbers(6, 2, 3, 3), "b": numbers(3, 6, 1, 1)},
        (2, 4, 9, 8),
        1,
    ),
    "three factors": (
        [conv("g", "x", "a"), conv("h", "g", "b"), conv("y", "h", "c")],
        {"a": numbers(3, 4, 1, 1), "b": numbers(5, 3, 3, 3), "c": numbers(6, 5, 1, 1)},
        (2, 4, 9, 8),
        2,
    ),
    "transposed": (
        [
            conv("h", "x", "a"),
            helper.make_node("ConvTranspose", ["h", "b"], ["g"], name="g", group=2),
            conv("y", "g", "c"),
        ],
        {"a": numbers(6, 4, 1, 1), "b": numbers(6, 2, 2, 2), "c": numbers(3, 4, 1, 1)},
        (2, 4, 9, 8),
        2,
    ),
    "1-D": (
        [conv("h", "x", "a"), conv("y", "h", "b")],
        {"a": numbers(5, 4, 3), "b": numbers(6, 5, 1)},
        (2, 4, 9),
        1,
    ),
    "products": (
        [
            helper.make_node("MatMul", ["x", "a"], ["h"], name="h"),
            helper.make_node("MatMul", ["h", "b"], ["y"], name="y"),
        ],
        {"a": numbers(6, 3), "b": numbers(3, 7)},
        (2, 5, 6),
        1,
    ),
    "Gemm both ways round": (
        [
            helper.make_node(
                "Gemm", ["x", "a", "c"], ["h"], name="h", transB=1, alpha=0.5, beta=2.0
            ),
            helper.make_node("Gemm", ["h", "b", "d"], ["y"], name="y"),
        ],
        {"a": numbers(3, 6), "b": numbers(3, 7), "c": numbers(1, 3), "d": numbers(7)},
        (2, 6),
        1,
    ),
    "an activation between": (
        [
            conv("h", "x", "a"),
            helper.make_node("Relu", ["h"], ["r"], name="r"),
            conv("y", "r", "b"),
        ],
        {"a": numbers(5, 4, 1, 1), "b": numbers(6, 5, 1, 1)},
        (2, 4, 9, 8),
        0,
    ),
    "used twice": (
        [conv("h", "x", "a"), conv("g", "h", "b"), helper.make_node("Add", ["g", "h"], ["y"])],
        {"a": numbers(4, 4, 1, 1), "b": numbers(4, 4, 1, 1)},
        (2, 4, 9, 8),
        0,
    ),
    "a shared weight": (
        [conv("h", "x", "a"), conv("y", "h", "a")],
        {"a": numbers(4, 4, 1, 1)},
        (2, 4, 9, 8),
        0,
    ),
    "a shared bias": (
        [conv("h", "x", "a", "c"), conv("y", "h", "b", "c")],
        {"a": numbers(4, 4, 1, 1), "b": numbers(4, 4, 1, 1), "c": numbers(4)},
        (2, 4, 9, 8),
        0,
    ),
    "a bias that is one number": (
        [
            helper.make_node("Gemm", ["x", "a", "c"], ["h"], name="h"),
            helper.make_node("Gemm", ["h", "b"], ["y"], name="y"),
        ],
        {"a": numbers(6, 3), "b": numbers(3, 7), "c": numbers(1)},
        (2, 6),
        0,
    ),
}


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_rescaled_network_computes_what_it_did(
    name: str, is_symmetric: bool, write_onnx: Write
) -> None:
    nodes, stored, shape, count = CASES[name]
    path = write_onnx(nodes, {"x": shape}, {"y": [None] * len(shape)}, stored)
    model = onnx.load(path)
    inputs = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    links = find_links(model)
    assert len(links) == count
    axes = {link.tensor: link.axis for link in links}
    channels = channel_statistics(model, axes, inputs) if axes else {}
    for link in links:
        found = rescale(model, link, channels[link.tensor], is_symmetric=is_symmetric)
        assert found.after < found.before
    expected = open_session(path).run(inputs)["y"]
    given = open_session(model.SerializeToString()).run(inputs)["y"]
    assert given == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(expected).max()))


def test_a_tensor_that_is_an_output_stays_as_it_is(write_onnx: Write) -> None:
    nodes, stored, shape, _ = CASES["spatial"]
    outputs = {"y": [None] * 4, "h": [None] * 4}
    assert find_links(onnx.load(write_onnx(nodes, {"x": shape}, outputs, stored))) == []


def test_a_weight_that_a_body_uses_stays_as_it_is(write_onnx: Write) -> None:
    nodes, stored, shape, _ = CASES["spatial"]
    body = helper.make_graph(
        [helper.make_node("ReduceSum", ["a"], ["s"])],
        "body",
        [],
        [helper.make_tensor_value_info("s", onnx.TensorProto.FLOAT, None)],
    )
    branch = helper.make_node("If", ["yes"], ["z"], then_branch=body, else_branch=body)
    path = write_onnx(
        [*nodes, branch],
        {"x": shape},
        {"y": [None] * 4, "z": None},
        {**stored, "yes": np.array(True)},
    )
    assert find_links(onnx.load(path)) == []


def test_later_links_come_first(write_onnx: Write) -> None:
    nodes, stored, shape, _ = CASES["three factors"]
    links = find_links(onnx.load(write_onnx(nodes, {"x": shape}, {"y": [None] * 4}, stored)))
    assert [link.tensor for link in links] == ["h", "g"]
