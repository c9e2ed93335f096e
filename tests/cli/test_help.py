"""Help pages: over the whole width, in groups, and nothing of them is cut."""

from __future__ import annotations

import pytest

from cli.app import command_line
from cli.pages import examples
from cli.panels import COMMANDS as GROUPS
from tests.conftest import Run

COMMANDS = command_line().commands
WIDTHS = (80, 100, 160)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = run(name, "--help").out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    assert name != "decompose" or max(map(len, shown.splitlines())) > width - 8
    for parameter in COMMANDS[name].params:
        assert words(parameter.help or "") in words(shown)
        assert all(option in shown for option in parameter.opts if option.startswith("-"))
    for line in examples(COMMANDS[name].help):
        assert f"  {line}\n" in shown  # whole, to be copied


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_has_whole_summaries(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = run("--help").out
    assert "..." not in shown.partition("Examples:")[2] and "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for command in COMMANDS.values():
        assert words(command.help).partition(". ")[0].rstrip(".") in words(shown)
    places = [shown.index(f"{panel}:") for panel in GROUPS]
    assert places == sorted(places)


def test_common_options_come_first(run: Run) -> None:
    shown = run("decompose", "--help").out
    assert shown.index("Common options:") < shown.index("Limits:") < shown.index("The ONNX file:")
    assert shown.index("--calib") < shown.index("--opset") < shown.index("--json")
    assert "Others:" not in shown
    assert "9223372036854775807" not in shown


@pytest.mark.parametrize(("command", "option"), [("train", "--arch"), ("gate", "--candidate")])
def test_what_has_to_be_typed_is_a_common_option(run: Run, command: str, option: str) -> None:
    common = run(command, "--help").out.partition("Common options:")[2].partition("\n\n")[0]
    assert option in common and "[required]" in common
