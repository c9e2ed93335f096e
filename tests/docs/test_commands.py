"""Every command on every page is one: its options exist, and take what is given."""

from __future__ import annotations

import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docs.pages import PAGES, Block, arguments, blocks, prose, shell_blocks

# Programs that pages call beside this one; what they do is not ours.
_FOREIGN = {"pip", "git", "cd", "ssh", "python", "ray", "cat", "ls"}
# Options of other programs that the text speaks of.
_FOREIGN_OPTIONS = {"--nproc-per-node", "--num-cpus"}


@cache
def application() -> Any:
    return import_module("trpexport.cli").app.command_line()


@cache
def options(command: str) -> set[str]:
    group = application()
    parameters = [*group.params, *group.commands[command].params]
    return {name for one in parameters for name in (*one.opts, *one.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("block", shell_blocks(), ids=lambda block: block.place)
def test_commands_are_typed_right(block: Block) -> None:
    for words in block.commands:
        typed = arguments(words)
        if typed is None:
            check_foreign(words)
        elif typed not in (["--help"], ["--version"]):
            parse(typed)


def test_the_makefile_types_right() -> None:
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    found = re.findall(r"\$\(BIN\)/(trpexport [^;|\n\"]+)", text)
    assert len(found) > 5
    for line in found:
        typed = arguments(shlex.split(re.sub(r"\$\(\w+\)", "x", line)))
        parse(typed or [])


def parse(typed: list[str]) -> None:
    """Make values of what is typed, and run nothing."""
    # Left again, as options may take over standard output until then.
    with application().make_context("trpexport", list(typed)) as context:
        name, command, rest = application().resolve_command(context, list(typed))
        command.make_context(name, rest, parent=context).close()


def check_foreign(words: list[str]) -> None:
    program = Path(words[0]).name
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{words[1]}:", makefile, re.M), words
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        check_benchmark(words[2])
    else:
        assert program in _FOREIGN, f"{words}: is this a program that pages may call?"


def check_benchmark(module: str) -> None:
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_text_names_exists(page: Path) -> None:
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))
    everything = set().union(*map(options, application().commands)) | _FOREIGN_OPTIONS
    for span in spans:
        words = span.split()
        if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
            if words[2] != "benchmarks.NAME":
                check_benchmark(words[2])
            continue
        names = [word for word in words if re.match(r"--[a-z]", word)]
        first, *rest = [word for word in words if not word.startswith("-")] or [""]
        command = rest[0] if first == "trpexport" and rest else first
        if first == "trpexport" and rest:
            assert command == "COMMAND" or command in application().commands, span
        known = options(command) if command in application().commands else everything
        assert {name.partition("=")[0] for name in names} <= known, span


def test_a_marker_gives_a_reason() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.not_run is not None]
    assert found
    assert all(len(block.not_run or "") > 10 for block in found)


def test_every_fence_is_seen() -> None:
    for page in PAGES:
        fences = re.findall(r"^```", page.read_text(), re.M)
        assert len(fences) == 2 * len(list(blocks(page))), page


def test_commands_stand_in_fenced_blocks() -> None:
    """Indented blocks would be looked at by no test."""
    for page in PAGES:
        assert not re.findall(r"^(?: {4}|\t)(?:trpexport|make) ", page.read_text(), re.M), page
        for block in blocks(page):
            if block.language in ("", "text", "bash", "console", "shell"):
                assert not re.findall(r"^(?:\$ )?trpexport \w+ ", block.code, re.M), block.place


def test_every_criterion_and_scheme_is_explained() -> None:
    from trpexport.lowrank.criteria import CRITERIA
    from trpexport.lowrank.schemes import SCHEMES

    guide = (ROOT / "docs/guide/decompose.md").read_text()
    for name in (*CRITERIA, *SCHEMES):
        assert f"`{name}" in guide


def test_every_command_has_its_place_in_the_text() -> None:
    """A command that no page shows is one that nobody finds."""
    shown = {
        typed[0] for block in shell_blocks() for typed in map(arguments, block.commands) if typed
    }
    assert set(application().commands) <= shown
