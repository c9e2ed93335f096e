"""JSON is parsed strictly, and compared with the shape that it must have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trpexport import schema
from trpexport.schema import (
    MayLack,
    check,
    each,
    fits,
    flag,
    not_negative,
    number,
    parse_json,
    positive,
    read_text,
    text,
    whole,
)


@pytest.mark.parametrize("data", [None, True, 1.5, 10**30, "ä\ud800", [1, []], {"a": {}}])
def test_json_is_read(data: object) -> None:
    assert parse_json(json.dumps(data)) == data


@pytest.mark.parametrize(
    "content", ["NaN", "[-Infinity]", "1e999", "[" * 100_000, "{", "", "1" * 10_000]
)
def test_what_is_no_json_is_refused(content: str) -> None:
    with pytest.raises(ValueError):
        parse_json(content)


def test_no_more_is_read_than_may_be_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MAX_BYTES", 100)
    path = tmp_path / "long.json"
    path.write_text("1" * 100)
    assert len(read_text(path)) == 100
    path.write_text("1" * 101)
    for read in (read_text, lambda path: parse_json(path.read_text())):
        with pytest.raises(ValueError, match="more than"):
            read(path)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_text(Path(os.devnull))
    os.mkfifo(tmp_path / "pipe")  # nobody will ever write to it
    with pytest.raises(OSError, match="not a regular file"):
        read_text(tmp_path / "pipe")


SHAPE = {"name": text, "sizes": [whole(1)], "more": MayLack((None, {"low": number}))}


@pytest.mark.parametrize(
    "data",
    [
        {"name": "a", "sizes": [1, 2]},
        {"name": "a", "sizes": [], "more": None, "other": 5},
        {"name": "a", "sizes": [3], "more": {"low": -1.5}},
    ],
)
def test_data_of_a_shape(data: object) -> None:
    check(data, SHAPE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "it is not"),
        ({"name": "a"}, "it lacks sizes"),
        ({"name": 5, "sizes": []}, "name is not"),
        ({"name": "a", "sizes": [1, 0]}, r"sizes\[1\] is not"),
        ({"name": "a", "sizes": {}}, "sizes is not"),
        ({"name": "a", "sizes": [], "more": {}}, "it lacks more.low"),
        ({"name": "a", "sizes": [], "more": {"low": "x"}}, "more.low is not"),
    ],
)
def test_data_of_another_shape_names_the_place(data: object, words: str) -> None:
    assert not fits(data, SHAPE)
    with pytest.raises(ValueError, match=f"^{words}"):
        check(data, SHAPE)


@pytest.mark.parametrize(
    ("shape", "right", "wrong"),
    [
        (text, ["", "a"], [None, 1, ["a"]]),
        (flag, [True, False], [0, 1, None]),
        (number, [0, -1.5, 10**9], [True, "1", None, 10**400, -(10**400), float("inf")]),
        (not_negative, [0, 1.5], [-1, -0.5, True]),
        (positive, [1, 1e-9], [0, -1]),
        (whole(1, 5), [1, 5], [0, 6, 1.0, True, "1"]),
        (each(whole(0)), [{}, {"a": 3}], [[], {"a": -1}]),
        (None, [None], [0, False, ""]),
    ],
)
def test_kinds_of_values(shape: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [fits(value, shape) for value in right] == [True] * len(right)
    assert [fits(value, shape) for value in wrong] == [False] * len(wrong)
