"""Small ONNX files to run, compare and count; built without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.device.loopback import Device, loopback_device

Shape = Sequence[int | str | None] | None
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="session")
def write_onnx(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a graph to a fresh directory: float32 unless ``types`` says otherwise."""

    def write(
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        constants: Mapping[str, Array] | None = None,
        *,
        types: Mapping[str, int] | None = None,
        known: Mapping[str, Shape] | None = None,
        opsets: Mapping[str, int] | None = None,
        ir_version: int = 8,
        **save_options: Any,
    ) -> Path:
        def infos(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, (types or {}).get(name, TensorProto.FLOAT), s)
                for name, s in shapes.items()
            ]

        graph = helper.make_graph(
            nodes,
            "graph",
            infos(inputs),
            infos(outputs),
            [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
            value_info=infos(known or {}),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(d, v) for d, v in (opsets or {"": 17}).items()],
            ir_version=ir_version,
        )
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        onnx.save(model, path, **save_options)
        return path

    return write


@pytest.fixture(scope="session")
def linear(write_onnx: Callable[..., Path]) -> Callable[..., Path]:
    """Writes ``output = input @ weight``, by default with a free batch and a seeded weight."""

    def write(
        scale: float = 1.0,
        *,
        batch: int | str = "batch",
        columns: int = 4,
        input_name: str = "input",
        output_name: str = "output",
    ) -> Path:
        weight = np.random.default_rng(1).standard_normal((3, columns)).astype(np.float32) * scale
        return write_onnx(
            [helper.make_node("MatMul", [input_name, "weight"], [output_name])],
            {input_name: (batch, 3)},
            {output_name: (batch, columns)},
            {"weight": weight.astype(np.float32)},
        )

    return write


@pytest.fixture(scope="session")
def running_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with loopback_device(tmp_path_factory.mktemp("device")) as device:
        yield device


@pytest.fixture
def device(running_device: Device) -> Iterator[Device]:
    """A machine to reach over SSH, with nothing on it."""
    yield running_device
    running_device.clear()
