"""Each cell is made, judged and written down as it ends; what stands is not made again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.latency.networks import FakeStopwatch
from trpexport import bundle
from trpexport.calibration_data import CalibrationData
from trpexport.datasets import open_data
from trpexport.errors import NothingToDoError, OutputError, TrpexportError
from trpexport.files import read_json
from trpexport.latency import stopwatch
from trpexport.latency.stopwatch import Conditions
from trpexport.report.documents import read_document
from trpexport.stages import Stages
from trpexport.sweeps.cells import Cell, grid
from trpexport.sweeps.journal import NAME, Journal, Outcome
from trpexport.sweeps.making import Maker
from trpexport.sweeps.sweep import CSV, JSON, Sweep
from trpexport.sweeps.work import Work

CELLS = grid(["channel"], [0.7, 0.5], ["fp32", "int8"])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that were worked on, in their order."""
    cells: list[Cell] = []
    real: Callable[..., Any] = Maker.made

    def call(self: Maker, cell: Cell, place: Path, stages: Stages) -> Any:
        cells.append(cell)
        return real(self, cell, place, stages)

    monkeypatch.setattr(Maker, "made", call)
    return cells


def test_cells_are_made_once_and_more_are_added(
    work: Work, tmp_path: Path, made: list[Cell]
) -> None:
    out = tmp_path / "out"
    found = Sweep(work, CELLS[:2])(out)
    assert made == [*CELLS[:2]]
    assert found.codes == ()
    first, second = found.data["cells"]
    report = read_json(out / "channel-0.7" / bundle.REPORT)
    assert first["macs"] == {key: report["macs"][key] for key in ("before", "after")}
    assert first["macs"]["after"] <= 0.7 * first["macs"]["before"]
    # What is compared on the files is what the choice said of the factors.
    exam = report["calibration"]["held_out"] or report["calibration"]
    assert first["error"]["value"] == pytest.approx(exam["output_error"], rel=1e-3)
    assert second["error"]["value"] >= 0.9 * first["error"]["value"]
    assert second["bytes"]["before"] == first["bytes"]["before"] > first["bytes"]["after"]
    judged = first["judged"]
    assert (judged["metric"], judged["before"], judged["images"]) == ("rmse", 0, 24)
    assert judged["after"] == judged["loss"] > 0
    # More targets: what stands is kept.
    both = Sweep(work, CELLS)(out)
    assert made == [*CELLS]
    assert both.data["cells"][:2] == found.data["cells"]
    assert read_json(out / JSON) == json.loads(json.dumps(both.data))
    assert read_document(out / JSON).label == "sweep"
    rows = list(csv.DictReader((out / CSV).read_text().splitlines()))
    assert [row["precision"] for row in rows] == ["fp32", "int8"] * 2
    assert [row["macs"] for row in rows] == [
        str(cell["macs"]["after"]) for cell in both.data["cells"]
    ]
    # What somebody took away is made again.
    (out / "channel-0.7" / bundle.MANIFEST).unlink()
    assert Sweep(work, CELLS[:1])(out).codes == (2,)  # it holds files that are no bundle
    shutil.rmtree(out / "channel-0.7")
    made.clear()
    assert Sweep(work, CELLS)(out).data == both.data
    assert made == [*CELLS[:2]]


