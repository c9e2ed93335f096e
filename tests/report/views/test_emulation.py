"""Emulated networks as blocks."""

from __future__ import annotations

from pathlib import Path

from trpexport.compare import Comparison
from trpexport.cost import Cost, OperatorCost
from trpexport.device.emulate.emulation import Counts, Emulated, EmulatedModel
from trpexport.report.blocks import Role, Table, Text, Value
from trpexport.report.views.emulation import emulation_view

VERSIONS = {"onnxruntime": "1.31", "qemu": "7.2"}
COMPARISONS = {
    "a": Comparison(1, 1e-6, 1e-7, 1.0, None),
    "b": Comparison(1, 3e-6, 1e-7, 1.0, None),
}


def cost(macs: int, unknown: dict[str, int] | None = None) -> Cost:
    return Cost((OperatorCost("l", "Conv", (1,), (1,), macs, 0, 0),), {}, unknown or {}, 0)


def model(counts: Counts | None) -> EmulatedModel:
    return EmulatedModel(Path("x.onnx"), {}, COMPARISONS, counts)


def test_instructions_are_compared_with_the_first_network() -> None:
    emulated = Emulated("a72", VERSIONS, (model(Counts(900, 90)), model(Counts(300, 30))), None)
    heading, table = emulation_view(emulated, ["base", "other"], [cost(50), cost(20)])
    assert isinstance(table, Table) and isinstance(heading, Text)
    assert "no latency" in heading.content
    base, other = table.rows
    assert base == {
        **{"model": "base", "macs": 50, "difference": 3e-6},
        **{"instructions": 900, "fmas": 90},
    }
    assert other["fewer"] == 3.0


def test_what_was_not_counted_is_said() -> None:
    emulated = Emulated("a72", VERSIONS, (model(None),), "the plugin is missing")
    _, table, *notes = emulation_view(emulated, ["base"], [cost(50, {"Foo": 1})])
    assert isinstance(table, Table)
    assert table.rows[0]["macs"] == Value(50, bound="at least")
    assert "instructions" not in table.rows[0]
    assert notes == [
        Text("the MACs of base leave out Foo (1), not known", Role.NOTE),
        Text("instructions were not counted: the plugin is missing", Role.NOTE),
    ]
