"""What code of others raised, in one line."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from trpexport.foreign import cause_of, first_line, told

SOURCE = """
import json

def fails(kind):
    if kind == "key": {}["width"]
    if kind == "zero": 1 / 0
    if kind == "stop": next(iter([]))
    if kind == "exit": raise SystemExit(3)
    if kind == "json": json.loads("{")
    raise ValueError("\\n \\x1b[96mfirst\\x1b[0m\\a line\\nsecond")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    (tmp_path / "own_net.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    return __import__("own_net")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("key", "KeyError: 'width', own_net.py:5"),
        ("zero", "ZeroDivisionError: division by zero, own_net.py:6"),
        ("stop", "StopIteration, own_net.py:7"),
        ("exit", "SystemExit: 3, own_net.py:8"),
        ("other", r"ValueError: first\x07 line, own_net.py:10"),
    ],
)
def test_kind_words_and_place(module: types.ModuleType, kind: str, line: str) -> None:
    with pytest.raises((Exception, SystemExit)) as caught:
        module.fails(kind)
    assert told(caught.value) == line


def test_the_place_is_the_users_even_where_a_library_raises(module: types.ModuleType) -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        module.fails("json")
    assert told(caught.value).endswith(", own_net.py:9")


def test_no_place_without_code_of_others() -> None:
    assert told(KeyError("a")) == "KeyError: 'a'"


def test_the_cause_is_the_first_that_went_wrong() -> None:
    try:
        try:
            raise KeyError("a")
        except KeyError as error:
            raise RuntimeError("graph\n" * 1000) from error
    except RuntimeError as error:
        assert told(cause_of(error)).startswith("KeyError: 'a'")


def test_a_graph_in_one_line_is_cut() -> None:
    assert len(first_line("x" * 10_000)) < 400
