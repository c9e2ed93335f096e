"""The pass that lets a file say where it comes from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.artifact.networks import SHAPE, tiny
from trpexport.artifact.passes import PASSES, Context, run_passes
from trpexport.artifact.reference import ReferenceRuns
from trpexport.inputs import Inputs
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork


@pytest.mark.parametrize("external", [False, True])
def test_annotations_change_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    if external:
        monkeypatch.setattr("trpexport.networks.torch.to_onnx.ONE_FILE_LIMIT", 1)
    network = TorchNetwork(tiny(), SHAPE)
    context = Context(
        network,
        ReferenceRuns(network, Inputs.of(SHAPE), macs=1),
        OnnxSettings(),
        {"trpexport.version": "1"},
    )
    path = tmp_path / "model.onnx"
    run_passes(["export"], path, context)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert ("model.onnx.data" in files) == external
    before = onnx.load(path)
    PASSES["annotate"](path, context)
    after = onnx.load(path)
    assert {entry.key: entry.value for entry in after.metadata_props} == {"trpexport.version": "1"}
    assert after.graph == before.graph
    changed = {file.name for file in tmp_path.iterdir() if files[file.name] != file.read_bytes()}
    assert changed == {"model.onnx"}
