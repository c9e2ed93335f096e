"""What tables say of themselves, and who may know of whom in the room."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import trpexport
from trpexport.report.blocks import Column, Kind, Portion, Table

LIBRARY = Path(trpexport.__file__).parent
REPORT = LIBRARY / "report"
GENERIC = [REPORT / "blocks.py", REPORT / "page.py", *sorted((REPORT / "render").glob("*.py"))]


@cache
def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_numbers_are_aligned_to_the_right() -> None:
    left = {kind.name for kind in Kind if kind.align == "left"}
    assert left == {"NAME", "PROSE", "SHAPE", "BARS"}


def test_portions_are_ordered_by_their_part() -> None:
    assert Portion(9, 96) < Portion(10, 48)


@pytest.mark.parametrize(("titles", "has_head"), [(("", ""), False), (("", "loss"), True)])
def test_a_table_without_titles_has_no_head(titles: tuple[str, ...], has_head: bool) -> None:
    columns = tuple(Column(str(i), title, Kind.NAME) for i, title in enumerate(titles))
    assert Table(columns, ()).has_head is has_head


@pytest.mark.parametrize(
    ("package", "file"),
    [("rich", "rich.py"), ("jinja2", "html.py"), ("matplotlib", "pictures.py")],
)
def test_one_file_of_the_library_knows_what_draws(package: str, file: str) -> None:
    users = [
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        if any(name.split(".")[0] == package for name in imported(path))
    ]
    assert users == [f"report/render/{file}"]


@pytest.mark.parametrize("path", GENERIC, ids=lambda path: path.name)
def test_blocks_and_renderers_know_no_facts(path: Path) -> None:
    own = {name for name in imported(path) if name.startswith("trpexport")}
    rooms = (
        "report.blocks",
        "report.page",
        "report.render",
        "text",
        "errors",
        "files",
        "installing",
    )
    allowed = tuple(f"trpexport.{room}." for room in rooms)
    assert [name for name in own if not f"{name}.".startswith(allowed)] == []