def test_a_cell_that_fails_is_told_and_the_others_go_on(
    work: Work, tmp_path: Path, made: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cells = tmp_path / "out", grid(["channel"], [0.01, 0.7], ["int8"])
    found = Sweep(work, cells)(out)
    assert found.codes == (NothingToDoError.exit_code,)
    failed, stands = found.data["cells"]
    assert failed["failed"] == "it is made of channel 0.01 fp32, which failed"
    assert failed["macs"] is failed["bundle"] is None
    assert stands["failed"] is None
    # In float32 it was made for that in int8, which alone was asked for.
    assert made == [Cell("channel", 0.01), Cell("channel", 0.7), Cell("channel", 0.7, "int8")]
    assert found.data["front"] == ["channel 0.7 int8"]
    assert "failed=1" in repr(found)
    # It is tried again; whatever code of others raises is a line as well.
    made.clear()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr(Maker, "_facts", broken)
    again = Sweep(work, grid(["channel"], [0.01, 0.6, 0.7], ["fp32"]))(out)
    lines = [cell["failed"] for cell in again.data["cells"]]
    assert "the best is" in lines[0]
    assert lines[1].startswith("ZeroDivisionError: division by zero")
    assert "\n" not in lines[1]
    assert lines[2] is None
    assert made == [Cell("channel", 0.01), Cell("channel", 0.6)]


def test_what_no_cell_could_do_with_is_refused_at_once(work: Work, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrpexportError, match="did you mean channel"):
        Sweep(work, grid(["chanel"], [0.5], ["fp32"]))(out)
    with pytest.raises(TrpexportError, match="int9"):
        Sweep(work, grid(["channel"], [0.5], ["int9"]))(out)
    missing = replace(work, source=replace(work.source, path=tmp_path / "none.onnx"))  # type: ignore[type-var]
    with pytest.raises(TrpexportError, match=r"no file .*none\.onnx"):
        Sweep(missing, CELLS)(out)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match=r"no sweep \(thesis\.tex\)"):
        Sweep(work, CELLS)(out)


def test_a_sweep_of_something_else_is_no_start(
    work: Work, tmp_path: Path, made: list[Cell]
) -> None:
    out = tmp_path / "out"
    Sweep(work, CELLS[:1])(out)
    other = replace(work, data=replace(work.data, count=20), labelled=None)
    with pytest.raises(OutputError, match="another calibration and another way to judge"):
        Sweep(other, CELLS[:1])(out)
    new = replace(other, settings=replace(work.settings, replace=True))
    found = Sweep(new, CELLS[:1])(out)
    assert found.data["cells"][0]["judged"] is None
    assert made == [CELLS[0]] * 2


def test_data_that_changed_under_the_same_name_are_other_data(
    work: Work, things: Path, tmp_path: Path
) -> None:
    place, cells = tmp_path / "inputs.npz", grid(["channel"], [0.01], ["fp32"])
    shutil.copyfile(things / "inputs.npz", place)

    def swept() -> None:
        data = CalibrationData(open_data(f"tensors:{place}"))
        Sweep(replace(work, data=data), cells)(tmp_path / "out")

    swept()
    swept()
    inputs = np.load(place)["input"]
    np.savez(place, input=np.ascontiguousarray(inputs[:, :, ::-1]))
    with pytest.raises(OutputError, match="another calibration:"):
        swept()


def test_a_journal_that_is_none(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match="can't be used as the journal"):
        Journal(tmp_path, {})
    (tmp_path / NAME).unlink()
    journal = Journal(tmp_path, {"network": 1})
    outcome = Outcome({"macs": 1.5}, None, "a line", 3)
    journal.put(CELLS[0], outcome)
    assert Journal(tmp_path, {"network": 1}).outcomes() == {CELLS[0]: outcome}


def test_cells_are_timed_beside_the_original_and_once(
    work: Work, tmp_path: Path, made: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeStopwatch()
    raced: list[list[str]] = []
    real = fake.race

    def race(files: Sequence[Path], *how: Any) -> Any:
        raced.append([f"{file.parent.name}/{file.name}" for file in files])
        return real(files, *how)

    monkeypatch.setattr(fake, "race", race)
    monkeypatch.setattr(stopwatch, "LocalStopwatch", lambda conditions: fake)
    out, timing = tmp_path / "out", replace(work, conditions=Conditions())
    Sweep(work, CELLS[:2])(out)
    found = Sweep(timing, CELLS[:2])(out)
    assert made == [*CELLS[:2]]
    assert raced == [
        ["channel-0.7/baseline.onnx", "channel-0.7/model.onnx"],
        ["channel-0.7/baseline.onnx", "channel-0.7/model.int8.onnx"],
    ]
    time = found.data["cells"][0]["time"]
    assert time["seconds"] == pytest.approx(fake.latency(out / "channel-0.7/model.onnx"))
    assert time["original"] == pytest.approx(fake.latency(out / "channel-0.7/baseline.onnx"))
    assert found.data["gain"] == "speedup"
    Sweep(timing, CELLS[:2])(out)
    assert len(raced) == 2
    Sweep(replace(work, conditions=Conditions(threads=2)), CELLS[:1])(out)
    assert len(raced) == 3
