"""Whole numbers for weights: by hand, and by what they do to outputs on other images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from trpexport.quantization.formats import NumberFormat
from trpexport.quantization.ort import Quantizer, ready
from trpexport.quantization.rounding import compensated, nearest, rounded_weights

Write = Callable[..., Path]
NUMBERS = NumberFormat()


def moment(*rows: list[float]) -> Any:
    return np.array([rows])


def test_what_one_weight_loses_the_next_one_makes_up_for() -> None:
    # Both inputs are the same: only the sum of the weights counts, 0.8, which is nearest to 1.
    kernel, steps = np.array([[[0.4, 0.4]]]), np.ones((1, 1, 1))
    same = moment([1.0, 1.0], [1.0, 1.0])
    np.testing.assert_array_equal(nearest(kernel, steps, 127), [[[0, 0]]])
    np.testing.assert_array_equal(compensated(kernel, steps, same, 127), [[[0, 1]]])
    # The larger input comes first: its 0.4 becomes 0, and the input half as large gets 0.8 more.
    uneven = moment([1.0, 2.0], [2.0, 4.0])
    np.testing.assert_array_equal(compensated(kernel, steps, uneven, 127), [[[1, 0]]])


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 300), st.sampled_from([64, 127]))
def test_uncorrelated_inputs_get_the_nearest_numbers(
    seed: int, groups: int, columns: int, largest: int
) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(groups, 2, columns))
    steps = np.abs(kernel).max(2, keepdims=True) / largest
    own = np.zeros((groups, columns, columns))
    own[:, range(columns), range(columns)] = rng.uniform(0.1, 10, (groups, columns))
    found = compensated(kernel, steps, own, largest)
    np.testing.assert_array_equal(found, nearest(kernel, steps, largest))


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 20)) + rng.normal(size=(200, 20))
    kernel = rng.normal(size=(1, 3, 20))
    steps = np.abs(kernel).max(2, keepdims=True) / 10
    whole = compensated(kernel, steps, (inputs.T @ inputs)[None], 10)
    monkeypatch.setattr("trpexport.quantization.rounding._BLOCK", 3)
    np.testing.assert_array_equal(compensated(kernel, steps, (inputs.T @ inputs)[None], 10), whole)
    assert np.abs(whole).max() <= 10


def smooth(count: int, seed: int) -> Any:
    """Return images whose pixels resemble their neighbours, as those of photographs do."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 3, 3)) + 2
    fine = np.repeat(np.repeat(coarse, 4, 2), 4, 3)
    return (fine + 0.1 * rng.normal(size=fine.shape)).astype(np.float32)


def network(write: Write) -> tuple[Path, Any]:
    """Write two convolutions, a transposed one, and two products by one matrix."""
    rng = np.random.default_rng(0)
    stored = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {
            "first.weight": (8, 3, 3, 3),
            "second.weight": (6, 4, 3, 3),
            "up.weight": (6, 4, 2, 2),
            "head.weight": (4, 5),
            "shared.weight": (5, 5),
        }.items()
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "first.weight"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "second.weight"], ["c"], group=2, strides=[2, 2]),
        node("ConvTranspose", ["c", "up.weight"], ["d"], strides=[2, 2]),
        node("GlobalAveragePool", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("Gemm", ["f", "head.weight"], ["g"]),
        node("MatMul", ["g", "shared.weight"], ["h"]),
        node("MatMul", ["h", "shared.weight"], ["y"]),
    ]
    return write(nodes, {"x": ("n", 3, 12, 12)}, {"y": ("n", 5)}, stored), stored


@pytest.mark.parametrize("numbers", [NUMBERS, NumberFormat(is_reduced=True)])
def test_outputs_change_less_on_other_images(numbers: NumberFormat, write_onnx: Write) -> None:
    path, stored = network(write_onnx)
    found = rounded_weights(ready(path), {"x": smooth(60, 0)}, numbers)
    assert {"first.weight", "second.weight"} <= found.keys()
    assert found.keys() <= {"first.weight", "second.weight", "head.weight"}
    weight, rounded = stored["first.weight"].reshape(8, -1), found["first.weight"]
    steps = np.abs(weight).max(1, keepdims=True) / (64 if numbers.is_reduced else 127)
    np.testing.assert_allclose(rounded.steps, steps[:, 0], rtol=1e-6)
    others = smooth(40, 1)
    patches = np.lib.stride_tricks.sliding_window_view(others, (3, 3), axis=(2, 3))
    patches = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    off = [
        np.square(patches @ (numbers_ * steps - weight).T).sum()
        for numbers_ in (np.round(weight / steps), rounded.values.reshape(8, -1))
    ]
    assert off[1] < 0.5 * off[0]
    assert rounded.error_ratio == pytest.approx(off[1] / off[0], rel=0.2)


def test_inputs_are_as_many_in_each_size_of_batch(write_onnx: Write) -> None:
    path, _ = network(write_onnx)
    found = rounded_weights(ready(path), {"x": smooth(33, 0)}, NUMBERS)
    assert all(0 < one.error_ratio < 1 for one in found.values())


def test_files_hold_them_where_a_node_is_quantized(write_onnx: Write) -> None:
    path, stored = network(write_onnx)
    model = ready(path)
    weights = rounded_weights(model, {"x": smooth(60, 0)}, NUMBERS)
    ranges = dict.fromkeys(("x", *"abcdefghy"), (-9.0, 9.0))
    second = next(node.name for node in model.graph.node if "second.weight" in node.input)
    made = Quantizer(model, NUMBERS, weights)(ranges, without=[second])
    kept = {one.name: numpy_helper.to_array(one) for one in made.graph.initializer}
    first = weights["first.weight"]
    np.testing.assert_array_equal(kept["first.weight_quantized"], first.values)
    np.testing.assert_array_equal(kept["second.weight"], stored["second.weight"])
    onnx.checker.check_model(made, full_check=True)


def test_other_steps_are_not_theirs(write_onnx: Write) -> None:
    path, _ = network(write_onnx)
    model = ready(path)
    weights = rounded_weights(model, {"x": smooth(60, 0)}, NumberFormat(is_reduced=True))
    ranges = dict.fromkeys(("x", *"abcdefghy"), (-9.0, 9.0))
    plain, given = (Quantizer(model, NUMBERS, one)(ranges) for one in ({}, weights))
    assert plain == given  # 7 bits are of no use in 8
