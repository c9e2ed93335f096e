"""Standard output under --json on a real pipe, and pipes that nobody reads any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.test_standard_output import buffered
from tests.training.processes import write_digits

# As HiGHS does at times: a line before it solves, while it does, and when the process ends.
LOUD_SOLVER = """
import atexit, ctypes
from trpexport.choose import allotment
c, quiet = ctypes.CDLL(None), allotment.least_error
def loud(*arguments):
    c.printf(b"C before\\n"); print("Python before")
    found = quiet(*arguments)
    c.printf(b"C after\\n")
    return found
allotment.least_error = loud
c.printf(b"C at the start\\n")
atexit.register(lambda: c.printf(b"C at the end\\n"))
"""


@pytest.fixture
def digits(tmp_path: Path) -> str:
    return write_digits(tmp_path / "digits.npz")


def call(
    *arguments: object,
    program: str = "",
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    start = f"{program}\nfrom trpexport.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *map(str, arguments)],
        env={**buffered(), "OMP_NUM_THREADS": "1"}, text=True, check=False,
        stdout=stdout, stderr=stderr,
    )  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_a_solver_that_prints_stays_out_of_it(tmp_path: Path, digits: str, as_json: bool) -> None:
    checkpoint = tmp_path / "run/last.safetensors"
    train = ("--arch", "resnet20", "--data", digits, "--epochs", 1, "--batch-size", 64)
    assert call("train", *train, "-o", checkpoint.parent).returncode == 0
    calib = ("--calib", digits, "--calib-images", 16, "--target-macs", 0.9)
    quick = ("--include", "layer1.*", "--verify-seconds", 0, "--no-simplify")
    done = call(
        "decompose", checkpoint, *calib, *quick, "--calib-cache", tmp_path / "cache",
        "--legacy-exporter", "--opset", 17, "-o", tmp_path / "out",
        *(["--json"] if as_json else []), program=LOUD_SOLVER,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in ("C before", "Python before", "C after", "C at the end"):
        assert line in done.stderr
        assert line not in done.stdout
    if as_json:
        assert json.loads(done.stdout)["bundle"] == str(tmp_path / "out")
        assert "C at the start" in done.stderr


@pytest.fixture
def unread() -> Iterator[int]:
    """The end of a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("flops", "net"), 0),
        (("flops", "net", "--json"), 0),
        (("--help",), 0),
        (("flops", "--help"), 0),
        (("--version",), 0),
        (("gate", "--candidate", "net", "--baseline", "net", "--max-file-size", "1B"), 1),
        (("gate", "--candidate", "net", "--baseline", "net", "--max-file-size", "1B", "--json"), 1),
    ],
)
def test_a_reader_that_has_seen_enough(
    linear: Callable[..., Path], unread: int, tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    """The command goes on to its end: the exit code of a gate is not lost, nor are its files."""
    path, history = linear(), tmp_path / "history"
    typed = [path if option == "net" else option for option in options]
    done = call(*typed, *(["--history", history] if code else []), stdout=unread)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("- ")]
    assert (done.returncode, lines) == (code, [])
    assert history.is_file() == bool(code)


def test_a_reader_of_progress_that_has_seen_enough(
    linear: Callable[..., Path], unread: int
) -> None:
    quick = ("--min-time", 0, "--min-runs", 1, "--no-memory")
    done = call("bench", linear(), *quick, "--json", stderr=unread)
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "bench"
    assert call("bench", "gone.onnx", stderr=unread).returncode == 2


def test_nothing_is_left_claimed_after_an_option_that_is_wrong(run: Run) -> None:
    before = os.fstat(1)
    assert run("flops", "x.onnx", "--json", "--shape").code == 2
    assert run("verify", "x.onnx", "--json", "--count", "none").code == 2
    assert os.path.samestat(os.fstat(1), before)
    assert run("--version").out.startswith("trpexport ")
