from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from trpexport.arrays import read_arrays, write_arrays
from trpexport.device.app_runs import ReplaySettings, replay
from trpexport.errors import ModelError
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Arrays

WriteOnnx = Callable[..., Path]


def settings_for(folder: Path, *models: Path, counted_runs: int = 0) -> ReplaySettings:
    outputs = tuple(str(folder / f"{index}.npz") for index in range(len(models)))
    return ReplaySettings(
        tuple(map(str, models)), str(folder / "inputs.npz"), outputs, counted_runs
    )


def test_settings_survive_json() -> None:
    settings = ReplaySettings(("a.onnx", "b.onnx"), "in.npz", ("0.npz", "1.npz"), 3)
    assert settings.to_json()["kind"] == "replay"
    assert ReplaySettings.from_json(settings.to_json()) == settings


def test_every_model_writes_its_outputs(tmp_path: Path, linear: WriteOnnx) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_arrays(tmp_path / "inputs.npz", {"input": x})
    models = linear(), linear(2.0)
    record = replay(settings_for(tmp_path, *models))
    assert record["architecture"] == os.uname().machine
    single, double = (read_arrays(tmp_path / f"{n}.npz")["output"] for n in (0, 1))
    np.testing.assert_array_equal(single, open_session(models[0]).run({"input": x})["output"])
    np.testing.assert_allclose(double, 2 * single, rtol=1e-6)


@pytest.mark.parametrize(("batch", "rows"), [("batch", 1), (2, 2)])
def test_counted_runs_are_of_one_batch_between_the_markers(
    tmp_path: Path,
    linear: WriteOnnx,
    monkeypatch: pytest.MonkeyPatch,
    batch: int | str,
    rows: int,
) -> None:
    events: list[object] = []
    close, run = os.close, Session.run

    def recording_close(descriptor: int) -> None:
        if descriptor < 0:
            events.append(descriptor)
        close(descriptor)

    def recording_run(session: Session, inputs: Arrays) -> object:
        events.append((len(inputs["input"]), gc.isenabled()))
        return run(session, inputs)

    monkeypatch.setattr(os, "close", recording_close)
    monkeypatch.setattr(Session, "run", recording_run)
    write_arrays(tmp_path / "inputs.npz", {"input": np.ones((2, 3), np.float32)})
    replay(settings_for(tmp_path, linear(batch=batch), counted_runs=3))
    begin, end = events.index(-7001), events.index(-7002)
    assert events[begin + 1 : end] == [(rows, False)] * 3
    assert (rows, True) in events[:begin]  # the warm-up
    assert end == len(events) - 1
    assert gc.isenabled()


def test_inputs_that_do_not_fit_are_told(tmp_path: Path, write_onnx: WriteOnnx) -> None:
    model = write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 2)}, {"y": (1, 2)})
    write_arrays(tmp_path / "inputs.npz", {"z": np.zeros((1, 2), np.float32)})
    with pytest.raises(ModelError, match=r"x float32\[1x2\], but was given z"):
        replay(settings_for(tmp_path, model))
