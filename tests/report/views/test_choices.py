"""What criteria would do, as blocks."""

from __future__ import annotations

from dataclasses import replace

from tests.report.views.test_plan import PLAN
from trpexport.choose.survey import CriterionOutcome
from trpexport.report.blocks import Portion, Table, Value
from trpexport.report.views.choices import choices_view

CHOICES = [
    CriterionOutcome("energy:0.9", 1, 1.45, 0.312),
    CriterionOutcome("value:0.05", 0, 1.0, 0.0),
]


def test_a_criterion_is_a_row() -> None:
    (table,) = choices_view(CHOICES, PLAN)
    assert isinstance(table, Table)
    assert [tuple(row.values()) for row in table.rows] == [
        ("energy:0.9", Portion(1, 2), 1.45, 0.312),
        ("value:0.05", Portion(0, 2), None, None),
    ]
    assert table.faint == {1}
    assert "net[0]" in table.title and "energy:0.9" in table.title


def test_what_is_saved_is_a_bound_where_something_was_not_counted() -> None:
    table, _ = choices_view(CHOICES, replace(PLAN, uncounted={"Foo": 2}))
    assert isinstance(table, Table)
    assert [row["saved"] for row in table.rows] == [Value(1.45, bound="at most"), None]
