"""Precisions, ranks and limits in one choice, on a machine whose every time is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, twins
from tests.mixed.networks import Converting
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.bundle import FLOAT32, MODEL, variant_name
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import ByLatency
from trpexport.datasets import open_data
from trpexport.errors import NothingToDoError
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.tuning import FREE, Tuning

Tune = Callable[..., BundleReport]
INT8 = "int8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    twins().write_onnx(folder / "twins.onnx", OnnxSettings())
    np.savez(folder / "inputs.npz", input=smooth(40, SHAPE))
    return folder


@pytest.fixture
def tune(folder: Path, tmp_path: Path) -> Tune:
    def call(clock: Converting, **limit: Any) -> BundleReport:
        chooser = ByLatency(
            **{"scheme": "channel", "rank_multiple": 4, **limit},
            stopwatch=clock,
            cache=folder / f"cache-{id(clock)}",
        )
        data = CalibrationData(open_data(f"tensors:{folder / 'inputs.npz'}"))
        tuning = Tuning(chooser, ExportSettings(verify_seconds=0), precision=FREE)
        return tuning(OnnxFileSource(folder / "twins.onnx"), data, tmp_path / "out")

    return call


def in_int8(report: BundleReport) -> set[str]:
    """Return the layers whose weights are stored in 8 bits."""
    graph = onnx.load(report.path / variant_name(INT8)).graph
    found = {t.name.removesuffix(".weight_quantized") for t in graph.initializer}
    names = {layer.name for layer in report.plan.layers}
    return {name for name in names if {name, f"{name}.0", f"{name}.1"} & found}


def chosen(report: BundleReport) -> set[str]:
    """Return the layers that the report says are in int8."""
    return {name for name, one in report.plan.precisions.items() if one == INT8}


SLOW_BUT_WIDE = {(16, 3, 3, 3): 2.0, (16, 16, 3, 3): 2.0, (32, 16, 3, 3): 0.3}
"""8 bits make the last convolution faster, all others slower."""


def test_layers_get_the_precision_that_they_are_faster_in(tune: Tune) -> None:
    report = tune(Converting(1e-8, SLOW_BUT_WIDE), error=0.1)
    facts = report.data["latency"]
    assert "wide" in chosen(report)
    assert chosen(report).isdisjoint({"stem", "first", "second"})
    assert in_int8(report) == chosen(report)
    # What the table predicts is what the file takes, and both are faster than each alone.
    timed = facts["files"][INT8]["speedup"]["mid"]
    assert timed == pytest.approx(facts["predicted_speedup"], rel=0.05)
    assert timed > max(1.0, facts["originals"][INT8]["speedup"]["mid"])
    assert facts["mixed"]["error"] <= 0.1
    reasons = {one["name"]: one["reason"] for one in facts["mixed"]["layers"]}
    assert reasons["first"] == "it is no faster in int8"
    assert "longer" in reasons["wide"]
