"""Inspections as blocks."""

from __future__ import annotations

from typing import Any

from trpexport.report.blocks import Kind, Role, Table, Text, Tone, Value
from trpexport.report.views.spectra import spectra_view

FACTS: dict[str, Any] = {
    "macs": 1000,
    "uncounted": {},
    "architecture": "net[0]",
    "input_shape": [1, 3, 8, 8],
    "scheme": "spatial",
    "layers": [
        {"name": "stem", "operator": "3->16 3x3", "reason_kept": "it is the stem"},
        {
            **{"name": "body", "operator": "16->16 3x3", "reason_kept": None},
            **{"full_rank": 48, "break_even_rank": 23, "spectrum": (4.0, 2.0)},
            "ranks": {"energy:0.9": 23, "vbmf": 24},
        },
        {
            **{"name": "tail", "operator": "16->1 1x1", "reason_kept": None},
            **{"full_rank": 1, "break_even_rank": 0, "spectrum": (4.0,)},
            "ranks": {"energy:0.9": 1, "vbmf": 1},
        },
    ],
    "criteria": [
        {"criterion": "energy:0.9", "macs_ratio": 1.45, "weight_error": 0.312},
        {"criterion": "vbmf", "macs_ratio": 4.24, "weight_error": 0.739},
    ],
}


def test_cheap_ranks_are_good() -> None:
    table, _ = spectra_view(FACTS)
    assert isinstance(table, Table)
    stem, body, tail = table.rows
    assert stem == {"layer": "stem", "operator": "3->16 3x3", "full_rank": None}
    assert body == {
        **{"layer": "body", "operator": "16->16 3x3", "spectrum": (4.0, 2.0)},
        **{"full_rank": 48, "break_even": 23},
        **{"energy:0.9": Value(23, tone=Tone.GOOD), "vbmf": 24},
    }
    assert (tail["break_even"], tail["energy:0.9"]) == (None, 1)
    assert table.faint == {0}


def test_totals_are_of_each_criterion() -> None:
    table, kept = spectra_view(FACTS)
    assert isinstance(table, Table) and isinstance(kept, Table)
    saved, error = table.totals
    assert saved["energy:0.9"] == Value(1.45, Kind.RATIO)
    assert error["vbmf"] == Value(0.739, Kind.SHARE)
    assert kept.rows == ({"layer": "stem", "reason": "it is the stem"},)


def test_what_is_saved_is_a_bound_where_something_was_not_counted() -> None:
    table, warning, _ = spectra_view(FACTS | {"uncounted": {"Foo": 2}})
    assert isinstance(table, Table)
    assert table.totals[0]["vbmf"] == Value(4.24, Kind.RATIO, bound="at most")
    assert warning == Text("Not counted, because not known: Foo (2)", Role.WARNING)


def test_inputs_of_several_names_are_in_the_title() -> None:
    inputs = {"image": {"shape": [1, 3, 8, 8]}, "ids": {"shape": [1, 5], "dtype": "int64"}}
    facts = {name: fact for name, fact in FACTS.items() if name != "input_shape"}
    table, _ = spectra_view({**facts, "inputs": inputs})
    assert isinstance(table, Table)
    shapes = [Value((1, 3, 8, 8), Kind.SHAPE), Value((1, 5), Kind.SHAPE)]
    assert [part for part in table.title if isinstance(part, Value)][:-1] == shapes
