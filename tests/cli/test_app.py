"""The table of commands: each is imported when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cli.app import application
from tests.conftest import Run

COMMANDS = [command.name for command in application().registered_commands]


@pytest.mark.parametrize(
    ("typed", "imported"), [("flops", {"flops"}), ("arm-setup", {"arm_setup"}), ("eval", {"eval"})]
)
def test_a_command_imports_no_other(typed: str, imported: set[str]) -> None:
    script = (
        "import sys; from importlib import import_module;"
        f"import_module('trpexport.cli').run(['{typed}', '--help']);"
        "print(*[name for name in sys.modules if name.startswith('trpexport.cli.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    modules = {name.rpartition(".")[2] for name in done.stdout.splitlines()[-1].split()}
    commands = {str(name).replace("-", "_") for name in COMMANDS}
    assert modules & commands == imported


def test_help_lists_every_command(run: Run) -> None:
    listed = run("--help")
    assert listed.code == 0
    words = {line.split()[0] for line in listed.out.splitlines() if line.startswith("  ")}
    assert words >= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, run: Run) -> None:
    shown = run(name, "--help")
    assert shown.code == 0
    assert f"trpexport {name}" in shown.out


def test_an_unknown_command_is_told_the_near_ones(run: Run) -> None:
    assert "'bench'" in run("banch", "model.onnx").error
    assert run("nothing-like-it").code == 2
