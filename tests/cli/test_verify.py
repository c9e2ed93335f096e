"""Two ONNX files compared as the user wants it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.conftest import ROOT, Run

WriteOnnx = Callable[..., Path]


@pytest.fixture
def pair(write_onnx: WriteOnnx) -> tuple[Path, Path]:
    """Two networks that agree below zero, and differ by 1 % above."""

    def write(slope: float) -> Path:
        nodes = [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Mul", ["r", "slope"], ["m"]),
            helper.make_node("Add", ["m", "one"], ["y"]),
        ]
        constants = {"slope": np.array([slope], np.float32), "one": np.array([1], np.float32)}
        return write_onnx(nodes, {"x": ("batch", 3)}, {"y": ("batch", 3)}, constants)

    return write(1), write(1.01)


def test_real_inputs_decide(pair: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    below, above = tmp_path / "below.npz", tmp_path / "above.npy"
    np.savez(below, x=-np.ones((20, 3)))  # float64, as numpy makes it
    np.save(above, np.ones((20, 3), np.float32))
    same = run("verify", *pair, "--inputs", below)
    assert same.code == 0
    assert str(below) in same.out
    assert run("verify", *pair, "--inputs", above).code == 4
    # Below zero all outputs are 1, whatever the network is.
    assert "y does not vary over the inputs compared" in same.err + same.out
    assert json.loads(run("verify", *pair, "--inputs", below, "--json").out)["note"]
    other = run("verify", *pair, "--inputs", below, "--images", 3)
    assert other.code == 2
    assert "--images does nothing beside --inputs" in other.error


def test_a_tolerance_is_the_users(pair: tuple[Path, Path], run: Run) -> None:
    assert run("verify", *pair).code == 4
    loose = run("verify", *pair, "--tolerance", 0.1, "--json")
    assert loose.code == 0
    found = json.loads(loose.out)["tolerance"]
    assert found == {"max_error": 0.1, "rms_error": pytest.approx(0.01), "agreement": 0.9}
    assert "more than a tolerance of 0.001" in run("verify", *pair, "--tolerance", 0.001).error


def test_seed_and_seconds_are_the_users(pair: tuple[Path, Path], run: Run) -> None:
    def errors(*options: object) -> tuple[float, int]:
        result = run("verify", *pair, "--json", "--images", 1, *options)
        output = json.loads(result.out)["outputs"]["y"]
        return output["rms_error"], output["inputs"]

    assert errors("--seed", 1) == errors("--seed", 1) != errors("--seed", 2)
    assert errors("--verify-seconds", 0.05)[1] > 1


def test_a_crash_of_the_runtime_is_one_line(shared: Path) -> None:
    folder = shared / "cases/faults/onnx/sigfpe"
    if not folder.is_dir():
        pytest.skip("needs cases/faults")
    files = [str(folder / name) for name in ("case.onnx", "good.onnx")]
    done = subprocess.run(
        [sys.executable, "-m", "trpexport", "verify", *files, "--images", "1"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"(SIGFPE) while opening {folder / 'case.onnx'}" in done.stderr


def test_one_file_alone_is_no_bundle(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert "is no bundle" in run("verify", pair[0]).error
    assert "there is no file" in run("verify", tmp_path / "gone.onnx").error
