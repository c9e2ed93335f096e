"""Patches of linear operators: with them and the weights, the operator's own outputs come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from trpexport.quantization.linear import kernel_view
from trpexport.quantization.patches import sampled_patches
from trpexport.runtime.session import open_session

Write = Callable[..., Path]
RNG = np.random.default_rng(0)
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((6, 4, 3, 3), (2, 4, 9, 8), {"pads": [1, 1, 1, 1]}),
    ((6, 4, 3, 1), (2, 4, 9, 8), {"pads": [1, 0, 0, 2], "strides": [2, 3]}),
    ((6, 2, 3, 2), (2, 4, 9, 8), {"group": 2, "dilations": [2, 3]}),
    ((4, 1, 3, 3), (2, 4, 9, 8), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((6, 4, 2, 4), (2, 4, 9, 8), {"auto_pad": "SAME_LOWER"}),
    ((6, 4, 3, 3), (2, 4, 9, 8), {"auto_pad": "VALID"}),
    ((5, 3, 4), (3, 3, 11), {"pads": [2, 1], "strides": [3]}),
    ((5, 3, 2, 3, 1), (2, 3, 4, 6, 5), {"pads": [0, 1, 0, 1, 1, 0]}),
]


def output(write: Write, node: Any, weight: Any, data: Any) -> Any:
    """Return what ONNX Runtime computes."""
    path = write([node], {"x": data.shape}, {"y": None}, {"w": weight})
    return open_session(path).run({"x": data})["y"]


def numbers(shape: tuple[int, ...]) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("weight_shape", "data_shape", "attributes"), CONVOLUTIONS)
def test_convolutions(
    weight_shape: tuple[int, ...],
    data_shape: tuple[int, ...],
    attributes: dict[str, Any],
    write_onnx: Write,
) -> None:
    weight, data = numbers(weight_shape), numbers(data_shape)
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    expected = output(write_onnx, node, weight, data)
    patches = sampled_patches(node, weight_shape, data, 10**6, np.random.default_rng(0))
    kernel = kernel_view(node, weight)
    found = patches @ kernel.reshape(*kernel.shape[:2], -1).swapaxes(1, 2)
    found = np.moveaxis(found, 0, 1).reshape(len(data), *expected.shape[2:], -1)
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, None])
def test_matrix_products(attributes: dict[str, Any] | None, write_onnx: Write) -> None:
    is_turned = bool(attributes)
    weight = numbers((5, 4) if is_turned else (4, 5))
    data = numbers((7, 4) if attributes is not None else (2, 3, 4))
    operator = "MatMul" if attributes is None else "Gemm"
    node = helper.make_node(operator, ["x", "w"], ["y"], **(attributes or {}))
    expected = output(write_onnx, node, weight, data)
    patches = sampled_patches(node, weight.shape, data, 100, np.random.default_rng(0))
    found = patches @ kernel_view(node, weight)[..., 0].swapaxes(1, 2)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


def test_a_sample_is_drawn_from_all_images_and_places() -> None:
    data = np.arange(2 * 50 * 50, dtype=np.float32).reshape(2, 1, 50, 50)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    draw = [
        sampled_patches(node, (1, 1, 1, 1), data, 400, np.random.default_rng(0)) for _ in range(2)
    ]
    np.testing.assert_array_equal(draw[0], draw[1])
    values = draw[0].reshape(-1)
    assert len(np.unique(values)) == 400
    # Of 400 drawn evenly a quarter lies in each half of each image: 100 ± 5 standard deviations.
    counts = np.histogram(values, bins=4, range=(0, 5000))[0]
    assert (np.abs(counts - 100) < 45).all()
