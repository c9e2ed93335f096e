"""Ctrl-C and SIGTERM, sent to real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.training.processes import write_digits

PLAIN = ROOT / "models_zoo/checkpoints/resnet20-plain.safetensors"
DECOMPOSE = ("decompose", PLAIN, "--criterion", "energy:0.9", "-o", "out")
# A shell in the background has its jobs ignore interrupts, and those inherit that.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "from trpexport.__main__ import main; main()"
)


class Process:
    """``trpexport`` in a process group of its own."""

    def __init__(self, *arguments: object, cwd: Path, modules: Path | None = None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if modules is not None:
            environment["PYTHONPATH"] = str(modules)
        self.popen = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, arguments)],
            cwd=cwd, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.lines: list[str] = []

    def wait_for(self, line: str) -> None:
        """Wait until a line on standard error begins so."""
        assert self.popen.stderr is not None
        for found in self.popen.stderr:
            self.lines.append(found.rstrip("\n"))
            if found.startswith(line):
                return
        raise AssertionError(f"it ended without {line!r}: {self.lines}")

    def end(self) -> tuple[int, str]:
        """Return the exit code and the one line that was said."""
        out, err = self.popen.communicate(timeout=60)
        lines = [line for line in (*self.lines, *err.splitlines()) if not line.startswith("- ")]
        assert out == ""
        said = [line for line in lines if not re.match(r"epoch \d|the run|going on", line)]
        assert len(said) == 1, lines
        return self.popen.returncode, said[0]


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def begin(*arguments: object, modules: Path | None = None) -> Process:
        started.append(Process(*arguments, cwd=tmp_path, modules=modules))
        return started[-1]

    yield begin
    for process in started:
        with process.popen as popen:
            popen.kill()


def is_running(pid: str) -> bool:
    status = Path(f"/proc/{pid}/status")  # that of a zombie may stay: nobody asks for its code
    return status.is_file() and "\nState:\tZ" not in status.read_text()


def entries(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize(
    ("stage", "number", "word"),
    [
        ("compute spectra", signal.SIGINT, "interrupted"),
        pytest.param("export to ONNX", signal.SIGINT, "interrupted", marks=pytest.mark.slow),
        pytest.param("verify the ONNX file", signal.SIGTERM, "terminated", marks=pytest.mark.slow),
        pytest.param("export to ONNX", signal.SIGHUP, "hung up", marks=pytest.mark.slow),
    ],
)
def test_a_stage_is_named_and_nothing_is_written(
    start: Start, tmp_path: Path, stage: str, number: signal.Signals, word: str
) -> None:
    process = start(*DECOMPOSE, "--verify-seconds", 40, "--no-simplify")
    process.wait_for(f"- {stage}")
    process.popen.send_signal(number)
    code, said = process.end()
    assert (code, said) == (128 + number, f'error: {word} at "{stage}"; nothing was written to out')
    assert entries(tmp_path) == []


@pytest.mark.slow
def test_twice_is_once_and_what_stood_there_stands(start: Start, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    process = start(*DECOMPOSE, "--force", "--verify-seconds", 40, "--no-simplify")
    process.wait_for("- verify the ONNX file")
    for _ in range(20):
        process.popen.send_signal(signal.SIGINT)
        time.sleep(0.005)
    code, said = process.end()
    assert code == 130
    assert said.endswith("nothing was written to out")
    assert entries(tmp_path) == ["out"]
    assert entries(tmp_path / "out") == ["manifest.json"]


def test_an_interrupt_that_becomes_an_error_is_an_interrupt(start: Start, tmp_path: Path) -> None:
    """The network's forward pass, run by the exporter, makes a RuntimeError of it."""
    (tmp_path / "net.py").write_text(
        "import os, signal, time, torch\n"
        "class Net(torch.nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        if torch.jit.is_tracing():\n"
        "            try:\n"
        "                os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "            except KeyboardInterrupt:\n"
        "                raise RuntimeError('tracing failed') from None\n"
        "        return super().forward(x)\n"
        "def make(): return Net(3, 4, 1)\n"
    )
    torch.save(torch.nn.Conv2d(3, 4, 1).state_dict(), tmp_path / "net.pth")
    before = entries(tmp_path)
    process = start(
        "export", "net.pth", "--model", "net:make", "--input-shape", "1x3x8x8",
        "--legacy-exporter", "--opset", 17, "--verify-seconds", 0, "-o", "out", modules=tmp_path,
    )  # fmt: skip
    said = 'error: interrupted at "export to ONNX"; nothing was written to out'
    assert process.end() == (130, said)
    assert [name for name in entries(tmp_path) if name != "__pycache__"] == before


