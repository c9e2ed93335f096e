"""What the exporters write, and what is checked of it."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, state_of, tiny
from trpexport.errors import ModelError
from trpexport.inputs import INPUT
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch import to_onnx as module
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.to_onnx import to_onnx
from trpexport.runtime.session import open_session


def same(model: nn.Module, path: Path, batch: int = 1) -> bool:
    feeds = {INPUT: torch.randn(batch, *SHAPE[1:]).numpy()}
    expected, actual = TorchNetwork(model, SHAPE).run(feeds), open_session(path).run(feeds)
    assert list(expected) == list(actual)
    return all(np.allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5) for name in expected)


@pytest.mark.parametrize(("opset", "exporter"), [(18, "dynamo"), (20, "dynamo"), (13, "legacy")])
def test_opsets(tmp_path: Path, opset: int, exporter: str) -> None:
    path, model = tmp_path / "model.onnx", tiny()
    settings = OnnxSettings(opset)
    assert settings.exporter == exporter
    to_onnx(model, SHAPE, path, settings)
    assert onnx.load(path).opset_import[0].version == opset
    assert same(model, path)


@pytest.mark.parametrize("legacy", [False, True])
def test_no_batch_norm_is_left_behind_a_convolution(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(tiny(), SHAPE, path, OnnxSettings(legacy_exporter=legacy))
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "Conv" in operators
    assert "BatchNormalization" not in operators


def test_a_trace_is_not_searched_for_garbage(tmp_path: Path) -> None:
    searched = []

    class Traced(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            if torch.onnx.is_in_onnx_export():
                searched.append(gc.isenabled())
            return super().forward(x)

    to_onnx(Traced(3, 4, 1), SHAPE, tmp_path / "model.onnx")
    assert searched
    assert not any(searched)
    assert gc.isenabled()


class Interrupted(nn.Module):
    """Makes an error of its own of an interrupt, as exporters do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.inner, self.how = nn.Conv2d(3, 4, 1), how

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as error:
                if self.how == "cause":
                    raise RuntimeError("failed") from error
                if self.how == "none":
                    raise RuntimeError("failed") from None
                raise RuntimeError("failed")  # noqa: B904
        return torch.relu(self.inner(x))


@pytest.mark.parametrize("how", ["cause", "context", "none"])
def test_an_interrupt_is_no_failure_of_the_exporter(tmp_path: Path, how: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        to_onnx(
            Interrupted(how), SHAPE, tmp_path / "model.onnx", OnnxSettings(17, legacy_exporter=True)
        )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_full_disk_is_no_failure_of_the_exporter(small_disk: Path, legacy: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 400_000, 1))  # 6.4 MB
    settings = OnnxSettings(17 if legacy else 18, legacy_exporter=legacy)
    with pytest.raises(OSError, match="No space left"):
        to_onnx(model, (1, 3, 2, 2), small_disk / "model.onnx", settings)


@pytest.mark.parametrize("legacy", [False, True])
def test_dynamic_batch(tmp_path: Path, legacy: bool) -> None:
    path, model = tmp_path / "model.onnx", tiny()
    to_onnx(model, SHAPE, path, OnnxSettings(dynamic_batch=True, legacy_exporter=legacy))
    assert open_session(path).batch_size is None
    assert same(model, path, 1)
    assert same(model, path, 3)


def test_fixed_batch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(tiny(), (4, *SHAPE[1:]), path)
    assert open_session(path).batch_size == 4


