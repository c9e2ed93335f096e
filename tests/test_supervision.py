"""What a supervisor says of a process that can't speak any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trpexport.errors import TrpexportError
from trpexport.supervision import guarded, memory_allowance

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no child elsewhere")

START = """
import os, signal, sys, time
from trpexport import supervision
from trpexport.supervision import guarded, supervised
"""


def started(work: str, before: str = "") -> subprocess.Popen[str]:
    """Start a process that does some work under a supervisor."""
    body = "".join(f"    {line}\n" for line in work.splitlines())
    program = f"{START}{before}\ndef work():\n{body}\nsys.exit(supervised(work))"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def ended(work: str, before: str = "") -> tuple[int, str, str]:
    process = started(work, before)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("code", [0, 2, 4, 130])
def test_an_exit_code_is_handed_on(code: int) -> None:
    assert ended(f"print('done', flush=True)\nreturn {code}") == (code, "done\n", "")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL"])
def test_a_crash_is_one_line_that_names_the_file(name: str) -> None:
    crash = f"signal.signal(signal.{name}, signal.SIG_DFL); os.kill(os.getpid(), signal.{name})"
    work = f"with guarded('opening a.onnx', memory=None, seconds=9):\n    {crash}"
    code, out, err = ended(work)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"error: a library crashed ({name}) while opening a.onnx: " in err


@pytest.mark.parametrize("doing", ["", " while opening a.onnx"])
def test_what_the_system_ends_for_want_of_memory_is_one_line(doing: str) -> None:
    work = "os.kill(os.getpid(), signal.SIGKILL)"
    if doing:
        work = f"with guarded('opening a.onnx', memory=None, seconds=9):\n    {work}"
    code, out, err = ended(work)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert f"error: the system ended this process{doing}: there is not enough memory" in err


def test_what_does_not_end_is_stopped() -> None:
    work = (
        "with guarded('outer', memory=None, seconds=None):\n"
        "    with guarded('running b.onnx', memory=None, seconds=0.2):\n"
        "        time.sleep(50)"
    )
    code, _, err = ended(work, "supervision._POLL = 0.1")
    assert code == 2
    assert "running b.onnx did not end and was stopped" in err


def test_what_ends_in_time_may_be_followed_by_what_takes_longer() -> None:
    work = "with guarded('quick', memory=None, seconds=0.2):\n    pass\ntime.sleep(1)\nreturn 0"
    assert ended(work, "supervision._POLL = 0.1")[0] == 0


def test_a_signal_to_the_parent_alone_reaches_the_child() -> None:
    work = (
        "def told(number, frame):\n"
        "    print('told', flush=True)\n"
        "    os._exit(7)\n"
        "signal.signal(signal.SIGTERM, told)\n"
        "print('ready', flush=True)\n"
        "time.sleep(50)"
    )
    process = started(work)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "told\n"
    assert process.returncode == 7


def test_the_child_dies_with_its_parent() -> None:
    process = started("print(os.getpid(), flush=True)\ntime.sleep(50)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=30)  # ends when nobody holds the pipe any more
    end = time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_memory_beyond_the_limit_is_not_given() -> None:
    with pytest.raises(MemoryError), guarded("testing", memory=1 << 26, seconds=None):
        bytearray(1 << 28)
    assert len(bytearray(1 << 28)) == 1 << 28


@pytest.mark.parametrize(("text", "expected"), [("3G", 3 << 30), (None, (1 << 30) + 10)])
def test_memory_may_be_chosen(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int
) -> None:
    monkeypatch.delenv("TRPEXPORT_MEMORY", raising=False)
    if text is not None:
        monkeypatch.setitem(os.environ, "TRPEXPORT_MEMORY", text)
    assert memory_allowance(1) == expected


@pytest.mark.parametrize("text", ["", "much", "-1G", "0G", "1e3"])
def test_other_words_for_memory_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setitem(os.environ, "TRPEXPORT_MEMORY", text)
    with pytest.raises(TrpexportError, match="must look like 8G"):
        memory_allowance(1)
