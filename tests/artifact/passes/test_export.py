"""The pass that writes the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from torch import nn

from tests.artifact.networks import SHAPE, export_modules, kept, tiny
from trpexport.artifact.build import ExportSettings
from trpexport.errors import VerificationError
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
