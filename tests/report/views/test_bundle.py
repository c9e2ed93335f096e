"""What an export did, as blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trpexport.report.blocks import Kind, Table, Value
from trpexport.report.views.bundle import bundle_view

OUTPUT = {
    "max_error": 2e-6,
    "rms_error": 0.2,
    "variation_error": 0.25,
    "inputs": 64,
    "top1_agreement": 0.875,
}
REWRITE = {
    "name": "rewrite",
    "outputs": {"a": OUTPUT, "b": {**OUTPUT, "max_error": 3e-6, "inputs": 8}},
}
DECOMPOSE = {"name": "decompose", "outputs": {"a": OUTPUT}}
FILE = [{"name": "export", "outputs": {"a": {**OUTPUT, "max_error": 1.0}}}]
FILE += [{"name": "simplify", "outputs": {}}, {"name": "annotate", "outputs": {"a": OUTPUT}}]
REPORT: dict[str, Any] = {
    "macs": {"before": 600, "after": 200, "ratio": 3.0, "uncounted": {}},
    "parameters": {"before": 80, "after": 40},
    "file_bytes": 1234,
    "layers_rewritten": 3,
    "steps": [REWRITE, DECOMPOSE, *FILE],
    "notes": ["read [this]"],
}


def report(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(REPORT) | changes


def facts(data: dict[str, Any]) -> list[tuple[str, Any]]:
    (table,) = bundle_view(data)
    assert isinstance(table, Table) and not table.has_head
    return [(row["what"], row["how"]) for row in table.rows]


def test_both_comparisons_are_kept_apart() -> None:
    found = facts(REPORT)
    labels = ["MACs", "Parameters", "Equivalent", "Equivalent", "Approximate", "Note"]
    assert [label for label, _ in found] == labels
    # The worst output of several, and the fewest inputs.
    assert Value(3e-6, Kind.NUMBER, digits=1) in found[2][1]
    assert " of the output's RMS on 8 inputs" in found[2][1]
    assert Value(2e-6, Kind.NUMBER, digits=1) in found[3][1]
    assert {Value(0.25, Kind.SHARE), Value(0.875, Kind.SHARE)} <= set(found[4][1])
    assert found[5][1] == "read [this]"


def test_costs_before_and_after() -> None:
    macs, parameters, *_ = (how for _, how in facts(REPORT))
    before, after = Value(600, Kind.COUNT), Value(200, Kind.COUNT)
    assert macs[:3] == (before, " -> ", after)
    assert Value(3.0, Kind.RATIO) in macs
    assert parameters == (
        *(Value(80, Kind.COUNT), " -> ", Value(40, Kind.COUNT)),
        *(", file ", Value(1234, Kind.BYTES)),
    )


def test_what_was_not_counted_makes_bounds() -> None:
    found = facts(report(macs={**REPORT["macs"], "uncounted": {"Foo": 2}}))
    assert Value(600, Kind.COUNT, bound="at least") in found[0][1]
    assert Value(200, Kind.COUNT, bound="at least") in found[0][1]
    assert Value(3.0, Kind.RATIO, bound="at most") in found[0][1]
    assert found[1] == ("Not counted", "Foo (2)")


def test_a_network_as_it_is() -> None:
    same = report(
        macs={"before": 600, "after": 600, "ratio": 1.0, "uncounted": {}},
        layers_rewritten=0,
        steps=FILE,
        notes=[],
    )
    found = facts(same)
    assert found[0] == ("MACs", (Value(600, Kind.COUNT),))
    assert [label for label, _ in found] == ["MACs", "Parameters", "Equivalent"]


@pytest.mark.parametrize("error", [None, 0.25])
def test_an_error_without_bound_is_said(error: float | None) -> None:
    output = {**OUTPUT, "variation_error": error, "top1_agreement": None}
    change = facts(report(steps=[REWRITE, {**DECOMPOSE, "outputs": {"a": output}}, *FILE]))[4][1]
    assert ("no bound" in change) is (error is None)
    assert not any("top-1" in part for part in change if isinstance(part, str))


@pytest.mark.parametrize(("error", "shown"), [(0.5, Value(0.5, Kind.SHARE)), (None, "no bound")])
def test_the_worst_output_is_named_and_one_that_stays_hides_nothing(
    error: float | None, shown: Any
) -> None:
    outputs: dict[str, Any] = {"still": {**OUTPUT, "variation_error": 0.0}}
    outputs |= {"logits": {**OUTPUT, "variation_error": error}, "other": OUTPUT}
    change = facts(report(steps=[REWRITE, {**DECOMPOSE, "outputs": outputs}, *FILE]))[4][1]
    assert change[0].startswith("logits, the worst output, moves by")
    assert change[1] == shown


def test_older_reports_call_it_unknown() -> None:
    macs = {"before": 600, "after": 200, "ratio": 3.0, "unknown": {"Foo": 2}}
    assert ("Not counted", "Foo (2)") in facts(report(macs=macs))