@pytest.mark.parametrize("to_all", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_process_beside_it_ends_as_well(start: Start, tmp_path: Path, to_all: bool) -> None:
    """As a terminal sends it, to all processes of the command; and as kill does, to one."""
    modules, pid = tmp_path / "modules", tmp_path / "pid"
    (modules / "onnxsim").mkdir(parents=True)
    (modules / "onnxsim/__init__.py").touch()
    (modules / "onnxsim/__main__.py").write_text(
        f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    )
    quick = ("--verify-seconds", 0, "--legacy-exporter", "--opset", 17)
    process = start(*DECOMPOSE, *quick, modules=modules)
    process.wait_for("- simplify")
    while not pid.is_file() or not pid.read_text():
        time.sleep(0.01)
    if to_all:
        os.killpg(process.popen.pid, signal.SIGINT)
    else:
        process.popen.send_signal(signal.SIGINT)
    said = 'error: interrupted at "simplify"; nothing was written to out'
    assert process.end() == (130, said)
    assert not is_running(pid.read_text())
    assert entries(tmp_path) == ["modules", "pid"]


def test_a_run_says_which_epoch_stands_and_goes_on(start: Start, tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits.npz")
    options = ("--arch", "resnet20", "--data", digits, "--epochs", 60, "--batch", 32)
    process = start("train", *options, "--save-seconds", 3600, "--restart")
    process.wait_for("epoch 1 of 60")
    process.popen.send_signal(signal.SIGINT)
    code, said = process.end()
    assert code == 130
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    done, command = re.fullmatch(
        "error: interrupted; (.*) of the next are saved in run; go on with: trpexport (.*)", said
    ).groups()  # type: ignore[union-attr]
    epochs, steps = re.findall(r"\d+", done)
    assert (int(epochs), int(steps)) == (state["epoch"], state["step"])
    assert command.split() == ["train", *map(str, options), "--save-seconds", "3600"]
    files = {"best.safetensors", "last.safetensors", "metrics.jsonl", "run.json", "state.pt"}
    assert set(entries(tmp_path / "run")) == files
    again = start(*command.split())
    again.wait_for(f"going on after step {state['epoch'] * 4 + state['step']} of 240")
    again.popen.send_signal(signal.SIGTERM)
    code, said = again.end()
    assert code == 143
    assert re.search(r"terminated; \d+ epochs? and \d+ steps? of the next are saved in run", said)


@pytest.mark.slow
def test_where_no_epoch_is_finished(start: Start, tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits.npz")
    process = start("train", "--arch", "resnet20", "--data", digits, "--save-seconds", 0)
    while not (tmp_path / "run/run.json").is_file():
        time.sleep(0.01)
    process.popen.send_signal(signal.SIGINT)
    code, said = process.end()
    assert code == 130
    assert re.search(
        "nothing of the run is saved in run yet|0 epochs and [1-9].* of the next are saved", said
    )


@pytest.mark.slow
def test_a_bench_and_its_child(start: Start, tmp_path: Path) -> None:
    assert start("export", PLAIN, "-o", "out", "--verify-seconds", 0).popen.wait() == 0
    for options, line in (
        (("--min-time", 60, "--no-memory"), "- time out, in turns"),
        (("--min-time", 0, "--min-runs", 1), "- peak memory of out"),
    ):
        process = start("bench", "out", *options)
        process.wait_for(line)
        os.killpg(process.popen.pid, signal.SIGINT)
        said = f'error: interrupted at "{line[2:]}"; nothing was written'
        assert process.end() == (130, said)


def test_before_the_command_line_is_there(start: Start, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time; open('read', 'w').close(); time.sleep(60)")
    process = start("--help", modules=tmp_path)
    while not (tmp_path / "read").is_file():
        time.sleep(0.01)
    process.popen.send_signal(signal.SIGINT)
    assert process.end() == (130, "error: interrupted")


# --- in this process ------------------------------------------------------------------------

interrupts = import_module("trpexport.cli.interrupts")


@contextmanager
def stopped(message: str) -> Iterator[None]:
    # Jobs in a shell's background inherit that interrupts are ignored.
    usual = {signal.SIGINT: signal.default_int_handler}
    before = {
        number: signal.signal(number, usual.get(number, signal.SIG_DFL))
        for number in interrupts._WORDS
    }
    try:
        with (
            pytest.raises(interrupts.InterruptedCommand, match=message) as caught,
            interrupts.ended_by_signals(),
        ):
            yield
        assert caught.value.exit_code == 130
        signal.raise_signal(signal.SIGINT)  # so soon after the first it is that one
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_one_in_a_destructor_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    class Thing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with stopped("interrupted; nothing was written"):
        thing = Thing()
        del thing
        began = time.monotonic()
        time.sleep(9)
    assert time.monotonic() - began < 5
    assert capfd.readouterr() == ("", "")


def test_one_that_was_swallowed_is_raised_at_the_next_stage() -> None:
    with stopped('interrupted at "one"'):
        interrupts.reach("one")
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        interrupts.reach("two")
        pytest.fail("it went on")


def test_what_is_written_by_then_is_said(tmp_path: Path) -> None:
    new, old, other = (tmp_path / name for name in ("new", "old", "other"))
    old.write_text("a")
    with stopped(f"{new} is written; {old} is written; nothing was written to {other}$"):
        interrupts.tell_written(new, None, old, other)
        new.write_text("b")
        old.write_text("ab")
        signal.raise_signal(signal.SIGINT)


def test_without_a_signal_all_stays_as_it_was() -> None:
    before = [signal.getsignal(number) for number in interrupts._WORDS]
    with interrupts.ended_by_signals():
        pass
    assert [signal.getsignal(n) for n in interrupts._WORDS] == before
    with pytest.raises(ValueError, match="mine"), interrupts.ended_by_signals():
        raise ValueError("mine")
    with pytest.raises(SystemExit, match="5"), interrupts.ended_by_signals():
        raise SystemExit(5)
