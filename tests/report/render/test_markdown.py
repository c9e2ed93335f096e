"""Markdown, letter by letter."""

from __future__ import annotations

import pytest

from trpexport.report.blocks import Column, Kind, Role, Table, Text, Tone, Value
from trpexport.report.render.markdown import markdown


def test_a_table() -> None:
    table = Table(
        columns=(Column("rule", "rule", Kind.NAME), Column("value", "value", Kind.RATIO)),
        rows=({"rule": "a|b\nc", "value": 1.5}, {"rule": Value("FAIL", tone=Tone.BAD)}),
        totals=({"rule": "all"},),
        title="one_name",
    )
    assert markdown([table, Text("after")]).splitlines() == [
        "**one\\_name**",
        "",
        "| rule | value |",
        "| --- | ---: |",
        "| a\\|b c | 1.50x |",
        "| **FAIL** |  |",
        "| **all** |  |",
        "",
        "after",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (Text("It passed", Role.VERDICT, Tone.GOOD), "### ✅ It passed"),
        (Text("It failed: <x>", Role.VERDICT, Tone.BAD), "### ❌ It failed: \\<x>"),
        (Text("It ended", Role.VERDICT), "### It ended"),
        (Text("not counted: a_b", Role.WARNING), "**not counted: a\\_b**"),
        (Text("busy", Role.NOTE), "note: busy"),
        (Text("trpexport verify a_b", Role.COMMAND), "    trpexport verify a_b"),
        (Text("# no heading"), "\\# no heading"),
        (Text("- no list"), "\\- no list"),
        (Text("> no quotation"), "\\> no quotation"),
        (Text("a -> b"), "a -> b"),
        (Text("1. no list"), "1\\. no list"),
    ],
)
def test_sentences(text: Text, line: str) -> None:
    assert markdown([text]) == f"{line}\n"
