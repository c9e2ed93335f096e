"""What strangers call things, on a terminal: neither obeyed nor printed without end."""

from __future__ import annotations

import importlib
import io
import re
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.conftest import Run

console = importlib.import_module("trpexport.cli.console")
NAME = "conv\x1b[2J[/red]\u202e.weight"


def test_a_stage_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markup that closes nothing is an error to rich, and would otherwise be obeyed."""
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress() as stages, stages(NAME * 1000):
        pass
    with console.bar(3, NAME) as advance:
        advance(1)
    assert "[/red]" in shown.getvalue()
    assert "\x1b[2J" not in shown.getvalue() and "\u202e" not in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) < 2000


def test_the_bar_is_of_the_stage_that_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with console.progress() as stages:
        for line in ("calibrate", "pass 1, 9 of 18, 6 s left: conv", "export to ONNX"):
            stages.say(line)
            time.sleep(0.25)  # ten times a second it is drawn
        stages.remark("it hardly pays [here]")
    frames = {
        line: "".join(frame for frame in re.split(r"\r|\n", shown.getvalue()) if line in frame)
        for line in ("calibrate", "9 of 18", "export to ONNX")
    }
    assert all(frames.values())
    assert {line for line, frame in frames.items() if "\u2501" in frame} == {"9 of 18"}
    assert "it hardly pays [here]" in shown.getvalue()


def test_progress_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"going through {NAME * 10_000}")
    assert capsys.readouterr().err.rstrip("\n").isprintable()


def test_half_a_character_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.show_text("a,\ud800\n")
    assert capsys.readouterr().out == "a,?\n"


def test_an_error_of_a_command_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file({NAME: torch.ones(3, 3)}, path)
    result = run("flops", path)
    assert result.code == 2
    assert result.error.isprintable()
