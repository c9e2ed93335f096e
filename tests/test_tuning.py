"""Finished files are what a limit is of: where they fall short, more is aimed at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, FakeStopwatch, twins
from tests.tuned import Job, twins_in
from trpexport import tuning as module
from trpexport.artifact.build import BundleReport, ExportSettings
from trpexport.bundle import MODEL, is_bundle
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import AlreadyFastError, ByLatency
from trpexport.datasets import open_data
from trpexport.errors import NothingToDoError
from trpexport.inputs import Inputs
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.pareto import pareto
from trpexport.plan import Plan
from trpexport.stages import Stages
from trpexport.tuning import TooSlowError, Tuning


class Pessimistic(FakeStopwatch):
    """A machine on which finished files take so many times as long as what they are chosen by."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self._times_as_long = times

    def latency(self, file: Path) -> float:
        return super().latency(file) * (self._times_as_long if file.name == MODEL else 1.0)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return twins_in(tmp_path_factory.mktemp("network"))


def tuning(stopwatch: FakeStopwatch, tmp_path: Path) -> Tuning:
    chooser = ByLatency(
        speedup=1.3,
        scheme="channel",
        rank_multiple=1,
        stopwatch=stopwatch,
        cache=tmp_path / "cache",
    )
    return Tuning(chooser, ExportSettings(verify_seconds=0))


def test_what_falls_short_aims_higher(job: Job, tmp_path: Path) -> None:
    lines: list[str] = []
    how = tuning(Pessimistic(1.06), tmp_path)
    report = how(*job, tmp_path / "out", Stages(lines.append))
    facts = report.data["latency"]
    assert 1.3 <= facts["files"]["fp32"]["speedup"]["mid"] < 1.6
    assert facts["speedup"]["mid"] >= 1.3 * 1.06
    assert sum("more is aimed at" in line for line in lines) == 1
    assert report.data["calibration"]["target"] == {"kind": "speedup", "value": 1.3}
    assert is_bundle(tmp_path / "out")


def test_a_file_that_leaves_sizes_open_is_timed_at_those_at_hand(tmp_path: Path) -> None:
    twins().write_onnx(
        tmp_path / "open.onnx", OnnxSettings(dynamic={"input": {2: "height", 3: "width"}})
    )
    np.savez(tmp_path / "inputs.npz", input=smooth(40, SHAPE))
    data = CalibrationData(open_data(f"tensors:{tmp_path / 'inputs.npz'}"))
    clock = FakeStopwatch()
    source = OnnxFileSource(tmp_path / "open.onnx", inputs=Inputs.of({"input": SHAPE}))
    report = tuning(clock, tmp_path)(source, data, tmp_path / "out")
    assert clock.sizes == report.plan.inputs == Inputs.of({"input": SHAPE})


@pytest.fixture
def aimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """What is aimed at beyond the limit, where each finished network is slower by 2 % than that."""
    seen: list[float] = []

    def made(source: object, chooser: ByLatency, place: Path, *_: object, **how: object) -> Any:
        seen.append(chooser.beyond)
        return BundleReport(place, cast(Plan, SimpleNamespace(inputs=Inputs.of(SHAPE))), {})

    def measured(*_: object) -> Any:
        raise TooSlowError(f"too slow {len(seen)} times", slower=1.02)

    monkeypatch.setattr(module, "decompose_to_bundle", made)
    monkeypatch.setattr(Tuning, "_measured", measured)
    return seen


def test_what_falls_short_again_and_again_is_refused(
    job: Job, tmp_path: Path, aimed: list[float]
) -> None:
    with pytest.raises(TooSlowError, match="too slow 3 times"):
        tuning(FakeStopwatch(), tmp_path)(*job, tmp_path / "out")
    assert aimed == pytest.approx([1, 1.02 * 1.01, 1.02 * 1.01**2])
    assert not (tmp_path / "out").exists()


def test_what_can_not_be_any_faster_is_refused_by_what_was_finished(
    job: Job, tmp_path: Path, aimed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vars(module)["decompose_to_bundle"]

    def made(*given: Any, **how: Any) -> Any:
        if aimed:
            raise NothingToDoError("that can't be met")
        return real(*given, **how)

    monkeypatch.setattr(module, "decompose_to_bundle", made)
    with pytest.raises(TooSlowError, match="too slow 1 times"):
        tuning(FakeStopwatch(), tmp_path)(*job, tmp_path / "out")


def test_a_front_of_what_needs_no_ranks_is_none(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: object) -> None:
        raise AlreadyFastError("it is fast enough in int8")

    monkeypatch.setattr(Tuning, "__call__", call)
    with pytest.raises(AlreadyFastError):
        pareto(tuning(FakeStopwatch(), tmp_path), *job, tmp_path / "out")
