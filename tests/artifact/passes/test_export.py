"""The pass that writes the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import Tensor, nn

from tests.artifact.networks import SHAPE, export_modules, kept, tiny
from trpexport.artifact.build import ExportSettings
from trpexport.errors import ModelError, VerificationError
from trpexport.networks.torch.to_onnx import to_onnx


def test_a_wrong_file_is_named_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(model: nn.Module, shape: Any, path: Path, settings: Any) -> None:
        to_onnx(model, shape, path, settings)
        network = onnx.load(path)
        for tensor in network.graph.initializer:
            if tensor.name == "conv2.weight":
                values = onnx.numpy_helper.to_array(tensor) * 1.1
                tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("f4"), tensor.name))
        onnx.save(network, path)

    monkeypatch.setattr("trpexport.networks.torch.network.to_onnx", tampered)
    model, settings = tiny(), ExportSettings(verify_seconds=0, simplify=False)
    says = r"conv2 drifts: the pass export .*, try the other exporter \(legacy_exporter\)"
    with pytest.raises(VerificationError, match=says):
        export_modules(model, kept(model), tmp_path / "out", settings=settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("opset", "legacy", "notes"),
    [(13, False, ["opset 13 was written by the legacy exporter"]), (13, True, [])],
)
def test_an_exporter_that_nobody_asked_for_is_noted(
    tmp_path: Path, opset: int, legacy: bool, notes: list[str]
) -> None:
    settings = ExportSettings(opset, legacy_exporter=legacy, simplify=False, verify_seconds=0)
    model = tiny()
    report = export_modules(model, kept(model), tmp_path / "out", settings=settings).data
    assert report["notes"] == notes
    assert tuple(report["input_shape"]) == SHAPE


class Decides(nn.Module):
    """Doubles inputs that are larger than any that are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y * 2 if x.square().sum() > 1e9 else y


def test_a_branch_that_one_input_took_is_noted_and_the_exporters_cause_has_its_place(
    tmp_path: Path,
) -> None:
    model = Decides()
    settings = ExportSettings(legacy_exporter=True, simplify=False, verify_seconds=0)
    report = export_modules(model, kept(model), tmp_path / "out", settings=settings).data
    (note,) = report["notes"]
    assert note.startswith("the network decides by the values of its input, and the legacy")
    settings = ExportSettings(simplify=False, verify_seconds=0)
    with pytest.raises(ModelError, match=r"dynamo exporter failed \(.*data-dependent") as caught:
        export_modules(model, kept(model), tmp_path / "other", settings=settings)
    text = str(caught.value)
    assert text.isprintable()
    assert "Next steps" not in text
    assert "test_export.py:" in text
