"""Precisions, ranks and limits in one choice, on a machine whose every time is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, twins
from tests.mixed.networks import Converting
from tests.ray_clusters import FakeRay
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.artifact.reference import OnnxFile
from trpexport.bundle import BASELINE, FLOAT32, variant_name
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import ByLatency
from trpexport.datasets import open_data
from trpexport.errors import NothingToDoError
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.stages import Stages
from trpexport.tuning import FREE, Tuning

Tune = Callable[..., BundleReport]
INT8 = "int8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network")
    twins().write_onnx(folder / "twins.onnx", OnnxSettings())
    inputs = smooth(40, SHAPE)
    outputs = OnnxFile(folder / "twins.onnx").run({"input": inputs})["output"]
    np.savez(folder / "inputs.npz", input=inputs, target=outputs)
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


def test_8_bits_that_never_pay_leave_all_in_float32(tune: Tune) -> None:
    report = tune(Converting(1e-8, 1.4), speedup=1.1, rank_multiple=1)
    assert report.plan.rewritten
    assert {*report.plan.precisions.values()} == {FLOAT32}
    assert not (report.path / variant_name(INT8)).exists()
    (note,) = (note for note in report.data["notes"] if "all stays in float32" in note)
    assert "int8 alone runs 0.71x (0.71 to 0.71) as fast as the original" in note
    assert report.data["latency"]["files"].keys() == {FLOAT32}


def test_what_8_bits_can_not_tell_stays_and_the_rest_is_as_fast_as_it_can(tune: Tune) -> None:
    # In all of 8 bits the error is 0.2: that of the last layer, mostly.
    report = tune(Converting(0.0, 0.5), error=0.1)
    assert "fc" not in chosen(report) >= {"first", "second", "wide"}
    facts = report.data["latency"]
    assert facts["mixed"]["int8_alone"]["error"] > 0.1 >= facts["mixed"]["error"]
    assert facts["files"][INT8]["speedup"]["mid"] >= 2


@pytest.mark.slow
def test_a_drop_is_that_of_the_network_in_both_precisions(tune: Tune) -> None:
    report = tune(Converting(0.0, 0.5), drop=0.02, metric="mae")
    judged, mixed = report.data["calibration"]["judged"], report.data["latency"]["mixed"]
    assert 0 < judged["loss"] == pytest.approx(mixed["drop"])
    assert judged["loss"] <= 0.02
    assert chosen(report)
    assert report.data["latency"]["files"][INT8]["speedup"]["mid"] > 2


@pytest.mark.slow
def test_8_bits_alone_are_an_answer(tune: Tune) -> None:
    # Chains are never faster in them.
    kernels = [(16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3)]
    clock = Converting(0.0, dict.fromkeys(kernels, 0.05))
    report = tune(clock, error=0.3)
    assert not report.plan.rewritten
    assert in_int8(report) == {"stem", "first", "second", "wide", "fc"}
    facts = report.data["latency"]
    assert facts["files"][INT8]["speedup"]["mid"] == pytest.approx(20)
    assert not (report.path / BASELINE).exists()


@pytest.mark.slow
def test_neither_pays(tune: Tune, tmp_path: Path) -> None:
    # 8 bits gain less in one layer than the conversions around it cost; no chain is faster.
    slow = {(r, 16, 3, 3): 1e-4 for r in range(1, 33)}
    slow |= {(16, 16, 3, 3): 4.6e-6, (32, 16, 3, 3): 4.6e-6}
    last = {(32, 16, 3, 3): 0.5}
    clock = Converting(5e-6, {**dict.fromkeys(slow, 1.2), **last}, seconds=slow)
    with pytest.raises(NothingToDoError, match="neither low rank nor int8 pays here"):
        tune(clock, error=0.3)
    assert not (tmp_path / "out").exists()


def test_a_cluster_fits_what_is_built(folder: Path, tmp_path: Path, fake_ray: FakeRay) -> None:
    fake_ray.cores = 1
    clock, said = Converting(1e-8, SLOW_BUT_WIDE), list[str]()
    chooser = ByLatency(speedup=1.5, scheme="channel", rank_multiple=4, stopwatch=clock)
    chooser = chooser.on_cluster("auto", said.append)
    data = CalibrationData(open_data(f"tensors:{folder / 'inputs.npz'}"))
    tuning = Tuning(chooser, ExportSettings(verify_seconds=0), precision=FREE, device="cpu")
    source = OnnxFileSource(folder / "twins.onnx")
    report = tuning(source, data, tmp_path / "out", Stages(said.append))
    assert report.plan.rewritten
    assert fake_ray.calls
    built = [line for line in said if "fitted before" in line]
    assert len(built) >= len(fake_ray.calls)
    assert not [line for line in said if "output error" in line and " -> " in line]
