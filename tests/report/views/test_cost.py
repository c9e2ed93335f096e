"""Costs as blocks, counted by hand."""

from __future__ import annotations

from trpexport.cost import Cost, OperatorCost
from trpexport.report.blocks import Role, Table, Text, Value
from trpexport.report.views.cost import cost_view

LAYERS = (
    OperatorCost("conv", "Conv", (1, 3, 8, 8), (1, 4, 8, 8), 1000, 112, 1024),
    OperatorCost("fc", "Gemm", (1, 4), (1, 10), 40, 50, 40),
)
COST = Cost(LAYERS, {"Relu": 2, "Add": 1}, {}, 8)


def test_a_layer_is_a_row_and_the_rest_is_one() -> None:
    table, text = cost_view(COST)
    assert isinstance(table, Table)
    conv, _, others = table.rows
    assert conv == {
        **{"layer": "conv", "operator": "Conv", "input": (1, 3, 8, 8), "output": (1, 4, 8, 8)},
        **{"macs": 1000, "flops": 2000, "parameters": 112, "activations": 1024},
    }
    assert others == {"layer": "(others)", "parameters": 8}
    assert table.faint == {2}
    assert table.totals == (
        {"layer": "all", "macs": 1040, "flops": 2080, "parameters": 170, "activations": 1064},
    )
    assert text == Text("Left out: biases, Add (1), Relu (2). FLOPs are 2 x MACs.")


def test_nothing_else_is_no_row() -> None:
    table, text = cost_view(Cost(LAYERS, {}, {}, 0))
    assert isinstance(table, Table)
    assert len(table.rows) == 2 and not table.faint
    assert text == Text("Left out: biases. FLOPs are 2 x MACs.")


def test_totals_are_bounds_where_something_was_not_counted() -> None:
    table, _, warning = cost_view(Cost(LAYERS, {}, {"com.acme.Foo": 3}, 0))
    assert isinstance(table, Table)
    (total,) = table.totals
    assert total["macs"] == Value(1040, bound="at least")
    assert total["flops"] == Value(2080, bound="at least")
    assert total["parameters"] == 162
    assert warning == Text("Not counted, because not known: com.acme.Foo (3)", Role.WARNING)
