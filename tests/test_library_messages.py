"""The library does not speak to a terminal: what it says names no option of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import pytest
import typer

from tests.conftest import ROOT

LIBRARY = ROOT / "trpexport"
# Options of programs that are run, some of which have the same names as ours.
OTHER_PROGRAMS = {
    "device/ssh.py": {"-o"},
    "device/emulate/arm_setup.py": {"-o", "--version"},
}
OPTION = re.compile(r"(?<![\w-])(?:--[A-Za-z][\w-]*|-[a-z]\b)")
FILLED_IN = "x"  # in the place of what an f-string fills in


@cache
def options_of_commands() -> set[str]:
    group = typer.main.get_group(import_module("trpexport.cli").application())
    return {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-")
    }


def texts(source: str) -> Iterator[str]:
    """Yield the strings of a module, but its docstrings; an f-string as a whole."""
    tree = ast.parse(source)
    left_out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            left_out.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else FILLED_IN
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def named(source: str) -> set[str]:
    """Return the options of the command line that a module's strings name."""
    ours = options_of_commands() | {f"--{FILLED_IN}"}
    return {option for text in texts(source) for option in OPTION.findall(text)} & ours


FILES = sorted(path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_no_string_names_an_option(file: str) -> None:
    assert named((LIBRARY / file).read_text()) <= OTHER_PROGRAMS.get(file, set())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise E('give --input-shape 1x3')", {"--input-shape"}),
        ("raise E('choose another place with -o')", {"-o"}),
        ("raise E(f'--{name} is out of range')", {"--x"}),
        ("raise E(f'in {place}: leave ' f'--batch out')", {"--batch"}),
        ("raise E(f'{say(\"--lr\")}')", {"--lr"}),
        (
            "'''Says --json.'''\n# and --csv\nx = 'a -- b, tar --dereference, --data-x, a--data'",
            set(),
        ),
    ],
)
def test_it_would_notice(source: str, found: set[str]) -> None:
    assert named(source) == found
