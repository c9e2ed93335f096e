"""How much is said: --quiet, --verbose, --log-file, before a command's name and behind it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import helper

from tests.conftest import Run

QUICK = ("--no-memory", "--min-runs", 2, "--min-time", 0, "--warmup-seconds", 0)


@pytest.fixture
def network(write_onnx: Callable[..., Path]) -> Path:
    return write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 3)}, {"y": None})


def test_quiet_leaves_the_last_line(run: Run, network: Path) -> None:
    loud = run("bench", network, network, *QUICK)
    assert loud.err and len(loud.out.splitlines()) > 3
    for typed in (("bench", network, network, *QUICK, "--quiet"), ("--quiet", "bench", network)):
        result = run(*typed, *QUICK)
        assert result.code == 0
        assert result.err == ""
        assert len(result.out.splitlines()) == 1


def test_quiet_leaves_errors_and_facts(run: Run, network: Path) -> None:
    assert run("flops", "gone.onnx", "--quiet").error
    assert json.loads(run("flops", network, "--quiet", "--json").out)["macs"] == 0
    assert run("verify", network, "gone.onnx", "--count", 3, "--quiet").err.count("\n") == 1


def test_verbose_has_times_and_options_and_origins(run: Run, network: Path) -> None:
    result = run("bench", network, *QUICK, "--verbose")
    assert re.search(r"^\[ +\d+\.\d s\] options: .*min-runs=2", result.err, re.MULTILINE)
    assert len(re.findall(r"^\[ +\d+\.\d s\] - ", result.err, re.MULTILINE)) >= 1
    failed = run("flops", "gone.onnx", "--verbose")
    assert "Traceback" in failed.err
    assert failed.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in run("flops", network, "--images", 3, "--verbose").err


def test_the_two_exclude_each_other(run: Run) -> None:
    for typed in (("flops", "x", "--quiet", "--verbose"), ("--verbose", "flops", "x", "--quiet")):
        assert "--quiet and --verbose exclude each other" in run(*typed).err


def test_the_log_file_keeps_all_of_it(
    run: Run, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    log = tmp_path / "log.txt"
    shown = run("bench", network, *QUICK, "--log-file", log)
    assert shown.code == 0
    kept = log.read_text()
    assert "\x1b" not in kept
    first, *rest = kept.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ trpexport bench ", first)
    assert any(re.match(r"\[ +\d+\.\d s\] - ", line) for line in rest)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert plain in kept
    # Further runs are added, quiet ones too, and errors.
    assert run("flops", "gone.onnx", "--log-file", log, "--quiet").code == 2
    added = log.read_text()
    assert added.startswith(kept)
    assert "error: " in added[len(kept) :]


def test_a_log_file_that_cant_be_written_is_one_line(run: Run, network: Path) -> None:
    for typed in (
        ("flops", network, "--log-file", "/proc/none/log"),
        ("--log-file", "/proc/none/log"),
    ):
        error = run(*typed).error
        assert "can't write /proc/none/log" in error and "--log-file" in error


def test_what_is_parsed_outside_a_run_changes_no_other() -> None:
    """Pages and other programs read command lines without running them."""
    cli = importlib.import_module("trpexport.cli.app")
    voice = importlib.import_module("trpexport.cli.voice").voice
    bench = cli.command_line().commands["bench"]
    with bench.make_context("bench", ["model.onnx", "--quiet", "--provider", "cpu"]):
        pass
    assert not voice().is_quiet
