"""Plans as blocks, counted by hand."""

from __future__ import annotations

from dataclasses import replace

from trpexport.inputs import Inputs
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan
from trpexport.report.blocks import Kind, Portion, Role, Table, Text, Value
from trpexport.report.views.plan import plan_view

CONV = LinearOp(16, 16, window=Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)))
CALLS = (Call(1, (8, 8)),)
KEPT = LayerPlan("stem", CONV, CALLS, None, None, None, (), "it is [small]", None, 100, 100)
CUT = LayerPlan("body", CONV, CALLS, "spatial", 9, 48, (CONV, CONV), None, 0.25, 900, 300)
PLAN = Plan("spatial", "energy:0.9", Inputs.of((1, 3, 8, 8)), (KEPT, CUT), 50, "net[0]")


def tables(plan: Plan) -> tuple[Table, Table]:
    layers, *_, kept = plan_view(plan)
    assert isinstance(layers, Table) and isinstance(kept, Table)
    return layers, kept


def test_every_layer_is_a_row_of_raw_values() -> None:
    table, kept = tables(PLAN)
    stem, body, others = table.rows
    assert stem == {
        **{"layer": "stem", "operator": "16->16 3x3", "rank": None},
        **{"before": 100, "after": 100},
    }
    assert body == {
        **{"layer": "body", "operator": "16->16 3x3", "scheme": "spatial"},
        **{"rank": Portion(9, 48), "before": 900, "after": 300},
        **{"saved": 3.0, "weight_error": 0.25},
    }
    assert others == {"layer": "others", "rank": None, "before": 50, "after": 50}
    assert table.faint == {0, 2}
    assert kept.rows == ({"layer": "stem", "reason": "it is [small]"},)


def test_totals_are_of_all() -> None:
    (total,) = tables(PLAN)[0].totals
    # 100 + 900 + 50 before, 100 + 300 + 50 after
    assert total == {"layer": "all", "before": 1050, "after": 450, "saved": 1050 / 450}


def test_the_title_says_what_was_asked_for() -> None:
    assert tables(PLAN)[0].title == (
        "net[0], spatial, energy:0.9; ",
        Value(Portion(1, 2), Kind.WHOLE),
        " layers rewritten",
    )


def test_what_ranks_are_multiples_of_is_said() -> None:
    options = {"rank_multiple": 16, "rank_multiple_reason": "auto: 16, AVX-512"}
    _, said, _ = plan_view(replace(PLAN, options=options))
    assert said == Text("Ranks are multiples of 16 where that is cheaper (auto: 16, AVX-512)")
    assert len(plan_view(replace(PLAN, options={**options, "rank_multiple": 1}))) == 2


def test_schemes_are_shown_where_they_differ() -> None:
    def shown(plan: Plan) -> bool:
        return "scheme" in [column.key for column in tables(plan)[0].columns]

    assert not shown(PLAN)
    assert shown(replace(PLAN, scheme="auto"))


def test_totals_are_bounds_where_something_was_not_counted() -> None:
    table, warning, _ = plan_view(replace(PLAN, uncounted={"Foo": 2, "Bar": 1}))
    assert isinstance(table, Table)
    (total,) = table.totals
    assert total["before"] == Value(1050, bound="at least")
    assert total["after"] == Value(450, bound="at least")
    assert total["saved"] == Value(1050 / 450, bound="at most")
    assert warning == Text("Not counted, because not known: Bar (1), Foo (2)", Role.WARNING)


def test_nothing_is_said_of_layers_that_are_all_rewritten() -> None:
    assert len(plan_view(replace(PLAN, layers=(CUT,)))) == 1
