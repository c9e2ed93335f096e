"""A network in two precisions as this machine really runs it, whatever is faster on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, twins
from trpexport import tuning as module
from trpexport.artifact.build import ExportSettings
from trpexport.artifact.reference import OnnxFile
from trpexport.bundle import FLOAT32, MODEL, variant_name
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import ByLatency
from trpexport.compare import compare_outputs
from trpexport.datasets import open_data
from trpexport.errors import NothingToDoError
from trpexport.mixed import times
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.tuning import FREE, Tuning

_LIMIT = 0.3


@pytest.mark.slow
def test_it_is_within_the_limit_or_refused_with_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "RACE_SECONDS", 0.1)
    monkeypatch.setattr(module, "_SECONDS", 0.1)
    network, inputs = tmp_path / "twins.onnx", smooth(60, SHAPE)
    twins().write_onnx(network, OnnxSettings())
    np.savez(tmp_path / "inputs.npz", input=inputs)
    chooser = ByLatency(error=_LIMIT, scheme="channel", rank_multiple=4)
    job = Tuning(chooser, ExportSettings(verify_seconds=0), precision=FREE)
    data = CalibrationData(open_data(f"tensors:{tmp_path / 'inputs.npz'}"))
    try:
        report = job(OnnxFileSource(network), data, tmp_path / "out")
    except NothingToDoError as error:  # as where all is too small, or others take the processor
        assert "x" in str(error)
        return
    int8 = {name for name, one in report.plan.precisions.items() if one != FLOAT32}
    file = report.path / (variant_name("int8") if int8 else MODEL)
    stored = {tensor.name for tensor in onnx.load(file).graph.initializer}
    assert {name for name in stored if "weight_quantized" in name} or not int8
    expected, found = (OnnxFile(one).run({"input": inputs}) for one in (network, file))
    # Fitted images and held-out ones together.
    assert compare_outputs([(expected, found)])["output"].variation_error <= 1.2 * _LIMIT
