"""``NO_COLOR`` (no-color.org) leaves no style on a terminal, bold and faint ones neither."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

console = import_module("trpexport.cli.console")
STYLE = re.compile(r"\x1b\[[\d;]+m")


class Terminal(io.StringIO):
    """A terminal that knows colours."""

    def isatty(self) -> bool:
        return True


def terminal(patch: pytest.MonkeyPatch, variable: str | None) -> Terminal:
    """Be on a terminal, and have ``NO_COLOR`` be something."""
    found = Terminal()
    patch.setattr(sys, "stdout", found)
    patch.setattr(sys, "stderr", found)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "80"), ("NO_COLOR", variable)):
        if value is None:
            patch.delenv(name, raising=False)
        else:
            patch.setenv(name, value)
    return found


@pytest.mark.parametrize("variable", [None, "", "1"])
def test_tables_and_sentences(
    linear: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    with monkeypatch.context() as patch:
        shown = terminal(patch, variable)
        assert import_module("trpexport.cli").run(["flops", str(linear())]) == 0
    assert bool(STYLE.search(shown.getvalue())) is not bool(variable)


@pytest.mark.parametrize("variable", [None, "1"])
def test_bars(monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    with monkeypatch.context() as patch:
        shown = terminal(patch, variable)
        with console.progress() as stages:
            for line in ("calibrate", "pass 1, 9 of 18, 6 s left: conv"):
                stages.say(line)
                time.sleep(0.15)  # ten times a second it is drawn
            stages.remark("it hardly pays")
        with console.bar(3, "going on") as advance:
            advance(1)
    assert "pass 1" in shown.getvalue()
    assert bool(STYLE.search(shown.getvalue())) is not bool(variable)
