"""``trpexport sweep`` and ``trpexport sensitivity`` as they are typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Chained
from tests.conftest import Run
from trpexport.report.documents import read_document


@pytest.fixture(scope="module")
def network(chained: Chained) -> Path:
    return chained(24, 16)


@pytest.fixture(scope="module")
def tensors(smooth_tensors: Callable[[int], str]) -> str:
    return smooth_tensors(16)


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tables apart, and wait for nobody."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def test_what_no_cell_could_do_with_is_told_once_and_leaves_nothing(
    run: Run, tmp_path: Path
) -> None:
    damaged, out = tmp_path / "a.pth", tmp_path / "out"
    damaged.write_bytes(b"PK" + bytes(5_000))
    result = run("sweep", damaged, "--calib", "digits", "-o", out)
    assert result.code == 2
    assert result.error.startswith("error: ") and str(damaged) in result.error
    assert not out.exists()


def test_a_sweep(run: Run, network: Path, tensors: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    typed = ("sweep", network, "--calib", tensors, "--verify-seconds", 0, "-o", out)
    how = ("--schemes", "channel", "--targets", "0.7,0.01")
    saved, page = tmp_path / "cells.csv", tmp_path / "page.html"
    result = run(*typed, *how, "--json", "--save", saved, "--report", page)
    assert result.code == 3
    assert [cell["failed"] is None for cell in result.json["cells"]] == [True, False]
    assert result.json["front"] == ["channel 0.7 fp32"]
    assert "the best is" in result.json["cells"][1]["failed"]
    assert saved.read_text() == (out / "sweep.csv").read_text()
    assert "channel 0.7 fp32" in page.read_text()
    again = run(*typed, "--schemes", "channel", "--targets", "0.7")
    assert again.code == 0
    assert "The front: " in again.out
    assert "calibrate" not in again.err
    other = run(*typed, *how, "--images", 20)
    assert (other.code, "another calibration" in other.error) == (2, True)
    assert run("report", out / "sweep.json", "-o", tmp_path / "later.html").code == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ((), "--calib"),
        (("--calib", "x.npz", "--targets", "1..2"), "must be shares of the MACs"),
        (("--calib", "x.npz", "--save", "x.txt"), "must end in .csv or .json"),
        (("--calib", "x.npz", "--min-time", 1), "--min-time does nothing without --bench"),
        (("--calib", "x.npz", "--device-label", "x"), "does nothing without --ray"),
        (("--calib", "x.npz", "--split", "x"), "does nothing without --data"),
    ],
)
def test_misuse_is_told_at_once(
    run: Run, network: Path, typed: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    result = run("sweep", network, "-o", tmp_path / "out", *typed)
    assert result.code == 2
    assert said in result.error or "x.npz" in result.error
    assert not (tmp_path / "out").exists()


def test_ray_that_is_missing_is_named(
    run: Run, network: Path, tensors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    typed = ("sweep", network, "--calib", tensors, "--targets", 0.7, "--schemes", "channel")
    result = run(*typed, "-o", tmp_path / "out", "--ray", "auto")
    assert result.code == 2
    assert "clusters need Ray: pip install" in result.err


def test_sensitivity(run: Run, network: Path, tensors: str, tmp_path: Path) -> None:
    typed = ("sensitivity", network, "--calib", tensors, "--scheme", "channel")
    plot, page = tmp_path / "plot.svg", tmp_path / "page.html"
    result = run(
        *typed, "--target-macs", 0.7, "--ratios", "0.8,0.5", "--precision", "int8",
        "--plot", plot, "--report", page, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    told = result.json
    assert told["ratios"] == [0.8, 0.5]
    cut = [layer for layer in told["layers"] if layer["reason"] is None]
    assert [layer["name"] for layer in cut] == ["conv1"]
    assert cut[0]["chosen"]["rank"] >= 1
    assert all(layer["precisions"]["int8"] > 0 for layer in told["layers"])
    assert plot.is_file()
    record = tmp_path / "record.json"
    record.write_text(json.dumps(told))
    assert read_document(record).label == "record"
    shown = run(*typed)
    assert "because (what a cut would lose is not known)" in shown.out
    assert "1 layers on" not in shown.err  # the table is kept
    assert run(*typed, "--target-macs", 0.01).code == 3
    assert "--ratios" in run(*typed, "--ratios", "2").error
    assert "int8 is" in run(*typed, "--precision", "fp16").error
    assert "--calib" in run("sensitivity", network).error
