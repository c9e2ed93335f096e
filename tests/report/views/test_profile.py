"""Profiles as blocks."""

from __future__ import annotations

from trpexport.measure.profile.attribution import Attribution, LayerTime, OtherTime
from trpexport.measure.profile.bench_profile import BenchProfile
from trpexport.measure.profile.comparison import LayerComparison
from trpexport.measure.profile.placement import Placement, ProviderShare
from trpexport.report.blocks import Kind, Table, Text, Tone, Value
from trpexport.report.views.profile import profile_view

SHARES = (ProviderShare("CPU", 3, 0.75, 30, 0.6), ProviderShare("GPU", 1, 0.25, None, None))
PLACE = Placement("x", 2, SHARES)


def attribution(seconds: float, others: tuple[OtherTime, ...] = ()) -> Attribution:
    layer = LayerTime("conv", ("n",), ("Conv+Relu", "Conv"), seconds, 0.25, 0.5, 0.0, 40)
    return Attribution("x", 10, 8.0, (layer,), others)


def other(operator: str, seconds: float) -> OtherTime:
    return OtherTime("other", operator, ("n",), seconds, 0.0, 0.1)


PROFILE = BenchProfile(
    ("base", "fast"),
    (
        attribution(3.0, (other("Add", 1.0), other("Add", 0.5))),
        attribution(2.0, (other("Mul", 1.0),)),
    ),
    (PLACE, PLACE),
    (
        LayerComparison("conv", True, 3.0, 2.0, 0.1, "faster"),
        LayerComparison("stem", False, 1.0, 2.0, 0.1, "slower"),
        LayerComparison("gone", True, 1.0, 0.0, 0.1, "not measured"),
    ),
    ({}, {}),
)


def test_layers_are_compared() -> None:
    table, *_ = profile_view(PROFILE)
    assert isinstance(table, Table)
    assert [column.title for column in table.columns[1:3]] == ["base", "fast"]
    assert [(row["base"], row["other"], row["speedup"]) for row in table.rows] == [
        (3.0, 2.0, 1.5),
        (1.0, 2.0, 0.5),
        (1.0, 0.0, None),
    ]
    assert [row["verdict"] for row in table.rows] == [
        Value("faster", tone=Tone.GOOD),
        Value("kept; slower", tone=Tone.FAINT),
        Value("not measured"),
    ]
    assert table.totals == ({"layer": "all layers", "base": 3.0, "other": 2.0, "speedup": 1.5},)


def test_networks_without_a_plan_are_shown_one_by_one() -> None:
    alone = BenchProfile(("base",), (attribution(3.0),), (PLACE,), (), ({},))
    table, *_ = profile_view(alone)
    assert isinstance(table, Table)
    assert table.title == "base"
    assert table.rows == (
        {
            **{"layer": "conv", "computed": "Conv+Relu, Conv", "time": 3.0, "mad": 0.25},
            **{"share": 0.5, "macs": 40},
        },
    )


def test_all_else_is_summed_by_operator() -> None:
    _, table, *_ = profile_view(PROFILE)
    assert isinstance(table, Table)
    assert table.rows == (
        {"operator": "Add", "kind": "other", "0": 1.5, "1": None},
        {"operator": "Mul", "kind": "other", "0": None, "1": 1.0},
    )


def test_what_the_sum_is_of_the_wall() -> None:
    text = profile_view(PROFILE)[2]
    assert isinstance(text, Text)
    values = [part for part in text.content if isinstance(part, Value)]
    # Nodes take 3 + 1.5 of 8 seconds.
    assert values[:3] == [
        Value(4.5, Kind.SECONDS),
        Value(8.0, Kind.SECONDS),
        Value(0.5625, Kind.SHARE),
    ]
    assert values[3:] == [Value(0.75, Kind.SHARE), Value(0.6, Kind.SHARE), Value(0.25, Kind.SHARE)]
