"""Standard output under --json on a real pipe, and pipes that nobody reads any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cli.app import command_line
from cli.commands import COMMANDS
from tests.conftest import Run
from tests.test_standard_output import buffered

# A library that prints as its code in C may do: before it works, while it does, when all is over.
LOUD_RUNTIME = """
import atexit, ctypes, os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
c, run = ctypes.CDLL(None), onnxruntime.InferenceSession.run
def loud(*arguments):
    c.printf(b"C before\\n" + 9999 * b"."); print("Python before")
    found = run(*arguments)
    c.printf(b"C after\\n")
    return found
onnxruntime.InferenceSession.run = loud
c.printf(b"C at the start\\n")
atexit.register(lambda: c.printf(b"C at the end\\n"))
"""


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


QUICK = ("--min-time", "0", "--min-runs", "1", "--warmup-seconds", "0", "--no-memory")
BENCH = ("bench", "net", *QUICK)


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        ((*BENCH, "--json"), '{\n  "schema_version"'),
        ((*BENCH, "--csv"), "threads,label,"),
        (("verify", "net", "net", "--json"), '{\n  "compared"'),
        (BENCH, None),
    ],
)
def test_a_library_that_prints_stays_out_of_it(
    linear: Callable[..., Path], options: tuple[str, ...], begins: str | None
) -> None:
    path = linear()
    typed = [path if option == "net" else option for option in options]
    done = call(*typed, program=LOUD_RUNTIME)
    assert done.returncode == 0, done.stderr
    for line in ("C before", "Python before", "C after", "C at the end"):
        assert line in done.stderr
        assert line not in done.stdout
    if begins is not None:
        assert "C at the start" in done.stderr
        assert done.stdout.startswith(begins)
    if "--json" in options:
        json.loads(done.stdout)


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
    done = call("bench", linear(), *QUICK, "--json", stderr=unread)
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "bench"
    assert call("bench", "gone.onnx", stderr=unread).returncode == 2


FULL = "can't write to standard output (No space left on device): send it somewhere else"
CLOSED = "can't write to standard output (it is closed): send it somewhere else"


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 2, FULL),
        (">&-", 2, CLOSED),
        ("2>/dev/full", 0, None),
        ("2>&-", 0, None),
        (">&- 2>&-", 2, None),
        ("<&- >/dev/full 2>/dev/full", 2, None),
    ],
)
@pytest.mark.parametrize(
    "typed", ["--version", "flops --help", "flops net", "flops net --json", "gate net"]
)
def test_an_output_that_is_full_or_closed(
    linear: Callable[..., Path], redirection: str, code: int, said: str | None, typed: str
) -> None:
    """One line, where it can be said, and never the exit code of a gate that refuses."""
    gate = "gate --candidate net --baseline net --max-file-size 1GB"
    arguments = (gate if typed == "gate net" else typed).replace("net", str(linear()))
    command = f"exec {sys.executable} -m trpexport {arguments} {redirection}"
    done = subprocess.run(
        ["sh", "-c", command], env=buffered(), text=True, check=False, capture_output=True
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("- ")]
    assert (done.returncode, lines) == (code, [f"error: {said}"] if said else [])


def test_a_file_never_takes_the_place_of_a_missing_output(tmp_path: Path) -> None:
    """Else what libraries print goes into the file that was opened last."""
    program = (
        "from trpexport.standard_output import open_missing_streams; open_missing_streams(); "
        "file = open('file', 'w'); assert file.fileno() > 2"
    )
    command = f'exec {sys.executable} -c "{program}" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0


def test_nothing_is_left_claimed_after_an_option_that_is_wrong(run: Run) -> None:
    before = os.fstat(1)
    assert run("flops", "x.onnx", "--json", "--input-shape").code == 2
    assert run("verify", "x.onnx", "--json", "--images", "none").code == 2
    assert os.path.samestat(os.fstat(1), before)
    assert run("--version").out.startswith("trpexport ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("flops", "absent.onnx", "--json"), "there is no file absent.onnx"),
        (("bench", "--json", "--no-such-option"), "No such option"),
        (("decompose", "absent.pth", "--json"), "absent.pth"),
    ],
)
def test_errors_are_facts_for_machines_too(arguments: Sequence[str], says: str, run: Run) -> None:
    result = run(*arguments)
    told = json.loads(result.out)
    assert told.keys() == {"error", "exit_code"}
    assert told["exit_code"] == result.code == 2
    assert says in told["error"]
    assert result.error == f"error: {told['error']}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_tells_machines_of_its_errors(command: str, run: Run, tmp_path: Path) -> None:
    """Of what could not be read, and, where a file is to be named, of one that is not there."""
    found = command_line([command]).commands[command].params
    typed: list[tuple[str, ...]] = [(command, "--json", "--no-such-option")]
    needed = [part for one in found if one.required for part in (one.opts[0], "absent.onnx")]
    if needed and any("--json" in one.opts for one in found):
        typed.append((command, *(part for part in needed if part[0] in "-a"), "--json"))
    for words in typed:
        result = run(*words)
        told = json.loads(result.out)
        assert told["exit_code"] == result.code == 2
        assert result.error == f"error: {told['error']}"
