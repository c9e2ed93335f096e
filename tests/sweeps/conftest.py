"""A small network, inputs of it, and what should come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, twins
from trpexport.artifact.settings import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.conversion import Labelled
from trpexport.datasets import open_data
from trpexport.judge.metrics import find_metric
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.sweeps.work import Work


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, inputs, and inputs with targets: what the network gives."""
    folder = tmp_path_factory.mktemp("things")
    twins().write_onnx(folder / "net.onnx", OnnxSettings())
    inputs = smooth(40, SHAPE)
    np.savez(folder / "inputs.npz", input=inputs)
    session = open_session(folder / "net.onnx")
    (given,) = (info.name for info in session.inputs)
    (target,) = run_in_batches(session, {given: inputs[:24]}).values()
    np.savez(folder / "labelled.npz", input=inputs[:24], target=target)
    return folder


@pytest.fixture
def work(things: Path, tmp_path: Path) -> Work:
    """What cells have in common."""
    judged = open_data(f"tensors:{things / 'labelled.npz'}")
    return Work(
        OnnxFileSource(things / "net.onnx"),
        CalibrationData(open_data(f"tensors:{things / 'inputs.npz'}")),
        Labelled(judged, metric=find_metric("rmse")),
        ExportSettings(verify_seconds=0),
        {"rank_multiple": 1},
        tmp_path / "cache",
    )


@pytest.fixture(autouse=True)
def own_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody who works on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
