"""Calibration of an ONNX file against that of the network that it was exported from."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.choose.networks import planned
from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.gathering import Gatherer
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.ort_watch import OrtWatch
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx.saving import open_model
from trpexport.networks.onnx.watch import OnnxWatch
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import Samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.runtime.session import Session, run_in_batches
from trpexport.tensors import Arrays

SHAPE = (1, 3, 10, 10)


class Residual(nn.Module):
    """A block with a shortcut, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 8, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))) + x)
        y: Tensor = self.fc(x.mean((2, 3)).flatten(1))
        return y


@pytest.fixture(scope="module")
def torch_network() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork.open(Residual().eval(), SHAPE)


@pytest.fixture(scope="module")
def onnx_network_of(
    torch_network: TorchNetwork, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], OnnxNetwork]:
    path: Path = tmp_path_factory.mktemp("onnx") / "residual.onnx"
    torch_network.write_onnx(path, OnnxSettings())
    return lambda: OnnxNetwork.open(OnnxSource(path, read_model(path)))


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(24, *SHAPE[1:])).astype(np.float32)


def calibrated(
    network: TorchNetwork | OnnxNetwork, images: NDArray[np.float32], kind: type | None = None
) -> Calibrated:
    watch = network.watch(Samples(dict.fromkeys(network.inputs, images)))
    assert kind is None or isinstance(watch, kind)
    plan = planned(network, "channel", "rank:3", include=["first", "second"])  # type: ignore[arg-type]
    return calibrate(network, plan, Gatherer(network, watch))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_file_is_calibrated_as_its_network_is(
    torch_network: TorchNetwork,
    onnx_network_of: Callable[[], OnnxNetwork],
    images: NDArray[np.float32],
) -> None:
    wanted = calibrated(torch_network, images)
    found = calibrated(onnx_network_of(), images, OnnxWatch)
    assert {row.name: row.rank for row in found.plan.rewritten} == {
        row.name: row.rank for row in wanted.plan.rewritten
    }
    for name, chain in wanted.chains.items():
        torch.testing.assert_close(found.chains[name].product, chain.product, rtol=1e-3, atol=1e-4)
    assert found.error == pytest.approx(wanted.error, rel=1e-3)
    assert "in PyTorch" in found.notes[0]
    assert wanted.notes == ()


def test_an_unknown_operator_goes_through_onnx_runtime(
    onnx_network_of: Callable[[], OnnxNetwork],
    images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trpexport.networks.onnx.interpreter import OPERATORS

    in_torch = onnx_network_of()
    known = in_torch.watch(Samples(dict.fromkeys(in_torch.inputs, images)))
    monkeypatch.delitem(OPERATORS, ("", "Relu"))
    network = onnx_network_of()
    watch = network.watch(Samples(dict.fromkeys(network.inputs, images)))
    assert isinstance(watch, OrtWatch)
    assert "Relu" in watch.note
    assert watch.metric("first") is None
    for name in ("first", "second"):
        known.advance(name)
        ours, theirs = watch.observe(name, 0), known.observe(name, 0)
        # The file takes one image at a time, and ONNX Runtime gets no more.
        assert_close(ours.inputs[0], theirs.inputs[0][:1])
        assert_close(ours.outputs[0], theirs.outputs[0][:1])
        if name == "second":
            assert ours.shortcut is not None
            assert theirs.shortcut is not None
            assert_close(ours.shortcut, theirs.shortcut[:1])
    assert_close(watch.outputs(0)["output"], known.outputs(0)["output"][:1])
    found = calibrated(network, images, OrtWatch)
    assert 0 < found.error < 1.5
    assert "ONNX Runtime" in found.notes[0]


def test_what_pytorch_gives_otherwise_is_left_to_onnx_runtime(
    onnx_network_of: Callable[[], OnnxNetwork],
    images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trpexport.networks.onnx.interpreter.registry import OPERATORS, Operator

    monkeypatch.setitem(OPERATORS, ("", "Relu"), Operator(lambda _, x: x))
    network = onnx_network_of()
    watch = network.watch(Samples(dict.fromkeys(network.inputs, images)))
    assert isinstance(watch, OrtWatch)
    assert "otherwise" in watch.note


def test_a_file_of_one_image_runs_in_batches(
    onnx_network_of: Callable[[], OnnxNetwork], images: NDArray[np.float32]
) -> None:
    network = onnx_network_of()
    watch = network.watch(Samples(dict.fromkeys(network.inputs, images)))
    assert watch.samples.batches == 1
    watch.advance("second")
    assert len(watch.observe("second", 0).outputs[0]) == len(images)


def test_onnx_runtimes_copy_is_let_go_of_where_pytorch_takes_over(
    onnx_network_of: Callable[[], OnnxNetwork],
    images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[weakref.ref[Session]] = []

    def noted(model: ir.Model) -> Session:
        session = open_model(model)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr("trpexport.networks.onnx.network.open_model", noted)
    network = onnx_network_of()
    feeds = dict.fromkeys(network.inputs, images[:1])
    before = network.run(feeds)
    network.watch(Samples(dict.fromkeys(network.inputs, images)))
    assert [session() for session in opened] == [None]
    again = network.run(feeds)
    for name, output in before.items():
        np.testing.assert_array_equal(output, again[name])


@pytest.mark.parametrize(("memory", "runs"), [(1 << 30, 1), (0, 4)])
def test_onnx_runtime_runs_once_for_as_many_layers_as_memory_allows(
    onnx_network_of: Callable[[], OnnxNetwork],
    images: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    memory: int,
    runs: int,
) -> None:
    network = onnx_network_of()
    samples = network.watch(Samples(dict.fromkeys(network.inputs, images))).samples
    together = OrtWatch(network, samples, network.rewritten, "as a test", memory)
    calls: list[object] = []

    def noted(session: Session, feeds: Arrays) -> Arrays:
        calls.append(session)
        return run_in_batches(session, feeds)

    monkeypatch.setattr("trpexport.networks.onnx.ort_watch.run_in_batches", noted)
    for layer in network.layers:
        one = OrtWatch(network, samples, network.rewritten, "as a test", 0)
        together.advance(layer.name)
        before = len(calls)
        wanted = one.observe(layer.name, 0)
        del calls[before:]
        found = together.observe(layer.name, 0)
        assert_close(found.inputs[0], wanted.inputs[0])
        assert_close(found.outputs[0], wanted.outputs[0])
        assert (found.shortcut is None) == (wanted.shortcut is None) == (layer.name != "second")
    assert len(network.layers) == 4
    assert len(calls) == runs
