"""The size of files and rooms: what outgrows them holds two things."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

MAX_LINES = 400
MAX_SHARE = 0.13


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("folder", ["trpexport", "cli", "models_zoo", "benchmarks", "tests"])
def test_no_file_is_too_long(folder: str) -> None:
    long = {str(path.relative_to(ROOT)): lines(path) for path in (ROOT / folder).rglob("*.py")}
    assert {name: count for name, count in long.items() if count > MAX_LINES} == {}


def test_no_room_is_too_large() -> None:
    library = ROOT / "trpexport"
    total = sum(map(lines, library.rglob("*.py")))
    networks = library / "networks"  # a room for each framework
    rooms = {
        room.name: sum(map(lines, room.rglob("*.py"))) / total
        for room in (*library.iterdir(), *networks.iterdir())
        if room.is_dir() and room != networks
    }
    assert {name: share for name, share in rooms.items() if share > MAX_SHARE} == {}
