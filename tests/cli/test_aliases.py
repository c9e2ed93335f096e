"""Names of yesterday: they work, with a note, and help pages are silent of them."""

from __future__ import annotations

import pytest

from cli.aliases import OPTIONS, WAYS, modern
from trpexport.errors import TrpexportError


def told(*typed: str) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    return modern(typed, notes.append), notes


@pytest.mark.parametrize(
    ("typed", "today", "notes"),
    [
        (["eval", "x", "--limit", "3"], ["eval", "x", "--images", "3"], 1),
        (["gate", "--limit=3", "--limit", "4"], ["gate", "--images=3", "--images", "4"], 1),
        (["verify", "a", "--", "--count"], ["verify", "a", "--", "--count"], 0),
        (["bench", "x", "--profile", "--min-runs", "4"], ["profile", "x", "--min-runs", "4"], 1),
        (["bench", "--compare", "a", "b"], ["compare", "a", "b"], 1),
        (["bench", "x", "--emulate", "max"], ["emulate", "x", "--cpu", "max"], 1),
        (
            ["bench", "--emulate=max", "x", "--data", "y.npy"],
            ["emulate", "--cpu=max", "x", "--inputs", "y.npy"],
            2,
        ),
        (["bench", "x", "--provider", "cpu"], ["bench", "x", "--provider", "cpu"], 0),
        (["train", "--data", "digits"], ["train", "--data", "digits"], 0),
        ([], [], 0),
        (["--help"], ["--help"], 0),
    ],
)
def test_what_was_typed_becomes_todays(typed: list[str], today: list[str], notes: int) -> None:
    found, said = told(*typed)
    assert found == today
    assert len(said) == notes
    for line in said:
        assert "now" in line and "next version" in line


def test_ways_exclude_each_other() -> None:
    with pytest.raises(TrpexportError, match="--compare and --profile exclude each other"):
        told("bench", "x", "--profile", "--compare")


def test_new_names_are_options_and_old_ones_are_none() -> None:

    from cli.app import command_line

    commands = command_line().commands
    for command, names in OPTIONS.items():
        options = {name for param in commands[command].params for name in param.opts}
        assert options >= set(names.values())
        assert options.isdisjoint(names)
    assert set(WAYS.values()) <= commands.keys()
