"""Every kind of value in every renderer, at every width: nothing is lost, cut or interpreted."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.report.render.test_spans import EXAMPLES
from trpexport.report.blocks import (
    Block,
    Column,
    Kind,
    Portion,
    Range,
    Role,
    Table,
    Text,
    Tone,
    Value,
)
from trpexport.report.render.markdown import markdown
from trpexport.report.render.rich import print_blocks

WIDTHS = (40, 60, 80, 120, 200)
HOSTILE = ("[red]x[/red]", "a|b", "*x*", "_y_", "<b>z</b>", "`code`", "~~no~~", "&amp;", "C:\\dir")
NUMBERS = tuple(kind for kind in Kind if kind.align == "right")

ROW = {
    **{kind.name: raw for kind, (raw, _) in EXAMPLES.items()},
    "rank": Portion(39, 192),
    "interval": Range(1.575, 1.652),
}
TABLE = Table(
    columns=(
        Column("name", "a long name of a column", Kind.NAME),
        *(Column(kind.name, f"in {kind.name.lower()}", kind) for kind in Kind),
        Column("rank", "rank", Kind.WHOLE, absent="kept"),
        Column("interval", "95 % interval", Kind.RATIO, digits=3),
    ),
    rows=(
        {"name": "layer1.0.conv1", **ROW},
        {"name": "layer3.0.downsample.0", **ROW},
        {"name": "empty", "rank": None},
    ),
    totals=({"name": "all", "COUNT": Value(123_456_789, bound="at least")},),
    title=("a title of ", Value(12_345_678, Kind.COUNT)),
    faint=frozenset({2}),
)
SENTENCE = tuple(
    part for kind in NUMBERS for part in ("then it comes to ", Value(EXAMPLES[kind][0], kind), ", ")
)


def terminal(blocks: list[Block], width: int, *, is_terminal: bool = True) -> str:
    shown = io.StringIO()
    console = Console(file=shown, width=width, highlight=False, force_terminal=is_terminal)
    print_blocks(blocks, console)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())


def pipe(blocks: list[Block], width: int) -> str:
    return terminal(blocks, width, is_terminal=False)


def page(blocks: list[Block], width: int) -> str:
    """What a reader of the Markdown sees: plain text and code, no markup."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = []
    for token in parser.parse(markdown(blocks)):
        if token.type == "code_block":
            shown.append(token.content)
        shown.append("".join(t.content for t in token.children or () if t.type == "text"))
    return "\n".join(shown)


RENDERERS: dict[str, Callable[[list[Block], int], str]] = {
    "terminal": terminal,
    "pipe": pipe,
    "markdown": page,
}
rendered = pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)


@rendered
@pytest.mark.parametrize("width", WIDTHS)
def test_no_number_of_a_table_is_cut_or_lost(
    render: Callable[[list[Block], int], str], width: int
) -> None:
    text = render([TABLE], width)
    for kind in NUMBERS:
        assert text.count(EXAMPLES[kind][1]) == 2
    for number in ("39 of 192", "1.575 to 1.652x", "12.3 M", "≥ 123 M", "kept", "1x3x224x224"):
        assert number in text
    assert "…" not in text


@rendered
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("role", list(Role))
def test_no_number_of_a_sentence_is_cut_or_lost(
    render: Callable[[list[Block], int], str], width: int, role: Role
) -> None:
    text = render([Text(SENTENCE, role)], width)
    for kind in NUMBERS:
        assert EXAMPLES[kind][1] in text


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_keep_within_the_terminal(width: int) -> None:
    lines = terminal([TABLE, Text(SENTENCE), Text(SENTENCE, Role.NOTE)], width).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


@rendered
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", HOSTILE)
def test_markup_in_names_is_shown_as_it_is(
    render: Callable[[list[Block], int], str], width: int, name: str
) -> None:
    columns = (Column("a", name, Kind.NAME), Column("b", "b", Kind.PROSE))
    table = Table(columns, ({"a": name, "b": name},), ({"a": name},), title=name)
    blocks: list[Block] = [table, *(Text(name, role) for role in Role)]
    for block in blocks:
        text = render([block], width)
        assert text.count(name) == (5 if isinstance(block, Table) else 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_a_whole_cell_of_markdown(name: str) -> None:
    columns = (Column("a", name, Kind.NAME), Column("b", "b", Kind.NAME))
    shown = page([Table(columns, ({"a": name, "b": "c"},))], 80)
    assert [line for line in shown.splitlines() if line] == [name, "b", name, "c"]


def test_sentences_are_wrapped_for_people_and_whole_in_a_pipe() -> None:
    assert len(terminal([Text(SENTENCE)], 60).splitlines()) > 2
    assert len(pipe([Text(SENTENCE)], 60).splitlines()) == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_commands_can_be_copied_whole(width: int) -> None:
    command = "trpexport verify " + "/a/long/way/to/a/bundle" * 5
    assert terminal([Text(command, Role.COMMAND)], width) == f"{command}\n"


def test_what_is_left_out_is_named() -> None:
    columns = (Column("a", "model", Kind.NAME), Column("b", "p99", Kind.SECONDS, optional=True))
    table = Table(columns, ({"a": "a-network-with-a-name-of-some-length", "b": 0.0123},))
    assert "12.3 ms" in terminal([table], 45)
    text = terminal([table], 44)
    assert "12.3 ms" not in text
    assert "(no room at 44 columns for: p99)" in text


def test_blocks_are_set_apart() -> None:
    table = Table((Column("a", "", Kind.NAME),), ({"a": "x"},))
    lines = terminal([Text("first"), table, Text("after"), table], 80).splitlines()
    assert [line.rstrip() for line in lines] == ["first", "", "x", "after", "", "x"]


def test_colours() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True, color_system="standard")
    print_blocks(
        [
            Text("fine", Role.VERDICT, Tone.GOOD),
            Text(("it ", Value("FAIL", tone=Tone.BAD), "ed")),
            Table((Column("a", "", Kind.NAME),), ({"a": "x"},), faint=frozenset({0})),
        ],
        console,
    )
    text = shown.getvalue()
    assert "\x1b[1;32mfine\x1b[0m" in text
    assert "it \x1b[1;31mFAIL\x1b[0med" in text
    assert "\x1b[2mx" in text
