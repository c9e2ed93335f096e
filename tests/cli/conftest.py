"""A public network and its images, for commands that need both."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.latency.networks import FakeStopwatch
from trpexport.latency import stopwatch

interrupts = import_module("trpexport.cli.interrupts")


@pytest.fixture
def checkpoint(shared: Path) -> Path:
    """ResNet-20 as others trained it."""
    return shared / "checkpoints/resnet20-12fca82f.th"


@pytest.fixture
def data(shared: Path) -> str:
    """CIFAR-10 as the data set's own files have it."""
    return f"cifar10:{shared / 'data/cifar10-lossless'}"


Chained = Callable[[int, int], Path]


@pytest.fixture(scope="session")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Chained:
    """Write three convolutions of rank 8 at most, of some width, for images of some size."""

    def write(channels: int, size: int) -> Path:
        generator = np.random.default_rng(0)
        nodes, stored, value = [], [], "input"
        for index, before in enumerate((3, channels, channels)):
            left = generator.standard_normal((channels, 8))
            right = generator.standard_normal((8, before * 9)) / (before * 9 * 8) ** 0.5
            kernel = (left @ right).reshape(channels, before, 3, 3).astype(np.float32)
            name, after = f"conv{index}.weight", f"x{index}"
            stored.append(numpy_helper.from_array(kernel, name))
            pads: dict[str, Any] = {"pads": [1] * 4, "name": f"n{index}"}
            nodes.append(helper.make_node("Conv", [value, name], [f"y{index}"], **pads))
            nodes.append(helper.make_node("Relu", [f"y{index}"], [after]))
            value = after
        nodes.append(helper.make_node("GlobalAveragePool", [value], ["output"]))
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, size, size))],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, channels, 1, 1))],
            stored,
        )
        path = tmp_path_factory.mktemp("chained") / "network.onnx"
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path

    return write


@pytest.fixture(scope="session")
def smooth_tensors(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Write inputs of some size to calibrate on, and return them as they are typed."""

    def write(size: int) -> str:
        path = tmp_path_factory.mktemp("tensors") / "inputs.npz"
        noise = np.random.default_rng(1).standard_normal((40, 3, size, size))
        np.savez(path, input=noise.cumsum(3).astype(np.float32) / 8)
        return f"tensors:{path}"

    return write


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeStopwatch:
    """Have a machine whose every time is known do what this one is asked to time."""
    fake = FakeStopwatch()
    monkeypatch.setattr(stopwatch, "LocalStopwatch", lambda conditions: fake)
    return fake


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Have signals arrive: jobs in a shell's background inherit that interrupts are ignored."""
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {
        number: signal.signal(number, usual.get(number, signal.SIG_DFL))
        for number in interrupts._WORDS
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signals(usual_handlers: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a method send a signal before it does its work, once something holds."""

    def send(
        where: Any, name: str, number: int, holds: Callable[..., bool] = lambda *_: True
    ) -> None:
        method, sent = getattr(where, name), list[int]()

        def sending(*arguments: Any) -> Any:
            if not sent and holds(*arguments):
                sent.append(number)
                signal.raise_signal(number)
            return method(*arguments)

        monkeypatch.setattr(where, name, sending)

    return send