def test_a_batch_size_that_the_network_fixes_is_found(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(2, 3, 16, 16)

    with pytest.raises(ModelError, match=r"fixed the batch size to 2.*without dynamic_batch"):
        to_onnx(Fixed(), SHAPE, tmp_path / "model.onnx", OnnxSettings(dynamic_batch=True))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_file_holds_no_trace_of_the_machine(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "model.onnx"
    to_onnx(tiny(), SHAPE, path, OnnxSettings(legacy_exporter=legacy))
    content = path.read_bytes()
    for trace in (b".py", str(Path(__file__).parent).encode(), str(Path.home()).encode()):
        assert trace not in content


def test_large_weights_go_into_a_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ONE_FILE_LIMIT", 1)
    path, model = tmp_path / "model.onnx", tiny()
    to_onnx(model, SHAPE, path)
    assert (tmp_path / "model.onnx.data").is_file()
    assert same(model, path)


def test_several_outputs_get_names(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.conv(x)
            return y, y.mean((2, 3))

    path, model = tmp_path / "model.onnx", Two().eval()
    to_onnx(model, SHAPE, path)
    assert [info.name for info in open_session(path).outputs] == ["output_0", "output_1"]
    assert same(model, path)


def test_outputs_that_are_no_tensors_are_left_out(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"y": 2 * x, "name": "odd"}

    to_onnx(Odd(), SHAPE, tmp_path / "model.onnx")
    assert [info.name for info in open_session(tmp_path / "model.onnx").outputs] == ["y"]


@pytest.mark.parametrize(
    ("opset", "legacy", "says"),
    [
        (5, False, "from 9 to 20"),
        (23, True, "from 9 to 20"),
        (99, False, "wrote opset 18 where 99 was asked for"),
    ],
)
def test_opsets_that_nobody_writes(tmp_path: Path, opset: int, legacy: bool, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        to_onnx(tiny(), SHAPE, tmp_path / "model.onnx", OnnxSettings(opset, legacy_exporter=legacy))


def test_a_network_that_the_exporter_refuses_is_one_line(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if float(x.sum()) > 0 else x

    with pytest.raises(ModelError, match=r"dynamo exporter failed.*with legacy_exporter") as caught:
        to_onnx(Branching(), SHAPE, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_an_open_batch_is_traced_at_a_batch_that_the_network_runs(
    tmp_path: Path, legacy: bool, batch: int
) -> None:
    class Clips(nn.Module):
        """Takes whole clips of as many frames as the example has, two at least."""

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[0] % max(2, batch) == 0
            return x * 2

    path = tmp_path / "model.onnx"
    settings = OnnxSettings(dynamic_batch=True, legacy_exporter=legacy)
    to_onnx(Clips(), (batch, *SHAPE[1:]), path, settings)
    assert open_session(path).batch_size is None


def test_ctrl_c_is_no_failure_of_the_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def wrapped(*_: object, **__: object) -> None:
        try:
            interrupted()
        except KeyboardInterrupt as error:
            raise SystemError("returned a result with an exception set") from error

    for export in (interrupted, wrapped):
        monkeypatch.setattr(torch.onnx, "export", export)
        with pytest.raises(KeyboardInterrupt):
            to_onnx(tiny(), SHAPE, tmp_path / "model.onnx")


@pytest.mark.parametrize("legacy", [False, True])
def test_an_export_leaves_the_network_as_it_was(tmp_path: Path, legacy: bool) -> None:
    model = tiny().train()
    model.get_submodule("bn").eval()  # a frozen norm within a network in training mode
    model.get_submodule("conv1").requires_grad_(False)
    before = state_of(model)
    to_onnx(model, SHAPE, tmp_path / "model.onnx", OnnxSettings(legacy_exporter=legacy))
    assert state_of(model) == before
    with pytest.raises(ModelError):
        to_onnx(model, (1, 2, 4, 4), tmp_path / "model.onnx")
    assert state_of(model) == before


@pytest.mark.parametrize("legacy", [True, False])
def test_constant_outputs_keep_their_names_and_values(tmp_path: Path, legacy: bool) -> None:
    class Anchors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.conv(x), torch.arange(4.0), self.conv.weight]

    path, model = tmp_path / "model.onnx", Anchors()
    to_onnx(model, SHAPE, path, OnnxSettings(legacy_exporter=legacy))
    assert same(model, path)
